//! What another configuration does not forget (RL5): tags of what is stored, leases of loads under
//! way, pauses after failures, an open breaker, and what is known of certificates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::fleet::Pages;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pebble::{Pebble, PebbleOptions};
use e2e::places::PLACES;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, wait_until, within};
use serde_json::json;

use crate::acme::{SHOP, Wanted, obtained, page};
use crate::acme_failures::slow_validation;

/// Reloads of a test, each with another route.
const RELOADS: usize = 3;

/// What is read for each call of the second tier is that of the new configuration: a Redis that stands
/// still is waited for no longer than that says.
#[tokio::test]
async fn deadlines_of_the_second_tier_change_with_the_next_call() {
    let redis = Redis::start().await;
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let with = |deadlines: &str| {
        let url = redis.url();
        let cache = format!("{{l2: {{redis: {{url: \"{url}\"}}, {deadlines}}}}}");
        Setup::new(&origin).top("cache", &cache)
    };
    let gateway = with("read_timeout: 10m, write_timeout: 10m").start().await;
    crate::l2::reads_below(&gateway).await;
    gateway
        .take_up(&with(
            "read_timeout: 20ms, write_timeout: 50ms, lease: {wait_timeout: 1s}, \
             compress: {codec: zstd}",
        ))
        .await;
    redis.freeze();
    let answer = within("a miss", SOON, gateway.client().get("/page")).await;
    assert_eq!(answer.status, 200);
    redis.thaw();
}

async fn reload(gateway: &Gateway, setup: &Setup) {
    reload_with_requests_under_way(gateway, setup).await;
    gateway.only_one_engine().await;
}

async fn reload_with_requests_under_way(gateway: &Gateway, setup: &Setup) {
    for n in 0..RELOADS {
        let other = format!(
            "{{name: other{n}, match: {{path: /other{n}/*}}, upstream: origin, cache: off}}"
        );
        let other = setup.clone().route(&other);
        gateway
            .take_up(&other.route("{name: site, upstream: origin}"))
            .await;
    }
}

#[tokio::test]
async fn a_purge_by_tag_reaches_what_was_stored_before() {
    let origin = Pages::default().origin().await;
    let setup = Setup::new(&origin);
    let gateway = setup.start().await;
    for path in ["/a", "/b"] {
        gateway.client().get(path).await;
    }
    reload(&gateway, &setup).await;
    gateway.purge(json!({"tag": "/a"})).await;
    assert!(!gateway.client().get("/a").await.is_hit());
    assert!(gateway.client().get("/b").await.is_hit());
    gateway.purge(json!({"tag": "page"})).await;
    assert!(!gateway.client().get("/b").await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_keeps_its_lease() {
    let (gate, redis) = (Gate::new(), Redis::start().await);
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::fresh(asked.seen.path)
        }
    })
    .await;
    let _places = PLACES.reserve(2).await;
    let cache = format!("{{l2: {{redis: {{url: \"{}\"}}}}}}", redis.url());
    let setup = Setup::new(&origin).top("cache", &cache);
    let (loads, waits) = (setup.start().await, setup.start().await);
    let ask = |gateway: &Gateway| {
        let client = gateway.client();
        // One URL on both nodes.
        tokio::spawn(async move { client.request("/held").host("site.example").send().await })
    };
    let loading = ask(&loads);
    gate.reached_by(1).await;
    reload_with_requests_under_way(&loads, &setup).await;
    let waiting = ask(&waits);
    let leases = async |outcome: &str| {
        let labels = [("outcome", outcome)];
        waits.metric("lamina_l2_leases_total", &labels).await
    };
    wait_for("the other node waits for the lease", SOON, || async {
        (leases("busy").await >= 1.0).then_some(())
    })
    .await;
    reload_with_requests_under_way(&waits, &setup).await;
    gate.open();
    for answer in [loading, waiting] {
        assert_eq!(answer.await.unwrap().text(), "/held");
    }
    assert_eq!(origin.count(), 1, "one load for both nodes");
    assert_eq!(leases("owned").await, 0.0);
}

