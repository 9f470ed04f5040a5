//! What unsafe requests make invalid by themselves (RFC 9111 §4.4, RFC 9875), on all tiers and
//! nodes: what is named goes, and no number of such requests costs anybody else a page.

use e2e::fleet::Fleet;
use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use futures_util::stream::{self, StreamExt};
use http::Method;

use crate::l2::{LASTING, PATIENCE, reads_below, redis_at};

/// Smaller than the floods below, every one of them.
const SMALL: &str = "purge_log: {max_records: 50, max_request_records: 50, max_patterns: 4, invalidation_buckets: 64}";
const FLOOD: usize = 3_000;
const HOST: &str = "site.example";

/// Pages that last, and answers to all that changes something.
fn shop(seen: &Seen) -> Reply {
    match seen.method.as_str() {
        "GET" | "HEAD" => Reply::fresh(seen.path.clone())
            .header("cache-groups", &format!("\"{}\"", seen.path_only())),
        _ => match seen.header("x-answer") {
            "" => Reply::ok("done"),
            status => Reply::status_only(status.parse().unwrap()),
        },
    }
}

fn pages() -> Vec<String> {
    (0..40).map(|n| format!("/kept/{n}")).collect()
}

async fn get(node: &Gateway, path: &str) -> bool {
    node.client().request(path).host(HOST).send().await.is_hit()
}

async fn send(node: &Gateway, method: &str, path: &str, answer: &str) {
    let ask = node.client().ask(method.parse().unwrap(), path).host(HOST);
    let ask = match answer {
        "" => ask,
        status => ask.header("x-answer", status),
    };
    ask.send().await;
}

async fn warm(node: &Gateway) {
    for path in pages() {
        get(node, &path).await;
        assert!(get(node, &path).await, "{path}");
    }
}

async fn all_kept(node: &Gateway, when: &str) {
    for path in pages() {
        assert!(get(node, &path).await, "{when}: {path}");
    }
}

/// A node of its own with small bounds.
async fn alone(origin: &Origin, cache: &str, route: &str) -> Gateway {
    Setup::new(origin)
        .top("cache", &format!("{{{SMALL}{cache}}}"))
        .route(&format!(
            "{{name: site, upstream: origin, policy: {LASTING}{route}}}"
        ))
        .start()
        .await
}

/// Sends `POST` to so many URLs, to each after a `GET` if `gets` says so.
async fn flood(node: &Gateway, gets: GetsMeanwhile) {
    let sent = stream::iter(0..FLOOD).for_each_concurrent(16, async |n| {
        let path = format!("/flood/{n}");
        if gets == GetsMeanwhile::Before {
            get(node, &path).await;
        }
        send(node, "POST", &path, "").await;
    });
    sent.await;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GetsMeanwhile {
    None,
    Before,
}

#[tokio::test]
async fn no_number_of_unsafe_requests_costs_a_page_or_a_record() {
    let origin = Origin::pages(shop).await;
    let node = alone(&origin, "", "").await;
    warm(&node).await;
    for gets in [GetsMeanwhile::None, GetsMeanwhile::Before] {
        flood(&node, gets).await;
        all_kept(&node, &format!("{gets:?}")).await;
        assert_eq!(node.metric("lamina_cache_purge_records", &[]).await, 0.0);
    }
    send(&node, "POST", "/kept/1", "").await;
    assert!(!get(&node, "/kept/1").await);
}

#[tokio::test]
async fn only_answers_without_an_error_to_methods_that_change_something_count() {
    let origin = Origin::pages(shop).await;
    let node = alone(&origin, "", "").await;
    for (method, answer, goes) in [
        ("POST", "", true),
        ("PUT", "204", true),
        ("DELETE", "303", true),
        ("M-SEARCH", "", true),
        ("MKCOL", "201", true),
        ("UNLOCK", "204", true),
        ("POST", "400", false),
        ("PUT", "412", false),
        ("DELETE", "503", false),
        ("OPTIONS", "", false),
        ("PROPFIND", "207", false),
        ("SPARKLE", "", false),
        ("BREW", "204", false),
        ("POSTS", "", false),
    ] {
        get(&node, "/p").await;
        assert!(get(&node, "/p").await);
        send(&node, method, "/p", answer).await;
        assert_eq!(!get(&node, "/p").await, goes, "{method} {answer}");
    }
}

/// Every combination and variant of a URL, wherever it lies.
#[tokio::test]
async fn an_invalidation_takes_every_combination_of_a_url_from_every_tier() {
    let redis = Redis::start().await;
    let folder = tempfile::tempdir().unwrap();
    let disk = format!(
        "{{disk: {{path: \"{}\"}}, {PATIENCE}}}",
        folder.path().join("l2").display()
    );
    for l2 in [redis_at(&redis.url()), disk] {
        let origin = Origin::pages(|seen| shop(seen).header("vary", "accept-language")).await;
        let route = ", key: {headers: [x-plan], cookies: [ab]}";
        let node = alone(&origin, &format!(", l2: {l2}"), route).await;
        reads_below(&node).await;
        let combinations = [("", "", "en"), ("gold", "", "en"), ("gold", "ab=1", "de")];
        let ask = async |(plan, cookie, language): (&str, &str, &str), path: &str| {
            let ask = node.client().request(path).host(HOST);
            let ask = ask.header("x-plan", plan).header("cookie", cookie);
            ask.header("accept-language", language)
                .send()
                .await
                .is_hit()
        };
        for path in ["/p", "/other"] {
            for combination in combinations {
                ask(combination, path).await;
                assert!(ask(combination, path).await, "{path} {combination:?}");
            }
        }
        let stored = [("outcome", "stored")];
        node.metric_until("lamina_l2_writes_total", &stored, |writes| writes >= 6.0)
            .await;
        send(&node, "POST", "/p", "").await;
        for combination in combinations {
            assert!(!ask(combination, "/p").await, "{combination:?}");
            assert!(ask(combination, "/other").await, "{combination:?}");
        }
    }
}

/// Waits until nothing is on its way to the store.
async fn settled(node: &Gateway) {
    node.metric_until("lamina_l2_invalidations_waiting", &[], |waiting| {
        waiting == 0.0
    })
    .await;
}

#[tokio::test]
async fn what_was_invalidated_does_not_come_back_from_below() {
    let redis = Redis::start().await;
    let origin = Origin::pages(shop).await;
    let cache = format!(", l2: {}", redis_at(&redis.url()));
    let one = alone(&origin, &cache, "").await;
    reads_below(&one).await;
    warm(&one).await;
    let stored = [("outcome", "stored")];
    one.metric_until("lamina_l2_writes_total", &stored, |writes| writes >= 40.0)
        .await;
    send(&one, "POST", "/kept/1", "").await;
    flood(&one, GetsMeanwhile::None).await;
    settled(&one).await;
    let cold = alone(&origin, &cache, "").await;
    reads_below(&cold).await;
    let before = origin.count();
    assert!(!get(&cold, "/kept/1").await, "it was invalidated");
    for path in pages() {
        get(&cold, &path).await;
    }
    assert_eq!(origin.count() - before, 1, "all others come from below");
    assert_eq!(redis.cli(&["XLEN", "lamina:{log}"]).await.trim(), "1");
    assert_eq!(cold.metric("lamina_cache_purge_records", &[]).await, 0.0);
    let names = redis.cli(&["--scan", "--pattern", "lamina:*i"]).await;
    assert!(names.lines().count() < 200, "{}", names.lines().count());
}

/// Restarted, the node must not show what its disk had before an invalidation.
#[tokio::test]
async fn what_was_invalidated_does_not_come_back_from_the_disk_of_an_earlier_life() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("l2");
    let cache = format!(
        ", l2: {{disk: {{path: \"{}\"}}, {PATIENCE}}}",
        path.display()
    );
    let origin = Origin::pages(shop).await;
    let mut node = alone(&origin, &cache, "").await;
    reads_below(&node).await;
    warm(&node).await;
    let stored = [("outcome", "stored")];
    node.metric_until("lamina_l2_writes_total", &stored, |writes| writes >= 40.0)
        .await;
    send(&node, "POST", "/kept/1", "").await;
    settled(&node).await;
    node.terminate();
    node.ended(SOON).await;
    let again = alone(&origin, &cache, "").await;
    reads_below(&again).await;
    assert!(!get(&again, "/kept/1").await);
    assert!(get(&again, "/kept/2").await);
}

