//! Stale copies: served while they are refreshed or while the origin fails, and no longer (RFC 5861).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use e2e::client::{Answer, herd};
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_for, wait_until};

/// The lifetime that these tests wait out.
const TTL: Duration = Duration::from_millis(300);
const MARGIN: Duration = Duration::from_millis(100);

/// An origin whose page says `v1`, `v2`, … by request, after passing `gate`.
async fn versions(gate: &Gate) -> Origin {
    let (gate, count) = (gate.clone(), AtomicUsize::new(0));
    Origin::start(move |_| {
        let (gate, version) = (gate.clone(), count.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            gate.pass().await;
            Reply::ok(format!("v{version}"))
        }
    })
    .await
}

fn open_gate() -> Gate {
    let gate = Gate::new();
    gate.open();
    gate
}

async fn gateway(origin: &Origin, policy: &str) -> Gateway {
    Setup::new(origin)
        .top("cache", "{backoff: {base: 300ms, max: 1s}}")
        .policy(&format!("{{mode: override, ttl: 300ms, {policy}}}"))
        .start()
        .await
}

/// Loads the page and waits until it has expired.
async fn expired(gateway: &Gateway) -> Answer {
    let answer = gateway.client().get("/").await;
    passed(answer.at, TTL + MARGIN).await;
    answer
}

