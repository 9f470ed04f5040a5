//! What the cache holds goes over to the process that takes the place of a gateway (UP1, WR2), and
//! nothing that was purged comes back by that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use e2e::fleet::Pages;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::upgrade::server;
use e2e::wait::SOON;
use http::Method;
use serde_json::json;

use crate::l2::redis_at;
use crate::warm_restart::{Kept, SNAPSHOT, hit_ratio};

const PAGES: usize = 200;

/// Pages that tell the version of the site. What lies below `/held` is too large for a snapshot, and
/// from the second time on waits at the gate.
async fn site(gate: &Gate, version: &Arc<AtomicUsize>) -> Origin {
    let (gate, version) = (gate.clone(), Arc::clone(version));
    Origin::start(move |asked| {
        let (gate, version) = (gate.clone(), Arc::clone(&version));
        async move {
            let is_held = asked.seen.path.starts_with("/held");
            if is_held && asked.number > 0 && version.load(Ordering::SeqCst) > 0 {
                gate.pass().await;
            }
            let now = version.load(Ordering::SeqCst);
            let size = if is_held { 200_000 } else { 100 };
            Reply::ok(format!("version {now} {}", "x".repeat(size)))
                .header("cache-control", "max-age=600")
        }
    })
    .await
}

async fn start(origin: &Origin, warm: &str) -> Gateway {
    Setup::new(origin)
        .top("server", &server(""))
        .top("cache", &format!("{{warm: {warm}}}"))
        .start()
        .await
}

#[tokio::test]
async fn the_new_process_begins_with_what_the_old_one_held() {
    let (gate, version) = (Gate::new(), Arc::default());
    let origin = site(&gate, &version).await;
    let mut gateway = start(&origin, "{snapshot: 10MiB}").await;
    for n in 0..PAGES {
        gateway.client().get(&format!("/{n}")).await;
    }
    for _ in 0..2 {
        gateway.upgrade().await;
        origin.forget();
        for n in 0..PAGES {
            let answer = gateway.client().get(&format!("/{n}")).await;
            assert!(answer.text().starts_with("version 0"));
        }
        let loads = origin.count();
        assert!(
            loads * 20 <= PAGES,
            "{loads} of {PAGES} pages were loaded again"
        );
    }
    gateway.only_the_last_process(SOON).await;
}

/// What the next process may begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FirstContent {
    /// For comparison.
    Nothing,
    Snapshot,
    Redis,
    RedisAndSnapshot,
    Disk,
    DiskAndSnapshot,
}

impl FirstContent {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Snapshot,
        Self::Redis,
        Self::RedisAndSnapshot,
        Self::Disk,
        Self::DiskAndSnapshot,
    ];

    /// The section `cache`.
    fn cache(self, kept: &Kept, redis: &Redis) -> String {
        let in_redis = || format!(", l2: {}", redis_at(&redis.url()));
        match self {
            Self::Nothing => kept.cache("", ""),
            Self::Snapshot => kept.cache(SNAPSHOT, ""),
            Self::Redis => kept.cache("", &in_redis()),
            Self::RedisAndSnapshot => kept.cache(SNAPSHOT, &in_redis()),
            Self::Disk => kept.cache("", &kept.disk()),
            Self::DiskAndSnapshot => kept.cache(SNAPSHOT, &kept.disk()),
        }
    }

    fn has_second_tier(self) -> bool {
        !matches!(self, Self::Nothing | Self::Snapshot)
    }
}

/// At least 95 % of that before from the moment on at which the command says that the process has
/// taken over, whatever is below the first tier.
#[tokio::test]
async fn the_hit_ratio_after_a_take_over_is_that_of_before() {
    let redis = Redis::start().await;
    for beginning in FirstContent::ALL {
        let (kept, pages) = (Kept::new(), Pages::default());
        let origin = pages.origin().await;
        let cache = beginning.cache(&kept, &redis);
        let setup = Setup::new(&origin).top("server", &server(""));
        let mut gateway = setup.top("cache", &cache).start().await;
        if beginning.has_second_tier() {
            crate::l2::reads_below(&gateway).await;
        }
        hit_ratio(&gateway, 1_500, 1).await;
        let before = hit_ratio(&gateway, 500, 2).await;
        gateway.upgrade().await;
        let (began, after) = (Instant::now(), hit_ratio(&gateway, 500, 3).await);
        let took = began.elapsed();
        println!("hit ratio by {beginning:?}: {before:.3} before, {after:.3} after, in {took:?}");
        assert_eq!(
            after >= 0.95 * before,
            beginning != FirstContent::Nothing,
            "{beginning:?}: {before} before, {after} after"
        );
        gateway.only_the_last_process(SOON).await;
    }
}

/// What is purged, or made invalid by a request, between the moment at which the old process writes
/// down what it holds and the end of the take-over is gone, and nothing else is. `more` is more of the
/// section `cache`.
async fn only_what_is_purged_meanwhile_is_gone(more: &str) {
    let (gate, version) = (Gate::new(), Arc::<AtomicUsize>::default());
    let origin = site(&gate, &version).await;
    let warm = "{snapshot: 100KiB, origins: true, for: 30s}";
    let setup = Setup::new(&origin).top("server", &server(""));
    let cache = format!("{{warm: {warm}{more}}}");
    let mut gateway = setup.top("cache", &cache).start().await;
    for path in ["/a", "/b", "/c", "/held"] {
        gateway.client().get(path).await;
    }
    version.store(1, Ordering::SeqCst);
    let upgrade = gateway.upgrade();
    let purge = async {
        // The new process loads what was too large to be handed over.
        gate.reached_by(1).await;
        let url = format!("http://{}/a", gateway.address);
        gateway.purge(json!({ "url": url })).await;
        let post = gateway.client().ask(Method::POST, "/c").body("x");
        assert_eq!(post.send().await.status, 200);
        gate.open();
    };
    tokio::join!(upgrade, purge);
    for (path, is_hit) in [("/a", false), ("/b", true), ("/c", false)] {
        let answer = gateway.client().get(path).await;
        assert_eq!(answer.is_hit(), is_hit, "{path} {more}");
        let shown = format!("version {}", usize::from(!is_hit));
        assert!(answer.text().starts_with(&shown), "{path} {more}");
    }
    // What is stored on a disk is judged by the same purges.
    gateway.only_the_last_process(SOON).await;
    let answer = gateway.client().get("/b").await;
    assert!(answer.is_hit() && answer.text().starts_with("version 0"));
}

#[tokio::test]
async fn what_is_purged_while_another_process_takes_over_does_not_come_back() {
    only_what_is_purged_meanwhile_is_gone("").await;
}

#[tokio::test]
async fn nor_does_it_beside_a_disk() {
    only_what_is_purged_meanwhile_is_gone(&Kept::new().disk()).await;
}
