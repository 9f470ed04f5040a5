//! A purge while a gateway is away is never undone by what it begins with (WR2): neither by a
//! snapshot nor from the second tier, whichever way it was purged, and also when the purge log was
//! lost meanwhile.

use e2e::fleet::{Fleet, Pages, purge_everywhere, state};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};

use crate::l2::{PATIENCE, reads_below, redis_at, written};
use crate::warm_restart::{Kept, SNAPSHOT, ask, counted, stop};

const PAGE: &str = "/p/1";
const URL: &str = "http://site.example/p/1";

/// Two nodes on one bus; the first one is the one that is restarted.
struct NodePair {
    kept: Kept,
    pages: Pages,
    origin: Origin,
    redis: Redis,
    l2: Option<String>,
    warm: &'static str,
}

impl NodePair {
    async fn new(warm: &'static str, shared: bool) -> Self {
        let pages = Pages::default();
        let redis = Redis::start().await;
        Self {
            kept: Kept::new(),
            origin: pages.origin().await,
            l2: shared.then(|| format!(", l2: {}", redis_at(&redis.url()))),
            redis,
            pages,
            warm,
        }
    }

    fn node(&self, name: &str) -> Setup {
        let more = self.l2.clone().unwrap_or_default();
        let cache = match name {
            "a" => self.kept.cache(self.warm, &more),
            _ => Kept::new().cache("", &more),
        };
        let bus = format!("redis: {{url: \"{}\"}}", self.redis.url());
        e2e::fleet::node(&self.origin, name, &bus).top("cache", &cache)
    }

    async fn start(&self, name: &str) -> Gateway {
        let node = self.node(name).start().await;
        if self.l2.is_some() {
            reads_below(&node).await;
        }
        wait_for("it hears the bus", SOON * 2, || async {
            (state(&node).await == "serving").then_some(())
        })
        .await;
        node
    }
}

async fn key_of(node: &Gateway) -> String {
    let asked = json!({ "url": URL }).to_string();
    let told = node.admin(Method::POST, "/v1/explain", &asked).await;
    let told: Value = serde_json::from_str(&told.text).unwrap();
    told["key"]["id"].as_str().unwrap().to_owned()
}

async fn all_purges_hold(warm: &'static str, shared: bool) {
    let pair = NodePair::new(warm, shared).await;
    let other = pair.start("b").await;
    let key = key_of(&other).await;
    for selector in [
        json!({ "key": key }),
        json!({"tag": "page"}),
        json!({ "url": URL }),
        json!({"prefix": "/p/"}),
        json!({"all": true}),
    ] {
        let first = pair.start("a").await;
        let before = ask(&first, PAGE).await.text().to_owned();
        ask(&first, "/p/2").await;
        if shared {
            wait_for("it is stored below", SOON, || async {
                let path = json!({ "url": URL }).to_string();
                let told = first.admin(Method::POST, "/v1/explain", &path).await;
                let told: Value = serde_json::from_str(&told.text).unwrap();
                let tiers = told["tiers"].to_string();
                (!tiers.contains("redis: nothing") && tiers.contains("redis")).then_some(())
            })
            .await;
        }
        stop(first).await;
        let version = pair.pages.change(PAGE).to_string();
        assert_ne!(before, version);
        other.purge(selector.clone()).await;
        // At once, before any heartbeat of the other node.
        let again = pair.node("a").start().await;
        let shown = ask(&again, PAGE).await.text().to_owned();
        assert_eq!(shown, version, "{selector}, {warm:?}, shared: {shared}");
        // What nobody purged is there, or was confirmed by its origin.
        assert_eq!(ask(&again, "/p/2").await.text(), "1");
        stop(again).await;
    }
}

#[tokio::test]
async fn no_purge_is_undone_by_a_snapshot() {
    all_purges_hold(SNAPSHOT, false).await;
}

#[tokio::test]
async fn no_purge_is_undone_from_the_second_tier() {
    all_purges_hold("", true).await;
}

#[tokio::test]
async fn no_purge_is_undone_by_a_snapshot_beside_a_second_tier() {
    all_purges_hold(SNAPSHOT, true).await;
}