/// Waits until the page's body is `wanted`.
async fn becomes(gateway: &Gateway, wanted: &str) {
    let client = gateway.client();
    wait_for(&format!("the page says {wanted}"), SOON, || async {
        (client.get("/").await.text() == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_one_request_refreshes_all_get_the_stale_copy_at_once() {
    let gate = open_gate();
    let origin = versions(&gate).await;
    let gateway = gateway(&origin, "stale_while_revalidate: 60s").await;
    expired(&gateway).await;
    gate.shut();
    for answer in herd(&gateway.client(), 50, "/").await {
        assert_eq!(answer.unwrap().text(), "v1");
    }
    gate.reached_by(1).await;
    assert_eq!(origin.count(), 2, "one load and one refresh");
    gate.open();
    becomes(&gateway, "v2").await;
}

#[tokio::test]
async fn a_stale_hit_says_so() {
    let gate = open_gate();
    let origin = versions(&gate).await;
    let gateway = gateway(&origin, "stale_while_revalidate: 60s").await;
    expired(&gateway).await;
    let stale = gateway.client().get("/").await;
    assert!(
        stale.is_hit() && stale.cache().ttl.is_none_or(|ttl| ttl <= 0),
        "{:?}",
        stale.cache()
    );
}

#[tokio::test]
async fn the_window_in_the_response_counts_as_well() {
    let origin = Origin::pages(|_| {
        Reply::ok("x").header("cache-control", "max-age=1, stale-while-revalidate=60")
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let first = gateway.client().get("/").await;
    passed(first.at, Duration::from_millis(1_200)).await;
    assert!(gateway.client().get("/").await.is_hit());
    origin.saw(2).await;
}

#[tokio::test]
async fn without_a_window_an_expired_copy_is_not_served() {
    let gate = open_gate();
    let mut origin = versions(&gate).await;
    let gateway = gateway(&origin, "jitter: 0").await;
    expired(&gateway).await;
    origin.stop().await;
    assert_eq!(gateway.client().get("/").await.status, 502);
}

#[tokio::test]
async fn a_stopped_origin_leaves_stale_pages_and_its_return_fresh_ones() {
    let gate = open_gate();
    let mut origin = versions(&gate).await;
    let gateway = gateway(&origin, "stale_if_error: 60s").await;
    expired(&gateway).await;
    origin.stop().await;
    for _ in 0..20 {
        let answer = gateway.client().get("/").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "v1"));
    }
    origin.start_again().await;
    becomes(&gateway, "v2").await;
}

#[tokio::test]
async fn every_failure_status_is_covered_by_the_stale_copy() {
    let status = Arc::new(AtomicUsize::new(200));
    let now = status.clone();
    let origin = Origin::pages(move |_| {
        Reply::ok("good").status(u16::try_from(now.load(Ordering::SeqCst)).unwrap())
    })
    .await;
    let policy = "{mode: override, ttl: 300ms, stale_if_error: 60s, statuses: [200]}";
    let gateway = Setup::new(&origin)
        .top("cache", "{backoff: {base: 1ms, max: 1ms}}")
        .policy(policy)
        .start()
        .await;
    expired(&gateway).await;
    for failure in [500, 502, 503, 504] {
        status.store(failure, Ordering::SeqCst);
        let answer = gateway.client().get("/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "good"),
            "{failure}"
        );
    }
}

/// The same request 1,000 times against an origin that fails as `failure` says.
async fn a_thousand_requests_ask(failure: fn() -> Reply) -> usize {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let origin = Origin::pages(move |_| match failing.load(Ordering::SeqCst) {
        true => failure(),
        false => Reply::ok("good"),
    })
    .await;
    let policy = "{mode: override, ttl: 300ms, stale_if_error: 60s, statuses: [200]}";
    let gateway = Setup::new(&origin).policy(policy).start().await;
    expired(&gateway).await;
    fails.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        for answer in herd(&gateway.client(), 50, "/").await {
            assert_eq!(answer.unwrap().text(), "good");
        }
    }
    origin.count() - 1
}

#[tokio::test]
async fn a_thousand_requests_ask_a_failing_origin_a_handful_of_times() {
    let asked = a_thousand_requests_ask(|| Reply::status_only(503)).await;
    assert!((1..=10).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_thousand_requests_ask_a_dying_origin_a_handful_of_times() {
    // One failure may be tried on another connection, so twice a handful.
    let asked = a_thousand_requests_ask(Reply::hang_up).await;
    assert!((1..=20).contains(&asked), "{asked}");
}

#[tokio::test]
async fn the_back_off_also_covers_refreshes_behind_the_reader() {
    let gate = open_gate();
    let origin = versions(&gate).await;
    let gateway = Setup::new(&origin)
        .policy("{mode: override, ttl: 300ms, stale_while_revalidate: 60s, stale_if_error: 60s, statuses: [200]}")
        .start()
        .await;
    expired(&gateway).await;
    origin.behave(|_| async { Reply::status_only(500) });
    for _ in 0..10 {
        herd(&gateway.client(), 30, "/")
            .await
            .into_iter()
            .for_each(|answer| {
                assert_eq!(answer.unwrap().text(), "v1");
            });
    }
    assert!((2..=8).contains(&origin.count()), "{}", origin.count());
}

#[tokio::test]
async fn after_the_soft_timeout_stale_is_served_while_the_load_goes_on_and_is_stored() {
    let gate = open_gate();
    let origin = versions(&gate).await;
    let gateway = gateway(
        &origin,
        "stale_if_error: 60s, timeouts: {soft: 100ms, hard: 20s}",
    )
    .await;
    expired(&gateway).await;
    gate.shut();
    let answer = gateway.client().get("/").await;
    assert_eq!(
        (answer.text(), gate.waiting()),
        ("v1", 1),
        "stale, with the load still at the origin"
    );
    gate.open();
    becomes(&gateway, "v2").await;
    assert_eq!(
        origin.count(),
        2,
        "the load that was left behind was stored, not repeated"
    );
}

#[tokio::test]
async fn the_hard_timeout_is_a_504() {
    let gate = Gate::new();
    let origin = versions(&gate).await;
    let gateway = gateway(&origin, "timeouts: {hard: 300ms}").await;
    let answer = gateway.client().get("/").await;
    assert_eq!(answer.status, 504);
    assert!(
        answer.header("proxy-status").contains("timeout"),
        "{:?}",
        answer.headers
    );
}

#[tokio::test]
async fn the_hard_timeout_serves_stale_where_there_is_a_copy() {
    let gate = open_gate();
    let origin = versions(&gate).await;
    let gateway = gateway(&origin, "stale_if_error: 60s, timeouts: {hard: 300ms}").await;
    expired(&gateway).await;
    gate.shut();
    assert_eq!(gateway.client().get("/").await.text(), "v1");
}

#[tokio::test]
async fn a_deleted_page_is_not_served_from_the_grave() {
    let gate = open_gate();
    let mut origin = versions(&gate).await;
    let gateway = gateway(
        &origin,
        "stale_if_error: 60s, statuses: [200], negative_cache: {ttl: 100ms}",
    )
    .await;
    expired(&gateway).await;
    origin.behave(|_| async { Reply::status_only(404) });
    let gone = gateway.client().get("/").await;
    assert_eq!(gone.status, 404);
    passed(gone.at, Duration::from_millis(200)).await;
    origin.stop().await;
    assert_ne!(gateway.client().get("/").await.text(), "v1");
}

#[tokio::test]
async fn the_stale_window_counts_from_expiry_and_ends() {
    let gate = open_gate();
    let mut origin = versions(&gate).await;
    let gateway = gateway(&origin, "stale_if_error: 700ms").await;
    let loaded = expired(&gateway).await;
    origin.stop().await;
    let client = gateway.client();
    wait_for("the stale window ends", SOON, || async {
        (client.get("/").await.status == 502).then_some(())
    })
    .await;
    let window = loaded.at.elapsed();
    assert!(
        window >= Duration::from_millis(900),
        "it ended after {window:?} although reads went on"
    );
}

#[tokio::test]
async fn must_revalidate_forbids_stale() {
    let mut origin =
        Origin::pages(|_| Reply::ok("x").header("cache-control", "max-age=1, must-revalidate"))
            .await;
    let policy = "{stale_if_error: 60s, stale_while_revalidate: 60s}";
    let gateway = Setup::new(&origin).policy(policy).start().await;
    let first = gateway.client().get("/").await;
    origin.stop().await;
    passed(first.at, Duration::from_millis(1_200)).await;
    let answer = gateway.client().get("/").await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
}

#[tokio::test]
async fn pages_differ_in_their_back_off() {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/bad" => Reply::status_only(500),
        _ => Reply::ok("fine"),
    })
    .await;
    let gateway = gateway(&origin, "stale_if_error: 60s, statuses: [200]").await;
    gateway.client().get("/bad").await;
    expired(&gateway).await;
    gateway.client().get("/").await;
    wait_until("the good page was loaded again", SOON, || {
        origin.count_of("/") >= 2
    })
    .await;
}

/// Guards against an old error in place of a newer one.
#[tokio::test]
async fn a_stored_error_covers_no_newer_one() {
    let count = AtomicUsize::new(0);
    let origin = Origin::pages(move |_| {
        let version = count.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::ok(format!("v{version}"))
            .status(503)
            .header("cache-control", "max-age=60, stale-if-error=3600")
            .header("age", "100")
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let client = gateway.client();
    assert_eq!(client.get("/").await.text(), "v1");
    assert_eq!(client.get("/").await.text(), "v2");
}
