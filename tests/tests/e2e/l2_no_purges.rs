//! A Redis that is full, a replica, evicting, or emptied: purges get into its log where it lets
//! them, and where it does not, or may lose them, operators are told.

use std::time::{Duration, Instant};

use e2e::cli::run;
use e2e::fleet::{Pages, state};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::{self, Redis};
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};

/// How often a time is taken; the median counts, on a machine that others use.
const TIMES: usize = 3;

/// How a purge log ends and another one begins.
#[derive(Clone, Copy, Debug)]
enum LogReset {
    Flushed,
    FlushedAndNodeRestarted,
    KilledAndEmpty,
}

impl LogReset {
    const ALL: [Self; 3] = [
        Self::Flushed,
        Self::FlushedAndNodeRestarted,
        Self::KilledAndEmpty,
    ];
}

fn setup(origin: &Origin, redis: &Redis) -> Setup {
    let l2 = format!("{{l2: {{redis: {{url: \"{}\"}}}}}}", redis.url());
    Setup::new(origin).top("cache", &l2)
}

async fn node(origin: &Origin, redis: &Redis) -> Gateway {
    let node = setup(origin, redis).start().await;
    let watched = [("operation", "watch"), ("outcome", "ok")];
    node.metric_until("lamina_l2_calls_total", &watched, |n| n > 0.0)
        .await;
    node
}

async fn page(node: &Gateway) -> String {
    let asked = node.client().request("/p").host("site.example");
    asked.send().await.text().to_owned()
}

async fn shows(node: &Gateway, wanted: &str) {
    wait_for("a node shows the new page", SOON, || async {
        (page(node).await == wanted).then_some(())
    })
    .await;
}

