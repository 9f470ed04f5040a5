//! Wall clocks that are wrong, or are set while a gateway runs, in both directions: nothing
//! becomes younger by that, in L1, on a disk, in Redis, or on its way over the bus.
//!
//! The gateway's wall clock is libfaketime's (`faketime` of Debian); its monotonic clock is true.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_for};
pub use e2e::wall_clock::{WallClock, library};
use serde_json::json;

/// How long a page of `/short` is fresh, and one of any other path.
const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(1_800);
/// Less than two clocks may differ: only a true clock tells that the page is old.
const BACK_A_LITTLE: i64 = -50;
const HOUR: i64 = 3_600;

/// Pages without validators: what is not fresh is loaded anew.
async fn origin() -> Origin {
    Origin::pages(|seen| {
        let age = match seen.path_only() {
            "/short" => SHORT,
            _ => LONG,
        };
        let fresh = format!("max-age={}", age.as_secs());
        Reply::ok("page").header("cache-control", &fresh)
    })
    .await
}

async fn ask(node: &Gateway, path: &str) -> Answer {
    node.client()
        .request(path)
        .host("site.example")
        .send()
        .await
}

async fn stored(node: &Gateway, at_least: f64) {
    let labels = [("outcome", "stored")];
    node.metric_until("lamina_l2_writes_total", &labels, |n| n >= at_least)
        .await;
}

/// Loads both pages and waits until they are in the second tier; the time before.
async fn load(node: &Gateway) -> Instant {
    let before = Instant::now();
    for path in ["/short", "/long"] {
        assert!(!ask(node, path).await.is_hit(), "{path}");
    }
    stored(node, 2.0).await;
    before
}

