//! 10,000 seeded rounds of purge racing load: after a purge is acknowledged, no older version is seen.
//!
//! Each worker owns a few pages. A round bumps the page's version at the origin,
//! purges it by a selector that the seed chooses, with reads racing before, during
//! and after; every read that begins after an acknowledgement must see at least the
//! version that was current when the purge was asked for. The origin reads its
//! version when a request comes in and then dawdles by a seeded number of yields,
//! so that loads from before a purge end after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use e2e::client::Client;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::within;
use serde_json::{Value, json};

const ROUNDS: u64 = 10_000;
const WORKERS: u64 = 8;
const PAGES: usize = 32;

/// The versions at the origin, and those that reads from now on may not fall below.
struct PageVersions {
    current: Vec<AtomicU64>,
    floor: Vec<AtomicU64>,
    checked: AtomicU64,
}

async fn origin(world: Arc<PageVersions>) -> Origin {
    Origin::start(move |asked| {
        let page: usize = asked
            .seen
            .path
            .trim_start_matches("/page/")
            .parse()
            .unwrap();
        let version = world.current[page].load(Ordering::SeqCst);
        let mut random = Random::new(version << 8 | page as u64);
        async move {
            for _ in 0..random.below(40) {
                tokio::task::yield_now().await;
            }
            Reply::fresh(version.to_string()).header("surrogate-key", &format!("page-{page}"))
        }
    })
    .await
}

/// A read: what it may not fall below is looked up before it begins.
async fn read(client: &Client, world: &PageVersions, page: usize, seed: u64) {
    let floor = world.floor[page].load(Ordering::SeqCst);
    let answer = client.get(&format!("/page/{page}")).await;
    let seen: u64 = answer
        .text()
        .parse()
        .unwrap_or_else(|_| panic!("page {page} said {:?}", answer.text()));
    assert!(
        seen >= floor,
        "seed {seed}: page {page} showed {seen} after {floor} was acknowledged: {:?}",
        answer.cache()
    );
    world.checked.fetch_add(1, Ordering::SeqCst);
}

fn selector(random: &mut Random, gateway: &Gateway, page: usize) -> Value {
    let base = format!("http://{}", gateway.address);
    match random.below(16) {
        0 => json!({"all": true}),
        1 => json!({"route": "site"}),
        2..4 => json!({"pattern": format!("{base}/*/{page}")}),
        4..6 => json!({"prefix": format!("{base}/page/{page}")}),
        6..11 => json!({"url": format!("{base}/page/{page}")}),
        _ => json!({"tag": format!("page-{page}")}),
    }
}

async fn rounds(worker: u64, gateway: Arc<Gateway>, world: Arc<PageVersions>) {
    let mut random = Random::new(worker);
    let client = gateway.client();
    // A page has one owner, so that a floor is raised by one task only.
    let mine: Vec<usize> = (0..PAGES)
        .filter(|page| *page as u64 % WORKERS == worker)
        .collect();
    for round in 0..ROUNDS / WORKERS {
        let page = mine[random.below(mine.len() as u64) as usize];
        let seed = worker << 32 | round;
        let racing: Vec<_> = (0..random.below(3))
            .map(|_| {
                let (client, world) = (client.clone(), world.clone());
                tokio::spawn(async move { read(&client, &world, page, seed).await })
            })
            .collect();
        for _ in 0..random.below(8) {
            tokio::task::yield_now().await;
        }
        let version = world.current[page].fetch_add(1, Ordering::SeqCst) + 1;
        gateway.purge(selector(&mut random, &gateway, page)).await;
        world.floor[page].store(version, Ordering::SeqCst);
        read(&client, &world, page, seed).await;
        for one in racing {
            one.await.unwrap();
        }
        read(&client, &world, page, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_old_value_is_seen_after_an_acknowledged_purge() {
    let numbers = || (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let world = Arc::new(PageVersions {
        current: numbers(),
        floor: numbers(),
        checked: AtomicU64::new(0),
    });
    let origin = origin(world.clone()).await;
    let gateway = Arc::new(
        Setup::new(&origin)
            .top("telemetry", "{access_log: off}")
            .start()
            .await,
    );
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(rounds(worker, gateway.clone(), world.clone())))
        .collect();
    for worker in workers {
        within("10,000 rounds", std::time::Duration::from_secs(900), worker)
            .await
            .unwrap();
    }
    assert!(world.checked.load(Ordering::SeqCst) >= 2 * (ROUNDS / WORKERS) * WORKERS);
    assert!(origin.count() >= PAGES, "the pages were loaded");
}

/// How often a page is purged by a rule and read while everything is purged.
const MEETINGS: u64 = 500;

/// A purge of everything drops the records of what was purged before it. A look-up that is under way
/// must see the one or the other. Records of rules are looked at last, after those of operators, for
/// which the whole of a long URL is compared here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_rule_purged_is_not_shown_to_whom_reads_while_everything_is_purged() {
    let version = Arc::new(AtomicU64::new(0));
    let now = Arc::clone(&version);
    let origin = Origin::start(move |_| {
        let version = now.load(Ordering::SeqCst).to_string();
        async move { Reply::fresh(version).header("surrogate-key", "page") }
    })
    .await;
    let rules = "invalidate: [{on: [POST], purge: [{tag: page}]}]";
    let gateway = Setup::new(&origin)
        .top("telemetry", "{access_log: off}")
        .route(&format!("{{name: site, upstream: origin, {rules}}}"))
        .start()
        .await;
    let (client, elsewhere) = (gateway.client(), "http://elsewhere.example/".to_owned());
    let page = format!("/page?{}", "x".repeat(4_000));
    let mut random = Random::new(1);
    for meeting in 0..MEETINGS {
        client.get(&page).await;
        gateway.purge(json!({"pattern": elsewhere})).await;
        let new = version.fetch_add(1, Ordering::SeqCst) + 1;
        assert_eq!(client.post("/bump", "").await.status, 200);
        let early = random.below(60);
        let purge = async {
            for _ in 0..early {
                tokio::task::yield_now().await;
            }
            gateway.purge(json!({"all": true})).await;
        };
        let (read, ()) = tokio::join!(client.get(&page), purge);
        assert_eq!(
            read.text(),
            new.to_string(),
            "{meeting}: {:?}",
            read.cache()
        );
    }
}
