//! Two layers: a gateway, the edge, whose upstream is another gateway, the shield.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::client::{Answer, Client};
use e2e::fleet::{Pages, node, purge_everywhere};
use e2e::free_port::free_address;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::places::PLACES;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_for};
use http::Method;
use serde_json::{Value, json};

/// Both layers.
struct ShieldLayers {
    edge: Gateway,
    shield: Gateway,
}

impl ShieldLayers {
    /// Over no bus: each hears of a purge when the test tells it.
    async fn apart(origin: &Origin) -> Self {
        let _places = PLACES.reserve(2).await;
        let shield = Setup::new(origin).start().await;
        let edge = before(&shield, "").start().await;
        Self { edge, shield }
    }

    /// What a client of the edge gets.
    async fn at_edge(&self, path: &str) -> Answer {
        shown(&self.edge.client(), self.edge.address, path).await
    }

    /// What the shield has for the same client.
    async fn at_shield(&self, path: &str) -> Answer {
        shown(&self.shield.client(), self.edge.address, path).await
    }

    /// Both show this, and the edge also keeps it.
    async fn both_show(&self, path: &str, page: &str) {
        assert_eq!(self.at_shield(path).await.text(), page, "the shield");
        assert_eq!(self.at_edge(path).await.text(), page, "the edge");
        wait_for("the edge has it", SOON, || async {
            let answer = self.at_edge(path).await;
            assert_eq!(answer.text(), page);
            answer.is_hit().then_some(())
        })
        .await;
    }
}

/// The edge before a shield.
fn before(shield: &Gateway, more: &str) -> Setup {
    let upstream = format!("{{targets: [\"http://{}\"]{more}}}", shield.address);
    Setup::default().upstream("origin", &upstream)
}

async fn shown(client: &Client, host: SocketAddr, path: &str) -> Answer {
    let answer = client.request(path).host(&host.to_string()).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

/// Each way to name the page `/p/1`.
fn selectors(host: SocketAddr) -> Vec<Value> {
    let base = format!("http://{host}");
    vec![
        json!({"url": format!("{base}/p/1")}),
        json!({"prefix": format!("{base}/p")}),
        json!({"pattern": "/p/?"}),
        json!({"route": "site"}),
        json!({"all": true}),
    ]
}

/// A gateway at this address, whose upstream is at the other one.
fn ring(here: SocketAddr, there: SocketAddr, protocol: &str) -> Setup {
    let upstream = format!("{{targets: [\"http://{there}\"], protocol: {protocol}}}");
    Setup::default()
        .upstream("origin", &upstream)
        .top("listeners", &format!("[{{address: \"{here}\"}}]"))
        .route("{name: passed, match: {path: /passed/*}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}")
}

async fn ends_with_508(gateway: &Gateway) {
    for client in [gateway.client(), gateway.client_http2()] {
        let client = client.uncached();
        for path in ["/passed/x", "/x"] {
            assert_eq!(client.get(path).await.status, 508, "{path}");
            assert_eq!(client.post(path, "order").await.status, 508, "{path}");
        }
    }
}

#[tokio::test]
async fn a_gateway_before_itself_answers_508() {
    for protocol in ["http1", "http2"] {
        let address = free_address();
        let gateway = ring(address, address, protocol).start().await;
        ends_with_508(&gateway).await;
    }
}

#[tokio::test]
async fn two_gateways_before_each_other_answer_508() {
    for protocol in ["http1", "http2"] {
        let _places = PLACES.reserve(2).await;
        let (a, b) = (free_address(), free_address());
        let first = ring(a, b, protocol).start().await;
        let second = ring(b, a, protocol).start().await;
        ends_with_508(&first).await;
        ends_with_508(&second).await;
    }
}

/// Somebody on the way takes `CDN-Loop` away: ten hops in `Via` are a loop, too.
#[tokio::test]
async fn a_loop_in_which_cdn_loop_is_lost_ends_after_ten_hops() {
    let address = free_address();
    let hops = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hops);
    let relay = Origin::start(move |asked| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let via = asked.seen.headers.get_all("via").iter();
            let via: Vec<_> = via.map(|line| line.to_str().unwrap()).collect();
            let client = Client::http1(address).uncached();
            let again = client.request(&asked.seen.path);
            let answer = again.header("via", &via.join(", ")).send().await;
            Reply::ok(answer.body).status(answer.status.as_u16())
        }
    })
    .await;
    let _gateway = ring(address, relay.address(), "http1").start().await;
    let client = Client::http1(address).uncached();
    assert_eq!(client.get("/passed/x").await.status, 508);
    assert_eq!(hops.load(Ordering::SeqCst), 10);
}