#[tokio::test]
async fn a_failing_origin_is_spared() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let origin = Origin::pages(move |_| match failing.load(Ordering::SeqCst) {
        true => Reply::status_only(503),
        false => Reply::ok("good").header("cache-control", "max-age=0, stale-if-error=600"),
    })
    .await;
    let setup = Setup::new(&origin).top("cache", "{backoff: {base: 1h, max: 1h}}");
    let gateway = setup.start().await;
    let shown = async || gateway.client().get("/").await.text().to_owned();
    assert_eq!(shown().await, "good");
    fails.store(true, Ordering::SeqCst);
    assert_eq!(shown().await, "good");
    let asked = origin.count();
    for _ in 0..RELOADS {
        reload(&gateway, &setup).await;
        assert_eq!(shown().await, "good");
    }
    assert_eq!(origin.count(), asked, "nobody asks it within the pause");
}

#[tokio::test]
async fn an_open_breaker_stays_open() {
    let (origin, redis) = (Pages::default().origin().await, Redis::start().await);
    let l2 = format!(
        "{{l2: {{redis: {{url: \"{}\"}}, breaker: {{cooldown: 10m}}}}}}",
        redis.url()
    );
    let setup = Setup::new(&origin).top("cache", &l2);
    let gateway = setup.start().await;
    gateway.client().get("/stored").await;
    redis.freeze();
    let open = async || gateway.metric("lamina_l2_breaker_open", &[]).await == 1.0;
    let mut n = 0;
    wait_for("reads open the breaker", SOON, || {
        n += 1;
        let (gateway, open) = (&gateway, &open);
        async move {
            gateway.client().get(&format!("/{n}")).await;
            open().await.then_some(())
        }
    })
    .await;
    reload(&gateway, &setup).await;
    assert!(open().await);
    let calls = async |outcome: &str| {
        let labels = [("operation", "get"), ("outcome", outcome)];
        gateway.metric("lamina_l2_calls_total", &labels).await
    };
    let (timeouts, skipped) = (calls("timeout").await, calls("skipped").await);
    assert_eq!(gateway.client().get("/after").await.status, 200);
    assert_eq!(calls("timeout").await, timeouts, "the store is left alone");
    assert!(calls("skipped").await > skipped);
    redis.thaw();
}

#[tokio::test]
async fn an_order_of_a_certificate_goes_on() {
    let origin = page().await;
    let pebble = Pebble::start_with(PebbleOptions {
        environment: slow_validation(),
        ..PebbleOptions::default()
    })
    .await;
    let site = Wanted::default().from(&pebble, &origin);
    let gateway = site.setup.start().await;
    wait_until("the issuer has the order", SOON, || pebble.orders() == 1).await;
    reload(&gateway, &site.setup).await;
    let shown = obtained(&pebble, site.secured, SHOP).await;
    reload(&gateway, &site.setup).await;
    assert_eq!(pebble.shown_by(site.secured, SHOP).await, Ok(shown));
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1));
}

#[tokio::test]
async fn the_pause_after_a_failed_order_goes_on() {
    let (origin, mut pebble) = (page().await, Pebble::start().await);
    let wanted = Wanted {
        acme: ", retry: {min: 1h, max: 2h}",
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    pebble.kill();
    let gateway = site.setup.start().await;
    let failures = async || gateway.metric("lamina_acme_failures", &[]).await;
    wait_for("the order fails", SOON, || async {
        (failures().await == 1.0).then_some(())
    })
    .await;
    let next = async || {
        let next = "lamina_acme_next_renewal_seconds";
        gateway.metric(next, &[]).await
    };
    let due = next().await;
    pebble.restart().await;
    reload(&gateway, &site.setup).await;
    assert_eq!((failures().await, next().await), (1.0, due));
    assert_eq!(pebble.orders(), 0);
}