async fn outlived(since: Instant) {
    passed(since, SHORT + Duration::from_millis(200)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_l1_a_page_ages_by_a_clock_that_nobody_sets() {
    let Some(library) = library() else {
        return;
    };
    let origin = origin().await;
    let clock = WallClock::new(0);
    let node = clock.of(&Setup::new(&origin), &library).start().await;
    for offset in [BACK_A_LITTLE, -HOUR, HOUR] {
        clock.set(0);
        node.purge(json!({"all": true})).await;
        ask(&node, "/short").await;
        let since = Instant::now();
        ask(&node, "/long").await;
        clock.set(offset);
        let long = ask(&node, "/long").await;
        assert!(long.is_hit(), "{offset}: {:?}", long.cache());
        assert!(long.age().unwrap() < LONG.as_secs(), "{offset}");
        outlived(since).await;
        assert!(!ask(&node, "/short").await.is_hit(), "{offset}");
    }
}

fn on_disk(origin: &Origin, folder: &Path) -> Setup {
    let path = folder.join("l2");
    let l2 = format!(
        "{{l2: {{disk: {{path: \"{}\"}}, read_timeout: 10s, write_timeout: 10s}}}}",
        path.display()
    );
    Setup::new(origin).top("cache", &l2)
}

/// What a gateway shows that starts with its clock so far off on what another one stored.
async fn restarted_at(offset: i64) -> (Answer, Answer) {
    let library = library().unwrap();
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let setup = on_disk(&origin, folder.path());
    let mut node = setup.start().await;
    let since = load(&node).await;
    assert_eq!(
        node.purge(json!({"tag": "sync"})).await["l2"]["logged"],
        true
    );
    node.kill();
    node.ended(SOON).await;
    outlived(since).await;
    let clock = WallClock::new(offset);
    let node = clock.of(&setup, &library).start().await;
    node.metric_until("lamina_l2_purge_log_number", &[], |n| n >= 1.0)
        .await;
    (ask(&node, "/short").await, ask(&node, "/long").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk_a_page_gets_no_younger_when_the_clock_goes_back() {
    if library().is_none() {
        return;
    }
    for offset in [BACK_A_LITTLE, -HOUR] {
        let (short, long) = restarted_at(offset).await;
        assert!(!short.is_hit(), "{offset}: it is older than it may be");
        assert!(
            long.is_hit(),
            "{offset}: its age is known: {:?}",
            long.cache()
        );
        assert!(long.age().unwrap() >= SHORT.as_secs(), "{offset}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk_the_older_age_counts_when_the_clock_goes_forward() {
    if library().is_none() {
        return;
    }
    let (short, long) = restarted_at(HOUR).await;
    assert!(!short.is_hit() && !long.is_hit());
}

/// What a second gateway shows whose clock is so far off, of what the first one stored.
async fn beside_at(offset: i64) -> (Answer, Answer) {
    let library = library().unwrap();
    let (origin, redis) = (origin().await, Redis::start().await);
    let l2 = format!(
        "{{l2: {{redis: {{url: \"{}\"}}, read_timeout: 10s, write_timeout: 10s}}}}",
        redis.url()
    );
    let setup = Setup::new(&origin).top("cache", &l2);
    let one = setup.start().await;
    one.metric_until(
        "lamina_l2_calls_total",
        &[("operation", "watch"), ("outcome", "ok")],
        |n| n > 0.0,
    )
    .await;
    let since = load(&one).await;
    let clock = WallClock::new(offset);
    let other = clock.of(&setup, &library).start().await;
    other
        .metric_until(
            "lamina_l2_calls_total",
            &[("operation", "watch"), ("outcome", "ok")],
            |n| n > 0.0,
        )
        .await;
    outlived(since).await;
    (ask(&other, "/short").await, ask(&other, "/long").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_redis_a_page_gets_no_younger_for_a_node_whose_clock_is_behind() {
    if library().is_none() {
        return;
    }
    for offset in [BACK_A_LITTLE, -HOUR] {
        let (short, long) = beside_at(offset).await;
        assert!(!short.is_hit(), "{offset}: it is older than it may be");
        assert!(
            long.is_hit(),
            "{offset}: its age is known: {:?}",
            long.cache()
        );
        assert!(long.age().unwrap() >= SHORT.as_secs(), "{offset}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_redis_the_older_age_counts_for_a_node_whose_clock_is_ahead() {
    if library().is_none() {
        return;
    }
    let (short, long) = beside_at(HOUR).await;
    assert!(!short.is_hit() && !long.is_hit());
}

/// A value that a peer tells over the bus, to a node whose clock is so far off: the word in the
/// metric for what became of it, and what the node shows when the page has outlived itself.
async fn told_at(offset: i64, outcome: &str) -> Answer {
    let library = library().unwrap();
    let (origin, redis) = (origin().await, Redis::start().await);
    let node = |name: &str| {
        let bus = format!(
            "{{source: {name}, heartbeat_interval: 300ms, priming: always, redis: {{url: \"{}\"}}}}",
            redis.url()
        );
        Setup::new(&origin).top("bus", &bus)
    };
    let clock = WallClock::new(offset);
    let other = clock.of(&node("b"), &library).start().await;
    let one = node("a").start().await;
    wait_for("the two hear each other", SOON, || async {
        let heard = e2e::fleet::known(&one).await + e2e::fleet::known(&other).await;
        (heard == 2).then_some(())
    })
    .await;
    let since = Instant::now();
    ask(&one, "/short").await;
    let labels = [("outcome", outcome)];
    other
        .metric_until("lamina_cluster_values_total", &labels, |n| n >= 1.0)
        .await;
    outlived(since).await;
    ask(&other, "/short").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_over_the_bus_gets_no_younger_for_a_node_whose_clock_is_wrong() {
    if library().is_none() {
        return;
    }
    for (offset, outcome) in [(BACK_A_LITTLE, "stored"), (-HOUR, "stored"), (HOUR, "late")] {
        let short = told_at(offset, outcome).await;
        assert!(!short.is_hit(), "{offset}: it is older than it may be");
    }
}