/// Where other nodes are, each page of a snapshot is validated once, and then certain.
#[tokio::test]
async fn a_snapshot_is_in_doubt_where_others_may_have_purged() {
    let pair = NodePair::new(SNAPSHOT, false).await;
    let first = pair.start("a").await;
    ask(&first, PAGE).await;
    stop(first).await;
    pair.origin.forget();
    let again = pair.start("a").await;
    assert_eq!(counted(&again, "snapshot", "in-doubt").await, 1.0);
    assert_eq!(counted(&again, "snapshot", "restored").await, 0.0);
    let answer = ask(&again, PAGE).await;
    assert!(!answer.is_hit(), "{:?}", answer.headers);
    assert_eq!(pair.origin.last().header("if-none-match"), "\"/p/1-1\"");
    assert!(ask(&again, PAGE).await.is_hit());
    assert_eq!(pair.origin.count(), 1);
    stop(again).await;
}

/// A request to another node made it invalid: that is no purge, and stands in no log.
#[tokio::test]
async fn what_a_request_to_another_node_made_invalid_does_not_come_back() {
    for (warm, shared) in [(SNAPSHOT, false), ("", true), (SNAPSHOT, true)] {
        let pair = NodePair::new(warm, shared).await;
        let other = pair.start("b").await;
        let first = pair.start("a").await;
        ask(&first, PAGE).await;
        if shared {
            written(&first, 1.0).await;
        }
        stop(first).await;
        let version = pair.pages.change(PAGE).to_string();
        let request = other.client().ask(Method::POST, PAGE).host("site.example");
        assert_eq!(request.send().await.status, 200);
        let again = pair.start("a").await;
        let shown = ask(&again, PAGE).await.text().to_owned();
        assert_eq!(shown, version, "{warm:?}, shared: {shared}");
        stop(again).await;
    }
}

/// The log is gone with all that Redis had: what the snapshot has can't be compared with anything.
#[tokio::test]
async fn without_its_purge_log_a_snapshot_is_not_believed() {
    let pair = NodePair::new(SNAPSHOT, true).await;
    let other = pair.start("b").await;
    let first = pair.start("a").await;
    ask(&first, PAGE).await;
    written(&first, 1.0).await;
    stop(first).await;
    let version = pair.pages.change(PAGE).to_string();
    other.purge(json!({ "url": URL })).await;
    pair.redis.cli(&["FLUSHALL"]).await;
    let again = pair.start("a").await;
    assert_eq!(counted(&again, "snapshot", "restored").await, 0.0);
    assert_eq!(ask(&again, PAGE).await.text(), version);
    stop(again).await;
}

/// Redis does not answer at the start: what the snapshot has is validated, also when it answers
/// again.
#[tokio::test]
async fn while_its_purge_log_is_away_a_snapshot_is_in_doubt() {
    let pages = Pages::default();
    let (kept, origin, redis) = (Kept::new(), pages.origin().await, Redis::start().await);
    let l2 = format!(", l2: {{redis: {{url: \"{}\"}}}}", redis.url());
    let cache = kept.cache(SNAPSHOT, &l2);
    let setup = |cache: &str| Setup::new(&origin).top("cache", cache);
    let first = setup(&cache).start().await;
    reads_below(&first).await;
    for page in ["/p/1", "/p/2", "/p/3"] {
        ask(&first, page).await;
    }
    let other = setup(&format!("{{{}}}", &l2[2..])).start().await;
    reads_below(&other).await;
    stop(first).await;
    let version = pages.change(PAGE).to_string();
    other.purge(json!({ "url": URL })).await;
    wait_for("the purge is in the log", SOON, || async {
        (other.metric("lamina_l2_purges_waiting", &[]).await == 0.0).then_some(())
    })
    .await;
    redis.freeze();
    let again = setup(&cache.replace("for: 1m", "for: 1s")).start().await;
    assert_eq!(counted(&again, "snapshot", "in-doubt").await, 3.0);
    origin.forget();
    let unchanged = ask(&again, "/p/2").await;
    assert!(!unchanged.is_hit() && unchanged.text() == "1");
    assert_eq!(origin.count(), 1, "it was validated");
    redis.thaw();
    reads_below(&again).await;
    assert_eq!(ask(&again, PAGE).await.text(), version);
    let unchanged = ask(&again, "/p/3").await;
    assert!(!unchanged.is_hit() && unchanged.text() == "1");
    redis.thaw();
    stop(again).await;
}

