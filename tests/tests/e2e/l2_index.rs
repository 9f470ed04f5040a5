//! The index of the second tier through the front door: what is listed, what purges free in
//! Redis, and that nothing else depends on it.

use std::collections::BTreeSet;

use e2e::cli::run;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::{Cluster, Redis};
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};

use crate::l2::{LASTING, PATIENCE, ask, over, reads_below, redis_at, versions, written};

const TEXTS: &str = "lamina:index:{0}u";

/// A Redis that is waited for, with an index of so many shards.
fn indexed_at(url: &str, shards: u16) -> String {
    format!(
        "{{redis: {{url: \"{url}\", connect_timeout: 1m, silence_timeout: 10m, index: {{enabled: true, shards: {shards}}}}}, {PATIENCE}}}"
    )
}

/// Waits until `n` records were noted.
async fn noted(gateway: &Gateway, n: f64) {
    let labels = [("outcome", "noted")];
    gateway
        .metric_until("lamina_l2_index_total", &labels, |count| count >= n)
        .await;
}

/// Waits until `n` records were removed since purges hide them.
async fn cleared(gateway: &Gateway, n: f64) {
    gateway
        .metric_until("lamina_l2_cleared_total", &[], |count| count >= n)
        .await;
}

async fn calls(gateway: &Gateway, operation: &str) -> f64 {
    let labels = [("operation", operation)];
    gateway.metric("lamina_l2_calls_total", &labels).await
}