/// The edge loads a page anew before the shield hears of the purge.
#[tokio::test]
async fn a_purge_that_reaches_the_edge_first_leaves_nothing_old() {
    let pages = Pages::default();
    let origin = pages.origin().await;
    let layers = ShieldLayers::apart(&origin).await;
    for soft in [false, true] {
        for mut selector in selectors(layers.edge.address) {
            selector["soft"] = json!(soft);
            layers
                .both_show("/p/1", &pages.version("/p/1").to_string())
                .await;
            let old = pages.version("/p/1").to_string();
            let new = pages.change("/p/1").to_string();
            layers.edge.purge(selector.clone()).await;
            for _ in 0..3 {
                assert_eq!(layers.at_edge("/p/1").await.text(), old, "the shield's");
            }
            layers.shield.purge(selector.clone()).await;
            wait_for("the shield has the new page", SOON, || async {
                (layers.at_shield("/p/1").await.text() == new).then_some(())
            })
            .await;
            wait_for("the edge has the new page", SOON, || async {
                (layers.at_edge("/p/1").await.text() == new).then_some(())
            })
            .await;
            layers.both_show("/p/1", &new).await;
        }
    }
}

#[tokio::test]
async fn a_purge_that_reaches_the_shield_first_leaves_nothing_old() {
    let pages = Pages::default();
    let origin = pages.origin().await;
    let layers = ShieldLayers::apart(&origin).await;
    for selector in selectors(layers.edge.address) {
        layers
            .both_show("/p/1", &pages.version("/p/1").to_string())
            .await;
        let new = pages.change("/p/1").to_string();
        layers.shield.purge(selector.clone()).await;
        layers.at_edge("/p/1").await;
        layers.edge.purge(selector).await;
        layers.both_show("/p/1", &new).await;
    }
}

/// A load runs from the edge to the origin while the purge comes, and another one follows it at the
/// shield after the edge has purged.
#[tokio::test]
async fn a_load_between_the_layers_brings_nothing_back() {
    for edge_first in [true, false] {
        let gate = Gate::new();
        let (held, number) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
        let origin = Origin::start(move |_| {
            let (held, nth) = (held.clone(), number.fetch_add(1, Ordering::SeqCst));
            async move {
                match nth {
                    0 => {
                        held.pass().await;
                        Reply::fresh("old")
                    }
                    _ => Reply::fresh("new"),
                }
            }
        })
        .await;
        let layers = ShieldLayers::apart(&origin).await;
        let address = layers.edge.address;
        let ask = || {
            let client = layers.edge.client();
            tokio::spawn(async move { shown(&client, address, "/p/1").await })
        };
        let first = ask();
        origin.saw(1).await;
        let page = json!({"url": format!("http://{address}/p/1")});
        let order = match edge_first {
            true => [&layers.edge, &layers.shield],
            false => [&layers.shield, &layers.edge],
        };
        order[0].purge(page.clone()).await;
        let second = ask();
        // It follows the old load at the shield, which has not heard, or else at the edge.
        let (under_way, followers) = if edge_first { (2.0, 0) } else { (1.0, 1) };
        let upstream = [("upstream", "origin")];
        layers
            .edge
            .metric_until("lamina_upstream_inflight", &upstream, |n| n == under_way)
            .await;
        layers
            .edge
            .metric_until("lamina_cache_coalesced_requests_total", &[], |n| {
                n >= f64::from(followers)
            })
            .await;
        gate.open();
        assert_eq!(first.await.unwrap().text(), "old");
        second.await.unwrap();
        order[1].purge(page).await;
        layers.both_show("/p/1", "new").await;
    }
}