/// The disk tier's file is gone, and its log with it.
#[tokio::test]
async fn without_the_disk_tiers_file_a_snapshot_is_in_doubt() {
    let pages = Pages::default();
    let (kept, origin) = (Kept::new(), pages.origin().await);
    let disk = kept.file().with_file_name("l2");
    let l2 = format!(
        ", l2: {{disk: {{path: \"{}\"}}, {PATIENCE}}}",
        disk.display()
    );
    let setup = Setup::new(&origin).top("cache", &kept.cache(SNAPSHOT, &l2));
    let first = setup.start().await;
    reads_below(&first).await;
    ask(&first, PAGE).await;
    ask(&first, "/p/2").await;
    first.purge(json!({"url": "http://site.example/p/2"})).await;
    stop(first).await;
    let again = setup.start().await;
    assert_eq!(counted(&again, "snapshot", "restored").await, 1.0);
    assert!(ask(&again, PAGE).await.is_hit());
    stop(again).await;
    std::fs::remove_file(&disk).unwrap();
    let third = setup.start().await;
    assert_eq!(counted(&third, "snapshot", "in-doubt").await, 1.0);
    assert!(!ask(&third, PAGE).await.is_hit());
    stop(third).await;
}

/// A crash after a purge: the snapshot of the life before was used up.
#[tokio::test]
async fn a_snapshot_is_used_once() {
    let pages = Pages::default();
    let (kept, origin) = (Kept::new(), pages.origin().await);
    let setup = Setup::new(&origin).top("cache", &kept.cache(SNAPSHOT, ""));
    let first = setup.start().await;
    ask(&first, PAGE).await;
    stop(first).await;
    let mut second = setup.start().await;
    assert!(ask(&second, PAGE).await.is_hit());
    let version = pages.change(PAGE).to_string();
    second.purge(json!({ "url": URL })).await;
    second.kill();
    second.ended(SOON).await;
    let third = setup.start().await;
    assert_eq!(ask(&third, PAGE).await.text(), version);
    stop(third).await;
}

/// A purge that is answered while the gateway drains.
#[tokio::test]
async fn a_purge_during_the_drain_holds() {
    let pages = Pages::default();
    let (kept, origin) = (Kept::new(), pages.origin().await);
    let setup = Setup::new(&origin).top("cache", &kept.cache(SNAPSHOT, ""));
    let first = setup.start().await;
    ask(&first, PAGE).await;
    ask(&first, "/p/2").await;
    // A request that is under way keeps the drain open.
    let mut slow = first.raw().await;
    slow.write("POST /upload HTTP/1.1\r\nHost: site.example\r\nContent-Length: 5\r\n\r\nabc")
        .await;
    wait_for("the upload has begun", SOON, || async {
        (origin.count() == 3).then_some(())
    })
    .await;
    first.terminate();
    wait_for("it drains", SOON, || async {
        (state(&first).await == "draining").then_some(())
    })
    .await;
    let version = pages.change(PAGE).to_string();
    first.purge(json!({ "url": URL })).await;
    slow.write("de").await;
    let mut first = first;
    assert!(first.ended(SOON * 2).await.success());
    let again = setup.start().await;
    assert_eq!(ask(&again, PAGE).await.text(), version);
    assert!(ask(&again, "/p/2").await.is_hit());
    stop(again).await;
}

/// The nodes of a fleet that follow one log begin warm and certain.
#[tokio::test]
async fn a_node_of_many_begins_with_what_its_second_tier_has() {
    let redis = Redis::start().await;
    let kept = Kept::new();
    let l2 = format!(", l2: {}", redis_at(&redis.url()));
    let cache = kept.cache("", &l2);
    let bus = format!("redis: {{url: \"{}\"}}", redis.url());
    let fleet = Fleet::start(1, |_| bus.clone()).await;
    let setup = e2e::fleet::node(&fleet.origin, "w", &bus).top("cache", &cache);
    let first = setup.start().await;
    reads_below(&first).await;
    ask(&first, PAGE).await;
    written(&first, 1.0).await;
    stop(first).await;
    fleet.origin.forget();
    let again = setup.start().await;
    wait_for("no doubt is open", SOON, || async {
        (again.metric("lamina_cluster_gap_open", &[]).await == 0.0).then_some(())
    })
    .await;
    // The doubt of joining the others may have been open when it was taken.
    let restored = counted(&again, "l2", "restored").await;
    let in_doubt = counted(&again, "l2", "in-doubt").await;
    assert_eq!((restored + in_doubt, fleet.origin.count()), (1.0, 0));
    assert!(ask(&again, PAGE).await.is_hit(), "{restored}, {in_doubt}");
    assert_eq!(fleet.origin.count(), 0);
    let version = fleet.pages.change(PAGE);
    purge_everywhere(&fleet.nodes[0], json!({"tag": "page"})).await;
    // The other node may not know this one yet, and then it does not wait for it.
    wait_for("the purge arrives", SOON, || async {
        (ask(&again, PAGE).await.text() == version.to_string()).then_some(())
    })
    .await;
    stop(again).await;
}