async fn list(gateway: &Gateway, query: &str) -> Value {
    let path = format!("/v1/l2/keys?{query}");
    let answer = gateway.admin(Method::GET, &path, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

/// The URLs of a listing in one step.
async fn urls(gateway: &Gateway, query: &str) -> Vec<String> {
    let listing = list(gateway, query).await;
    assert_eq!(listing["cursor"], Value::Null, "{listing}");
    let keys = listing["keys"].as_array().unwrap();
    let url = |key: &Value| key["url"].as_str().unwrap().to_owned();
    let mut urls: Vec<_> = keys.iter().map(url).collect();
    urls.sort();
    urls
}

/// How many records, births (`b`) or tombstones (`t`) there are.
async fn count(redis: &Redis, kind: char) -> usize {
    let pattern = format!("lamina:{{*}}*{kind}");
    let keys = redis.cli(&["--scan", "--pattern", &pattern]).await;
    keys.lines().filter(|line| !line.is_empty()).count()
}

#[tokio::test]
async fn a_listing_has_what_is_there_and_how_long_yet() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let gateway = over(&origin, &indexed_at(&redis.url(), 16), LASTING).await;
    assert!(urls(&gateway, "").await.is_empty());
    for path in ["/a", "/a?x=1+2", "/b/c"] {
        ask(&gateway, path).await;
    }
    noted(&gateway, 3.0).await;
    let all = ["site.example/a", "site.example/a?x=1+2", "site.example/b/c"];
    assert_eq!(urls(&gateway, "").await, all);
    for (pattern, found) in [
        ("site.example/a*", &all[..2]),
        ("http://site.example/a%5C%3Fx=1+2", &all[1..2]),
        ("/b/*", &all[2..]),
        ("*[ab]*", &all[..0]),
        ("/a", &all[..1]),
    ] {
        let query = format!("pattern={pattern}");
        assert_eq!(urls(&gateway, &query).await, found, "{pattern}");
    }
    let listing = list(&gateway, "pattern=/b/c").await;
    let one = &listing["keys"][0];
    let left = one["expires_in_ms"].as_u64().unwrap();
    assert!((80_000_000..=86_400_000).contains(&left), "{left}");
    let explained = json!({"url": "http://site.example/b/c"}).to_string();
    let explained = gateway
        .admin(Method::POST, "/v1/explain", &explained)
        .await
        .text;
    assert!(explained.contains(one["key"].as_str().unwrap()));
    // Gone without anybody's knowledge, as by eviction.
    redis.cli(&["DEL", one["record"].as_str().unwrap()]).await;
    assert_eq!(urls(&gateway, "").await, all[..2]);
}

#[tokio::test]
async fn a_long_listing_is_walked_in_steps_to_its_end() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let gateway = over(&origin, &indexed_at(&redis.url(), 3), LASTING).await;
    let mut wanted = BTreeSet::new();
    for n in 0..150 {
        // Long enough for Redis not to keep a shard in one piece.
        let path = format!("/{n}/{}", "x".repeat(80));
        ask(&gateway, &path).await;
        wanted.insert(format!("site.example{path}"));
    }
    noted(&gateway, 150.0).await;
    let (mut found, mut steps) = (BTreeSet::new(), 0);
    let mut cursor = "0-0".to_owned();
    loop {
        let listing = list(&gateway, &format!("limit=5&cursor={cursor}")).await;
        let keys = listing["keys"].as_array().unwrap();
        assert!(keys.len() < 60, "a step is small: {}", keys.len());
        found.extend(
            keys.iter()
                .map(|key| key["url"].as_str().unwrap().to_owned()),
        );
        steps += 1;
        match listing["cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(found, wanted);
    assert!(steps > 3, "{steps}");
}

#[tokio::test]
async fn the_command_lists_what_matches_and_says_when_there_is_more() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let gateway = over(&origin, &indexed_at(&redis.url(), 16), LASTING).await;
    for n in 0..40 {
        ask(&gateway, &format!("/user/{n}")).await;
    }
    ask(&gateway, "/other").await;
    noted(&gateway, 41.0).await;
    let admin = gateway.admin.to_string();
    let keys = |further: &'static [&'static str]| {
        let mut arguments = vec!["l2", "keys", "--admin", &admin];
        arguments.extend(further);
        run(&arguments)
    };
    let users = keys(&["--pattern", "/user/*"]);
    assert_eq!(users.code, Some(0), "{users:?}");
    assert_eq!(users.stdout.lines().count(), 41);
    assert!(users.stdout.ends_with("40 keys\n"), "{}", users.stdout);
    assert!(users.stdout.contains(": site.example/user/7, expires in "));
    assert!(!users.stdout.contains("/other"));
    let few = keys(&["--limit", "3"]);
    assert_eq!(few.stdout.lines().count(), 4);
    assert!(
        few.stdout
            .ends_with("3 keys; there are more (raise --limit)\n")
    );
}

#[tokio::test]
async fn without_an_index_a_listing_says_what_to_switch_on() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let plain = over(&origin, &redis_at(&redis.url()), LASTING).await;
    let folder = tempfile::tempdir().unwrap();
    let disk = format!("{{disk: {{path: \"{}/l2\"}}}}", folder.path().display());
    let disk = over(&origin, &disk, LASTING).await;
    let none = Setup::new(&origin).start().await;
    for (gateway, hint) in [
        (&plain, "cache.l2.redis.index.enabled"),
        (&disk, "cache.l2.redis"),
        (&none, "cache.l2"),
    ] {
        let answer = gateway.admin(Method::GET, "/v1/l2/keys", "").await;
        assert_eq!(answer.status, 404);
        assert!(answer.text.contains(hint), "{}", answer.text);
    }
    let ran = run(&["l2", "keys", "--admin", &plain.admin.to_string()]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("index.enabled"), "{}", ran.stderr);
    ask(&plain, "/").await;
    written(&plain, 1.0).await;
    assert_eq!(redis.cli(&["KEYS", "lamina:index*"]).await, "");
}