async fn says(node: &Gateway, wanted: &str) {
    wait_for(&format!("a node says {wanted}"), SOON, || async {
        (state(node).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_full_takes_purges_nevertheless() {
    let redis = Redis::start().await;
    let pages = Pages::default();
    let origin = pages.origin().await;
    let (a, b) = (node(&origin, &redis).await, node(&origin, &redis).await);
    for node in [&a, &b] {
        assert_eq!(page(node).await, "1");
    }
    redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    assert!(redis.cli(&["SET", "x", "y"]).await.contains("OOM"));
    pages.change("/p");
    let receipt = a.purge(json!({"tag": "/p"})).await;
    // An older one knows no scripts that run nevertheless: there purges wait.
    let takes = redis::major_version() >= 7;
    assert_eq!(receipt["l2"]["logged"], takes, "{receipt}");
    if takes {
        shows(&b, "2").await;
    }
    is_degraded(&a, "maxmemory-policy volatile-ttl").await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    shows(&b, "2").await;
    says(&a, "serving").await;
}

/// The node says that it is degraded, and this is part of the reason.
async fn is_degraded(node: &Gateway, reason: &str) {
    wait_for(&format!("a node is degraded by {reason}"), SOON, || async {
        let answer = node.admin(Method::GET, "/readyz", "").await;
        let body: Value = serde_json::from_str(&answer.text).unwrap();
        let said = body["l2"]["reason"].as_str().unwrap_or_default();
        (body["state"] == "degraded" && said.contains(reason)).then_some(())
    })
    .await;
    node.metric_until("lamina_l2_degraded", &[], |n| n == 1.0)
        .await;
}

/// The one line of the log in which the outage begins, and the one in which it ends.
async fn is_told_once(node: &Gateway) {
    let began = |line: &str| line.contains("the second tier accepts no writes");
    let ended = |line: &str| {
        line.contains("the second tier accepts writes again") && line.contains("seconds")
    };
    node.logged("that it is over", ended).await;
    let log = node.log();
    assert_eq!(log.iter().filter(|line| began(line)).count(), 1, "{log:?}");
    assert_eq!(log.iter().filter(|line| ended(line)).count(), 1, "{log:?}");
    // Redis itself closes the connections on which somebody waits; it is left once a second after
    // that, which is no news.
    let reconnects = log
        .iter()
        .filter(|line| line.contains("no connection to Redis"));
    assert!(reconnects.count() <= 2, "{log:?}");
    let other = log
        .iter()
        .filter(|line| line.contains("WARN") && line.contains("purges"));
    assert!(other.count() <= 1, "{log:?}");
}

/// Nobody purges: a page that is to be stored is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_became_a_replica_is_known_by_the_first_page_that_it_refuses() {
    let redis = Redis::start().await;
    let origin = Pages::default().origin().await;
    let a = node(&origin, &redis).await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    page(&a).await;
    is_degraded(&a, "it is a replica").await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    says(&a, "serving").await;
    is_told_once(&a).await;
}

/// No request and no purge comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_writes_is_known_before_anything_is_to_be_written() {
    let redis = Redis::start().await;
    let origin = Pages::default().origin().await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    // The log can't be begun on a replica, so this node can't wait for it.
    let a = setup(&origin, &redis).start().await;
    is_degraded(&a, "replica").await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    says(&a, "serving").await;
    // A node that has long been connected, and rests.
    redis
        .cli(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .await;
    is_degraded(&a, "min-replicas-to-write").await;
    redis
        .cli(&["CONFIG", "SET", "min-replicas-to-write", "0"])
        .await;
    says(&a, "serving").await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    is_degraded(&a, "maxmemory").await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    says(&a, "serving").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_no_purges_makes_the_node_degraded_and_is_named() {
    let redis = Redis::start().await;
    let origin = Pages::default().origin().await;
    let a = node(&origin, &redis).await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let admin = a.admin.to_string();
    let ran =
        tokio::task::spawn_blocking(move || run(&["purge", "--tag", "/p", "--admin", &admin]));
    let ran = ran.await.unwrap();
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    assert!(
        ran.stdout.contains("configure the address of the master"),
        "{}",
        ran.output()
    );
    says(&a, "degraded").await;
    let answer = a.admin(Method::GET, "/readyz", "").await;
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    let reason = body["l2"]["reason"].as_str().unwrap();
    assert!(reason.contains("it is a replica"), "{reason}");
    assert_eq!(body["l2"]["purges_waiting"], 1, "{body}");
    a.metric_until("lamina_l2_degraded", &[], |n| n == 1.0)
        .await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    says(&a, "serving").await;
    a.metric_until("lamina_l2_purges_waiting", &[], |n| n == 0.0)
        .await;
    is_told_once(&a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_may_evict_the_purge_log_is_named() {
    let policy = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let redis = Redis::start_with(&policy).await;
    let origin = Pages::default().origin().await;
    let setup = setup(&origin, &redis);
    let a = setup.start().await;
    a.metric_until("lamina_l2_evicts_purge_log", &[], |n| n == 1.0)
        .await;
    a.logged("the policy", |line| {
        line.contains("allkeys-lru") && line.contains("volatile-ttl")
    })
    .await;
    let (_dir, file) = setup.write();
    let file = file.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&["doctor", "-c", &file]));
    let ran = ran.await.unwrap();
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    assert!(ran.stdout.contains("allkeys-lru"), "{}", ran.stdout);
}

/// The new log's numbers are lower than what the other node waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_began_anew_is_seen_by_who_waits_for_a_number_of_the_old_one() {
    let redis = Redis::start().await;
    let pages = Pages::default();
    let origin = pages.origin().await;
    let (a, b) = (node(&origin, &redis).await, node(&origin, &redis).await);
    for n in 0..20 {
        a.purge(json!({"tag": format!("t{n}")})).await;
    }
    b.metric_until("lamina_l2_purge_log_number", &[], |n| n >= 20.0)
        .await;
    assert_eq!(page(&b).await, "1");
    a.kill();
    redis.cli(&["FLUSHALL"]).await;
    pages.change("/p");
    let a = node(&origin, &redis).await;
    let receipt = a.purge(json!({"tag": "/p"})).await;
    assert_eq!(receipt["l2"]["logged"], true, "{receipt}");
    shows(&b, "2").await;
}

/// What was purged, and what lay there, when the log was begun anew while a node waited for news of
/// the old one: how long that node shows it still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_began_anew_is_noticed_within_a_second_by_who_waits_for_news() {
    let mut redis = Redis::start().await;
    let pages = Pages::default();
    let origin = pages.origin().await;
    let (mut a, b) = (node(&origin, &redis).await, node(&origin, &redis).await);
    for how in LogReset::ALL {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            a.purge(json!({"tag": "/other"})).await;
            let before = pages.version("/p").to_string();
            shows(&b, &before).await;
            let new = pages.change("/p").to_string();
            match how {
                LogReset::Flushed => {
                    redis.cli(&["FLUSHALL"]).await;
                }
                LogReset::FlushedAndNodeRestarted => {
                    a.kill();
                    redis.cli(&["FLUSHALL"]).await;
                    a = node(&origin, &redis).await;
                    let receipt = a.purge(json!({"tag": "/p"})).await;
                    assert_eq!(receipt["l2"]["logged"], true, "{receipt}");
                }
                LogReset::KilledAndEmpty => {
                    redis.kill();
                    redis.forget();
                    redis.restart().await;
                }
            }
            let reset = Instant::now();
            shows(&b, &new).await;
            times.push(reset.elapsed());
        }
        eprintln!("{how:?}: {times:?}");
        times.sort_unstable();
        let median = times[times.len() / 2];
        assert!(median <= Duration::from_secs(1), "{how:?}: {times:?}");
    }
}