async fn published(node: &Gateway) -> f64 {
    let purges = [("kind", "purge")];
    node.metric("lamina_bus_published_total", &purges).await
}

#[tokio::test]
async fn other_nodes_hear_of_invalidations_in_few_events_and_lose_nothing_else() {
    let redis = Redis::start().await;
    let fleet = Fleet::start(2, |_| format!("redis: {{url: \"{}\"}}", redis.url())).await;
    let [one, other] = &fleet.nodes[..] else {
        panic!("there are two");
    };
    fleet
        .origin
        .behave(|asked| async { shop(&asked.read().await) });
    for node in [one, other] {
        warm(node).await;
    }
    // It is held on the other node alone.
    get(other, "/there").await;
    assert!(get(other, "/there").await);
    let before = published(one).await;
    for gets in [GetsMeanwhile::None, GetsMeanwhile::Before] {
        flood(one, gets).await;
    }
    send(one, "POST", "/there", "").await;
    send(one, "POST", "/kept/7", "").await;
    for path in ["/there", "/kept/7"] {
        wait_for(path, SOON, || async {
            (!get(other, path).await).then_some(())
        })
        .await;
    }
    // Events keep their order, so that those of the flood have been published as well.
    let events = published(one).await - before;
    assert!(
        (1.0..FLOOD as f64 / 4.0).contains(&events),
        "{events} events"
    );
    for node in [one, other] {
        all_kept(node, "after the flood").await;
        assert_eq!(node.metric("lamina_cache_purge_records", &[]).await, 0.0);
    }
}

/// A rule that takes what a client sends must not push out what an operator has purged.
#[tokio::test]
async fn a_flood_of_rules_pushes_out_no_purge_of_an_operator() {
    let origin = Origin::pages(|seen| {
        let tag = format!("at{}", seen.path.replace('/', "-"));
        shop(seen).header("surrogate-key", &tag)
    })
    .await;
    let rules = ", invalidate: [{on: [POST], purge: [{tag: \"user-{header.x-n}\"}, {pattern: \"/user/{header.x-n}/*/x\"}]}]";
    let node = alone(&origin, "", rules).await;
    warm(&node).await;
    get(&node, "/purged").await;
    node.purge(serde_json::json!({"tag": "at-purged"})).await;
    let sent = stream::iter(0..FLOOD).for_each_concurrent(16, async |n| {
        let ask = node.client().ask(Method::POST, "/any").host(HOST);
        ask.header("x-n", &n.to_string()).send().await;
    });
    sent.await;
    all_kept(&node, "after the flood").await;
    assert!(!get(&node, "/purged").await);
    let records = node.metric("lamina_cache_purge_records", &[]).await;
    assert!((10.0..=1.0 + 50.0 + 4.0).contains(&records), "{records}");
}