#[tokio::test]
async fn a_listing_is_private_and_its_query_is_checked() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let l2 = indexed_at(&redis.url(), 1);
    let gateway = Setup::new(&origin)
        .file("token", "open sesame\n")
        .top("admin", "{address: \"127.0.0.1:0\", token_file: token}")
        .top("cache", &format!("{{l2: {l2}}}"))
        .policy(LASTING)
        .start()
        .await;
    let status = |method, path: &'static str| {
        let gateway = &gateway;
        async move { gateway.admin(method, path, "").await.status }
    };
    assert_eq!(status(Method::GET, "/v1/l2/keys").await, 401);
    assert_eq!(status(Method::POST, "/v1/l2/keys").await, 405);
    let gateway = gateway.with_token("open sesame");
    reads_below(&gateway).await;
    let answer = gateway.admin(Method::GET, "/v1/l2/keys?limit=no", "").await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("limit"), "{}", answer.text);
    assert!(urls(&gateway, "").await.is_empty());
}

/// Only those that match are freed, and stale copies are none of them.
#[tokio::test]
async fn a_purge_by_pattern_prefix_or_all_frees_what_it_hides() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let gateway = over(&origin, &indexed_at(&redis.url(), 4), LASTING).await;
    for n in 0..20 {
        for folder in ["old", "older", "soft", "kept"] {
            ask(&gateway, &format!("/{folder}/{n}")).await;
        }
    }
    noted(&gateway, 80.0).await;
    gateway
        .purge(json!({"pattern": "/soft/*", "soft": true}))
        .await;
    gateway
        .purge(json!({"pattern": "site.example/old/*"}))
        .await;
    gateway.purge(json!({"prefix": "/older/"})).await;
    cleared(&gateway, 40.0).await;
    for (kind, left) in [('r', 40), ('b', 40), ('t', 0)] {
        assert_eq!(count(&redis, kind).await, left, "{kind}");
    }
    let (soft, kept) = ("pattern=/soft/*", "pattern=/kept/*");
    assert_eq!(urls(&gateway, soft).await.len(), 20);
    assert_eq!(urls(&gateway, kept).await.len(), 20);
    gateway.purge(json!({"all": true})).await;
    cleared(&gateway, 80.0).await;
    assert_eq!(count(&redis, 'r').await, 0);
    assert!(urls(&gateway, "").await.is_empty());
    assert_eq!(
        redis.cli(&["KEYS", "lamina:index*"]).await,
        "",
        "what is cleared is forgotten"
    );
}

/// The index is away while the purge is made, and old when it is back: it names a record
/// that was stored again since.
#[tokio::test]
async fn what_was_stored_after_a_purge_stays_whatever_the_index_says() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let gateway = over(&origin, &indexed_at(&redis.url(), 1), LASTING).await;
    for path in ["/old/1", "/old/2", "/kept"] {
        ask(&gateway, path).await;
    }
    noted(&gateway, 3.0).await;
    redis.cli(&["RENAME", TEXTS, "lamina:aside"]).await;
    redis.cli(&["SET", TEXTS, "foreign"]).await;
    gateway.purge(json!({"pattern": "/old/*"})).await;
    let foreign = [("operation", "list"), ("outcome", "foreign")];
    gateway
        .metric_until("lamina_l2_calls_total", &foreign, |count| count > 0.0)
        .await;
    assert_eq!(ask(&gateway, "/old/1").await.text(), "v4");
    written(&gateway, 4.0).await;
    let failed = [("outcome", "failed")];
    gateway
        .metric_until("lamina_l2_index_total", &failed, |count| count == 1.0)
        .await;
    redis.cli(&["DEL", TEXTS]).await;
    redis.cli(&["RENAME", "lamina:aside", TEXTS]).await;
    cleared(&gateway, 1.0).await;
    let left = ["site.example/kept", "site.example/old/1"];
    assert_eq!(urls(&gateway, "").await, left, "and it is still listed");
    let other = over(&origin, &redis_at(&redis.url()), LASTING).await;
    let stored = ask(&other, "/old/1").await;
    assert_eq!((stored.text(), stored.is_hit()), ("v4", true));
    assert_eq!(gateway.metric("lamina_l2_cleared_total", &[]).await, 1.0);
}

