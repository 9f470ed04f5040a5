//! A Redis that evicts keys of any kind: a purge log that is looked at is not the oldest, and where
//! it goes nevertheless, nothing purged comes back.

use std::fmt::Write;

use e2e::fleet::Pages;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use serde_json::json;

/// Octets of a key that others write.
const VALUE: usize = 1_000;
/// Seconds for which nobody has looked at the keys that are to go: more than lie between two looks
/// at the purge log, also on a busy machine.
const UNUSED: u64 = 5;

/// Room for everything.
const ROOM: &str = "1gb";

async fn evicting() -> Redis {
    // So many samples that the oldest of all goes.
    let policy = [
        "--maxmemory",
        ROOM,
        "--maxmemory-policy",
        "allkeys-lru",
        "--maxmemory-samples",
        "64",
    ];
    Redis::start_with(&policy).await
}

async fn node(origin: &Origin, redis: &Redis) -> Gateway {
    let l2 = format!("{{l2: {{redis: {{url: \"{}\"}}}}}}", redis.url());
    let node = Setup::new(origin).top("cache", &l2).start().await;
    let watched = [("operation", "watch"), ("outcome", "ok")];
    node.metric_until("lamina_l2_calls_total", &watched, |n| n > 0.0)
        .await;
    node
}

async fn page(node: &Gateway, path: &str) -> (String, bool) {
    let asked = node.client().request(path).host("site.example");
    let answer = asked.send().await;
    (answer.text().to_owned(), answer.is_hit())
}

/// Waits until so many pages are in Redis.
async fn stored(node: &Gateway, count: f64) {
    let labels = [("outcome", "stored")];
    node.metric_until("lamina_l2_writes_total", &labels, |n| n >= count)
        .await;
}

/// Keys that are nobody's, by names that begin so.
async fn write(redis: &Redis, name: &str, count: usize) {
    let mut commands = String::new();
    for number in 0..count {
        let _ = writeln!(commands, "SET {name}:{number} {:x<VALUE$}", "");
    }
    redis.cli_with(&[], commands.as_bytes()).await;
}

/// A number of `INFO`.
async fn number(redis: &Redis, section: &str, name: &str) -> u64 {
    let said = redis.cli(&["INFO", section]).await;
    let mut lines = said.lines();
    let value = lines.find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    value.unwrap().parse().unwrap()
}

async fn unused_seconds(redis: &Redis, key: &str) -> u64 {
    let said = redis.cli(&["OBJECT", "IDLETIME", key]).await;
    said.parse().unwrap_or_default()
}

/// Nobody asks the node for anything and nobody purges, so that only its own looks at the log keep
/// that in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_purge_log_of_a_node_at_rest_is_not_the_oldest_that_goes() {
    const OLD: usize = 4_000;
    let redis = evicting().await;
    let origin = Pages::default().origin().await;
    let a = node(&origin, &redis).await;
    a.purge(json!({"tag": "nothing"})).await;
    page(&a, "/p").await;
    let generation = redis.cli(&["HGET", "lamina:{log}h", "generation"]).await;
    // What is written later than the log was, and is used no more.
    write(&redis, "old", OLD).await;
    wait_for("they have long been unused", SOON, || async {
        (unused_seconds(&redis, "old:0").await >= UNUSED).then_some(())
    })
    .await;
    let most = number(&redis, "memory", "used_memory").await;
    let set = ["CONFIG", "SET", "maxmemory", &most.to_string()];
    assert_eq!(redis.cli(&set).await, "OK");
    write(&redis, "new", OLD / 2).await;
    let evicted = number(&redis, "stats", "evicted_keys").await;
    assert!(evicted > OLD as u64 / 4, "{evicted} keys went");

    let now = redis.cli(&["HGET", "lamina:{log}h", "generation"]).await;
    assert_eq!(now, generation, "it is the same log");
    assert_eq!(redis.cli(&["EXISTS", "lamina:{log}"]).await, "1");
    let receipt = a.purge(json!({"tag": "nothing"})).await;
    assert_eq!(receipt["l2"]["logged"], true, "{receipt}");
    let faults = a
        .scrape()
        .await
        .sum("lamina_l2_purge_log_faults_total", &[]);
    assert_eq!(faults, 0.0);
    assert!(page(&a, "/p").await.1, "nothing was hidden");
}

/// There is room for nothing, so that the log goes as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_log_that_is_evicted_is_begun_anew_and_nothing_purged_comes_back() {
    let redis = evicting().await;
    let pages = Pages::default();
    let origin = pages.origin().await;
    let (a, b) = (node(&origin, &redis).await, node(&origin, &redis).await);
    for path in ["/kept", "/purged"] {
        for node in [&a, &b] {
            assert_eq!(page(node, path).await.0, "1");
        }
    }
    stored(&a, 2.0).await;
    pages.change("/purged");
    a.purge(json!({"tag": "/purged"})).await;
    wait_for("the other node knows the purge", SOON, || async {
        (page(&b, "/purged").await.0 == "2").then_some(())
    })
    .await;
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await, "OK");
    redis.cli(&["SET", "x", "y"]).await;
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", ROOM]).await, "OK");
    let evicted = number(&redis, "stats", "evicted_keys").await;
    assert!(evicted > 0);

    let lost = [("reason", "lost")];
    wait_for("a node says that the log was lost", SOON, || async {
        let mut faults = 0.0;
        for node in [&a, &b] {
            faults += node.metric("lamina_l2_purge_log_faults_total", &lost).await;
        }
        (faults > 0.0).then_some(())
    })
    .await;
    for node in [&a, &b] {
        node.metric_until("lamina_l2_evicts_purge_log", &[], |n| n == 1.0)
            .await;
        assert_eq!(page(node, "/purged").await.0, "2");
    }
    pages.change("/kept");
    let receipt = a.purge(json!({"tag": "/kept"})).await;
    assert_eq!(receipt["l2"]["logged"], true, "{receipt}");
    for node in [&a, &b] {
        wait_for("the next purge comes to every node", SOON, || async {
            (page(node, "/kept").await.0 == "2").then_some(())
        })
        .await;
    }
}