/// Both hear of purges over one bus, wherever they were asked for.
#[tokio::test]
async fn a_purge_over_the_bus_reaches_both_layers() {
    let redis = Redis::start().await;
    let bus = format!("redis: {{url: \"redis://127.0.0.1:{}\"}}", redis.port);
    let pages = Pages::default();
    let origin = pages.origin().await;
    let _places = PLACES.reserve(2).await;
    let shield = node(&origin, "shield", &bus).start().await;
    let upstream = format!("{{targets: [\"http://{}\"]}}", shield.address);
    let edge = node(&origin, "edge", &bus);
    let edge = edge.upstream("origin", &upstream).start().await;
    let layers = ShieldLayers { edge, shield };
    for node in [&layers.edge, &layers.shield] {
        wait_for("the layers hear each other", SOON * 2, || async {
            (e2e::fleet::known(node).await == 1).then_some(())
        })
        .await;
    }
    for asked in [&layers.edge, &layers.shield] {
        for selector in selectors(layers.edge.address) {
            layers
                .both_show("/p/1", &pages.version("/p/1").to_string())
                .await;
            let new = pages.change("/p/1").to_string();
            purge_everywhere(asked, selector).await;
            layers.both_show("/p/1", &new).await;
        }
        // Nobody waits, and the edge is asked all the time.
        for _ in 0..10 {
            layers.at_edge("/p/1").await;
            let new = pages.change("/p/1").to_string();
            asked.purge(json!({"prefix": "/p"})).await;
            wait_for("the edge shows the new page", SOON, || async {
                (layers.at_edge("/p/1").await.text() == new).then_some(())
            })
            .await;
            for _ in 0..5 {
                assert_eq!(layers.at_edge("/p/1").await.text(), new);
            }
        }
    }
}

fn members(answer: &Answer) -> Vec<String> {
    let lines = answer.headers.get_all("cache-status").iter();
    let lines: Vec<_> = lines.map(|line| line.to_str().unwrap()).collect();
    let all = lines.join(", ");
    all.split(", ").map(str::to_owned).collect()
}

#[tokio::test]
async fn cache_status_tells_of_both_layers() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let layers = ShieldLayers::apart(&origin).await;
    let miss = members(&layers.at_edge("/a").await);
    assert_eq!(miss.len(), 2, "{miss:?}");
    for member in &miss {
        assert!(member.starts_with("lamina; fwd=uri-miss"), "{miss:?}");
    }
    layers.at_shield("/b").await;
    let half = members(&layers.at_edge("/b").await);
    assert!(half[0].starts_with("lamina; hit"), "the shield: {half:?}");
    assert!(
        half[1].starts_with("lamina; fwd=uri-miss"),
        "the edge: {half:?}"
    );
    let hit = members(&layers.at_edge("/b").await);
    assert!(hit.last().unwrap().starts_with("lamina; hit"), "{hit:?}");
}

/// What a page has spent at the shield, and before it, is gone from its time at the edge.
#[tokio::test]
async fn the_edge_counts_from_when_the_origin_made_the_page() {
    let pages = Pages::default();
    let versions = pages.clone();
    let origin = Origin::pages(move |seen| {
        let page = Reply::ok(versions.version(seen.path_only()).to_string());
        let page = page.header("age", "57");
        page.header(
            "cache-control",
            "max-age=60, stale-while-revalidate=3, stale-if-error=3",
        )
    })
    .await;
    let layers = ShieldLayers::apart(&origin).await;
    let loaded = Instant::now();
    layers.at_shield("/p/1").await;
    passed(loaded, Duration::from_millis(1_100)).await;
    let answer = layers.at_edge("/p/1").await;
    let age = answer.age().unwrap();
    assert!(age >= 58, "{age}");
    if let Some(ttl) = answer.cache().ttl {
        assert!(ttl <= 2, "{ttl} s left of an age of {age}");
    }
    // Fresh to 3 s, stale to 6 s, whoever has it.
    passed(loaded, Duration::from_millis(6_500)).await;
    let new = pages.change("/p/1").to_string();
    assert_eq!(layers.at_edge("/p/1").await.text(), new);
}

/// Each layer may show an old page while it asks, and both together for no longer than one.
#[tokio::test]
async fn a_failing_origin_is_covered_for_as_long_as_it_says_and_no_longer() {
    let well = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_well = Arc::clone(&well);
    let origin = Origin::pages(move |_| match is_well.load(Ordering::SeqCst) {
        true => Reply::ok("page").header("cache-control", "max-age=1, stale-if-error=4"),
        false => Reply::ok("sick").status(503),
    })
    .await;
    let layers = ShieldLayers::apart(&origin).await;
    let loaded = Instant::now();
    assert_eq!(layers.at_edge("/p/1").await.text(), "page");
    let latest = Instant::now();
    well.store(false, Ordering::SeqCst);
    passed(loaded, Duration::from_millis(2_000)).await;
    let client = layers.edge.client();
    let covered = client.ask(Method::GET, "/p/1").send().await;
    // A machine that is late may find it over.
    if loaded.elapsed() < Duration::from_millis(4_500) {
        assert_eq!(covered.text(), "page");
    }
    passed(latest, Duration::from_millis(6_200)).await;
    assert_eq!(client.get("/p/1").await.status, 503);
}