#[tokio::test]
async fn an_index_that_fails_fails_no_write_and_no_request() {
    let redis = Redis::start().await;
    let origin = versions().await;
    for name in ["lamina:index:{0}", TEXTS] {
        redis.cli(&["SET", name, "foreign"]).await;
    }
    let l2 = indexed_at(&redis.url(), 1);
    let gateway = over(&origin, &l2, LASTING).await;
    for n in 0..10 {
        ask(&gateway, &format!("/{n}")).await;
    }
    written(&gateway, 10.0).await;
    let failed = [("outcome", "failed")];
    gateway
        .metric_until("lamina_l2_index_total", &failed, |count| count == 10.0)
        .await;
    let open = gateway.metric("lamina_l2_breaker_open", &[]).await;
    assert_eq!(open, 0.0, "the store is alive");
    let answer = gateway.admin(Method::GET, "/v1/l2/keys", "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text.contains("WRONGTYPE"), "{}", answer.text);
    let other = over(&origin, &l2, LASTING).await;
    for n in 0..10 {
        assert!(ask(&other, &format!("/{n}")).await.is_hit());
    }
    gateway.purge(json!({"pattern": "/1"})).await;
    assert_ne!(ask(&gateway, "/1").await.text(), "v2", "it is hidden");
}

#[tokio::test]
async fn only_the_node_that_carried_a_purge_frees_what_it_hides() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let l2 = indexed_at(&redis.url(), 4);
    let one = over(&origin, &l2, LASTING).await;
    let other = over(&origin, &l2, LASTING).await;
    for n in 0..10 {
        ask(&one, &format!("/{n}")).await;
    }
    noted(&one, 10.0).await;
    let reads = calls(&other, "list").await;
    let receipt = one.purge(json!({"pattern": "/*"})).await;
    cleared(&one, 10.0).await;
    let number = receipt["l2"]["number"].as_f64().unwrap();
    other
        .metric_until("lamina_l2_purge_log_number", &[], |at| at >= number)
        .await;
    assert_eq!(ask(&other, "/1").await.text(), "v11");
    // It has heard of the purge and has stored since.
    noted(&other, 1.0).await;
    assert_eq!(calls(&other, "clear").await, 0.0);
    assert_eq!(calls(&other, "list").await, reads);
}

#[tokio::test]
async fn a_drain_notes_what_was_written() {
    let redis = Redis::start().await;
    let origin = versions().await;
    let l2 = indexed_at(&redis.url(), 4);
    let mut gateway = over(&origin, &l2, LASTING).await;
    for n in 0..200 {
        ask(&gateway, &format!("/{n}")).await;
    }
    gateway.terminate();
    assert!(gateway.ended(SOON).await.success());
    let again = over(&origin, &l2, LASTING).await;
    let stored = count(&redis, 'r').await;
    assert_eq!(stored, 200);
    assert_eq!(urls(&again, "limit=1000").await.len(), stored);
}

#[tokio::test]
async fn on_a_cluster_keys_are_listed_and_freed() {
    let cluster = Cluster::start().await;
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = over(&origin, &indexed_at(&cluster.url(), 16), LASTING).await;
    for n in 0..60 {
        ask(&gateway, &format!("/{}/{n}", n % 2)).await;
    }
    noted(&gateway, 60.0).await;
    assert_eq!(urls(&gateway, "").await.len(), 60);
    gateway.purge(json!({"pattern": "/1/*"})).await;
    cleared(&gateway, 30.0).await;
    let left = urls(&gateway, "").await;
    assert_eq!(left.len(), 30);
    assert!(left.iter().all(|url| url.starts_with("site.example/0/")));
    gateway.purge(json!({"all": true})).await;
    wait_for("nothing is listed", SOON, || async {
        urls(&gateway, "").await.is_empty().then_some(())
    })
    .await;
}
