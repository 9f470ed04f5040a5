//! Stale copies: served while they are refreshed or while the origin fails, and no longer (RFC 5861).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::client::{Answer, herd};
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_for, within};

/// An origin whose page says `v1`, `v2`, … by request, after passing `gate`. The first one
/// is stale when it comes and the others never are, however long a test takes.
async fn versions(gate: &Gate) -> Origin {
    let (gate, count) = (gate.clone(), AtomicUsize::new(0));
    Origin::start(move |_| {
        let (gate, version) = (gate.clone(), count.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            gate.pass().await;
            let life = if version == 1 { 0 } else { 86_400 };
            Reply::ok(format!("v{version}")).header("cache-control", &format!("max-age={life}"))
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
        .policy(&format!("{{{policy}}}"))
        .start()
        .await
}

/// Loads the page, whose copy is stale from then on.
async fn copied(gateway: &Gateway) -> Answer {
    let answer = gateway.client().get("/").await;
    assert_eq!(answer.status, 200);
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
    let gateway = gateway(&origin, "stale_while_revalidate: 1d").await;
    copied(&gateway).await;
    gate.shut();
    for answer in herd(&gateway.client(), 50, "/").await {
        assert_eq!(answer.unwrap().text(), "v1");
    }
    gate.reached_by(1).await;
    gate.open();
    becomes(&gateway, "v2").await;
    // Another one that was begun beside it has come to the origin by now.
    gateway
        .metric_until("lamina_cache_flights", &[], |flights| flights == 0.0)
        .await;
    assert_eq!(origin.count(), 2, "one load and one refresh");
}

#[tokio::test]
async fn a_stale_hit_says_so() {
    let gate = open_gate();
    let origin = versions(&gate).await;
    let gateway = gateway(&origin, "stale_while_revalidate: 1d").await;
    copied(&gateway).await;
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
        Reply::ok("x").header("cache-control", "max-age=1, stale-while-revalidate=86400")
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
    let mut origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = gateway(&origin, "mode: override, ttl: 300ms").await;
    let loaded = copied(&gateway).await;
    origin.stop().await;
    passed(loaded.at, Duration::from_millis(400)).await;
    assert_eq!(gateway.client().get("/").await.status, 502);
}

#[tokio::test]
async fn a_stopped_origin_leaves_stale_pages_and_its_return_fresh_ones() {
    let gate = open_gate();
    let mut origin = versions(&gate).await;
    let gateway = gateway(&origin, "stale_if_error: 1d").await;
    copied(&gateway).await;
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
        Reply::ok("good")
            .status(u16::try_from(now.load(Ordering::SeqCst)).unwrap())
            .header("cache-control", "max-age=0")
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{backoff: {base: 1ms, max: 1ms}}")
        .policy("{stale_if_error: 1d, statuses: [200]}")
        .start()
        .await;
    copied(&gateway).await;
    let client = gateway.client();
    for failure in [500, 502, 503, 504] {
        status.store(failure, Ordering::SeqCst);
        let before = origin.count();
        wait_for("the origin is asked again", SOON, || async {
            let answer = client.get("/").await;
            assert_eq!(
                (answer.status.as_u16(), answer.text()),
                (200, "good"),
                "{failure}"
            );
            (origin.count() > before).then_some(())
        })
        .await;
    }
}

/// Longer than any test takes: who is asked again was not spared.
const LONG_BACKOFF: &str = "{backoff: {base: 1h, max: 1h}}";

/// The same request 1,000 times against an origin that fails as `failure` says.
async fn a_thousand_requests_ask(failure: fn() -> Reply) -> usize {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let origin = Origin::pages(move |_| match failing.load(Ordering::SeqCst) {
        true => failure(),
        false => Reply::ok("good").header("cache-control", "max-age=0"),
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", LONG_BACKOFF)
        .policy("{stale_if_error: 1d, statuses: [200]}")
        .start()
        .await;
    copied(&gateway).await;
    fails.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        for answer in herd(&gateway.client(), 50, "/").await {
            assert_eq!(answer.unwrap().text(), "good");
        }
    }
    origin.count() - 1
}

#[tokio::test]
async fn a_thousand_requests_ask_a_failing_origin_once_in_a_back_off() {
    let asked = a_thousand_requests_ask(|| Reply::status_only(503)).await;
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_thousand_requests_ask_a_dying_origin_once_in_a_back_off() {
    // One failure may be tried on another connection.
    let asked = a_thousand_requests_ask(Reply::hang_up).await;
    assert!((1..=2).contains(&asked), "{asked}");
}

#[tokio::test]
async fn the_back_off_also_covers_refreshes_behind_the_reader() {
    let gate = open_gate();
    let origin = versions(&gate).await;
    let gateway = Setup::new(&origin)
        .top("cache", LONG_BACKOFF)
        .policy("{stale_while_revalidate: 1d, stale_if_error: 1d, statuses: [200]}")
        .start()
        .await;
    copied(&gateway).await;
    origin.behave(|_| async { Reply::status_only(500) });
    let ask_again = || async {
        for answer in herd(&gateway.client(), 150, "/").await {
            assert_eq!(answer.unwrap().text(), "v1");
        }
    };
    ask_again().await;
    let failed = [("outcome", "error")];
    gateway
        .metric_until("lamina_cache_loads_total", &failed, |loads| loads >= 1.0)
        .await;
    ask_again().await;
    assert_eq!(origin.count(), 2, "one load and one refresh");
}

#[tokio::test]
async fn after_the_soft_timeout_stale_is_served_while_the_load_goes_on_and_is_stored() {
    let gate = open_gate();
    let origin = versions(&gate).await;
    let gateway = gateway(
        &origin,
        "stale_if_error: 1d, timeouts: {soft: 100ms, hard: 1h}",
    )
    .await;
    copied(&gateway).await;
    gate.shut();
    let client = gateway.client();
    let stale = within("a page", BEFORE_THE_ORIGINS, client.get("/")).await;
    assert_eq!(stale.text(), "v1", "stale");
    // The load is still under way.
    gate.reached_by(1).await;
    gate.open();
    becomes(&gateway, "v2").await;
    assert_eq!(
        origin.count(),
        2,
        "the load that was left behind was stored, not repeated"
    );
}

/// Less than the 30 s after which an upstream that is silent is given up in any case.
const BEFORE_THE_ORIGINS: Duration = Duration::from_secs(15);

#[tokio::test]
async fn the_hard_timeout_is_a_504() {
    let gate = Gate::new();
    let origin = versions(&gate).await;
    let gateway = gateway(&origin, "timeouts: {hard: 300ms}").await;
    let client = gateway.client();
    let answer = within("a 504", BEFORE_THE_ORIGINS, client.get("/")).await;
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
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::ok("good").header("cache-control", "max-age=0")
        }
    })
    .await;
    let gateway = gateway(&origin, "stale_if_error: 1d, timeouts: {hard: 1s}").await;
    let client = gateway.client();
    // The deadline holds for the first load as well, and the machine may be slow.
    wait_for("there is a copy", SOON, || async {
        (client.get("/").await.status == 200).then_some(())
    })
    .await;
    gate.shut();
    let stale = within("a page", BEFORE_THE_ORIGINS, client.get("/")).await;
    assert_eq!(stale.text(), "good");
}

#[tokio::test]
async fn a_deleted_page_is_not_served_from_the_grave() {
    let gate = open_gate();
    let mut origin = versions(&gate).await;
    let gateway = gateway(
        &origin,
        "stale_if_error: 1d, statuses: [200], negative_cache: {ttl: 100ms}",
    )
    .await;
    copied(&gateway).await;
    origin.behave(|_| async { Reply::status_only(404) });
    let gone = gateway.client().get("/").await;
    assert_eq!(gone.status, 404);
    passed(gone.at, Duration::from_millis(200)).await;
    origin.stop().await;
    assert_ne!(gateway.client().get("/").await.text(), "v1");
}

#[tokio::test]
async fn the_stale_window_counts_from_expiry_and_ends() {
    let mut origin = Origin::pages(|_| Reply::ok("v1")).await;
    let policy = "mode: override, ttl: 300ms, stale_if_error: 700ms";
    let gateway = gateway(&origin, policy).await;
    let began = Instant::now();
    copied(&gateway).await;
    origin.stop().await;
    let client = gateway.client();
    wait_for("the stale window ends", SOON, || async {
        (client.get("/").await.status == 502).then_some(())
    })
    .await;
    let window = began.elapsed();
    assert!(
        window >= Duration::from_secs(1),
        "it ended after {window:?} although reads went on"
    );
}

#[tokio::test]
async fn must_revalidate_forbids_stale() {
    let mut origin =
        Origin::pages(|_| Reply::ok("x").header("cache-control", "max-age=1, must-revalidate"))
            .await;
    let policy = "{stale_if_error: 1d, stale_while_revalidate: 1d}";
    let gateway = Setup::new(&origin).policy(policy).start().await;
    let first = gateway.client().get("/").await;
    origin.stop().await;
    passed(first.at, Duration::from_millis(1_200)).await;
    let answer = gateway.client().get("/").await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
}

/// A page that is left alone after its failures leaves the others as they are.
#[tokio::test]
async fn pages_differ_in_their_back_off() {
    let failed = AtomicBool::new(false);
    let origin = Origin::pages(move |seen| match seen.path.as_str() {
        "/bad" if failed.swap(true, Ordering::SeqCst) => Reply::status_only(500),
        _ => Reply::ok("fine").header("cache-control", "max-age=0"),
    })
    .await;
    let policy = "stale_if_error: 1d, statuses: [200]";
    let gateway = gateway(&origin, policy).await;
    let client = gateway.client();
    client.get("/bad").await;
    copied(&gateway).await;
    // The first failure makes it pause, so that the next request asks nobody.
    assert_eq!(client.get("/bad").await.text(), "fine");
    assert_eq!(client.get("/bad").await.text(), "fine");
    assert_eq!(origin.count_of("/bad"), 2, "the bad page is left alone");
    client.get("/").await;
    assert_eq!(origin.count_of("/"), 2, "the good page was loaded again");
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
