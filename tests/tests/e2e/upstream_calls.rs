//! gRPC calls through an upstream: what their statuses say of a target, and how long they wait.

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};
use http::Method;

const CALL: &str = "application/grpc+proto";

/// A target that answers each call with this status alone, at once.
async fn refusing(status: &'static str) -> Origin {
    Origin::pages(move |_| {
        let told = Reply::ok("").header("content-type", CALL);
        told.header("grpc-status", status)
    })
    .await
}

/// A target that takes its time.
async fn well() -> Origin {
    Origin::start(|asked| async move {
        asked.read().await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let told = Reply::ok("answer").header("content-type", CALL);
        told.header("grpc-status", "0")
    })
    .await
}

async fn before(targets: &[&Origin], more: &str) -> Gateway {
    let targets: Vec<_> = targets.iter().map(|target| target.url()).collect();
    let targets = targets.join(", ");
    let upstream = format!("{{targets: [{targets}], protocol: http2{more}}}");
    Setup::default()
        .upstream("shop", &upstream)
        .route("{name: calls, upstream: shop, cache: off}")
        .start()
        .await
}

async fn call(gateway: &Gateway, timeout: &str) -> Answer {
    let client = gateway.client_http2().uncached();
    let ask = client.ask(Method::POST, "/shop.Orders/Get");
    let ask = ask.header("content-type", CALL).header("te", "trailers");
    let ask = match timeout {
        "" => ask,
        timeout => ask.header("grpc-timeout", timeout),
    };
    within("a call", SOON, ask.body("message").send()).await
}

async fn usable(gateway: &Gateway) -> f64 {
    let upstream = [("upstream", "shop")];
    gateway
        .metric("lamina_upstream_usable_targets", &upstream)
        .await
}

#[tokio::test]
async fn a_target_without_capacity_attracts_no_calls_and_is_not_ejected() {
    let (a, full, b) = (well().await, refusing("8").await, well().await);
    let gateway = before(&[&a, &full, &b], "").await;
    for _ in 0..60 {
        call(&gateway, "").await;
    }
    assert!(full.count() <= 5, "{} of 60 were refused", full.count());
    let round_robin = ", balance: {by: round_robin}";
    let (a, full) = (well().await, refusing("8").await);
    let gateway = before(&[&a, &full], round_robin).await;
    for _ in 0..40 {
        call(&gateway, "").await;
    }
    assert_eq!(full.count(), 20, "an answer, and no reason to ask another");
    assert_eq!(usable(&gateway).await, 2.0);
}

#[tokio::test]
async fn a_target_that_is_unavailable_is_ejected() {
    let (a, away) = (well().await, refusing("14").await);
    let gateway = before(&[&a, &away], ", balance: {by: round_robin}").await;
    for _ in 0..20 {
        call(&gateway, "").await;
    }
    assert_eq!(away.count(), 5);
    assert_eq!(usable(&gateway).await, 1.0);
    let labels = [("upstream", "shop"), ("reason", "503")];
    let ejections = gateway.metric("lamina_upstream_ejections_total", &labels);
    assert_eq!(ejections.await, 1.0);
}

/// A call that waits for a moment only may ask for what nobody can do.
#[tokio::test]
async fn a_call_waits_for_as_long_as_it_says() {
    for (timeout, outcome, ejected) in [("50m", "other", 0.0), ("1S", "timeout", 1.0)] {
        let hangs = || Origin::start(|_| async { std::future::pending().await });
        let (a, b) = (hangs().await, hangs().await);
        let more = ", timeouts: {first_byte: 10m}, health: {passive: {failures: 2}}";
        let gateway = before(&[&a, &b], more).await;
        for _ in 0..5 {
            let answer = call(&gateway, timeout).await;
            assert_eq!(
                answer.header("grpc-status"),
                "4",
                "the deadline was exceeded"
            );
        }
        assert_eq!(a.count() + b.count(), 5, "{timeout}: none had time for two");
        let seen = if a.count() > 0 { &a } else { &b };
        assert_eq!(seen.last().header("grpc-timeout"), timeout);
        let labels = [("upstream", "shop"), ("outcome", outcome)];
        let outcomes = gateway.metric("lamina_upstream_requests_total", &labels);
        assert_eq!(outcomes.await, 5.0, "{timeout}");
        assert_eq!(usable(&gateway).await, 2.0 - ejected, "{timeout}");
    }
}

/// Neither what the origin allows nor what the route says keeps an answer to a call, whose status is
/// in its trailers: nobody would get them.
#[tokio::test]
async fn an_answer_of_grpc_is_never_stored() {
    let kinds = ["application/grpc", CALL, "application/grpc; charset=utf-8"];
    for kind in kinds {
        let origin = Origin::pages(move |seen| {
            let kind = match seen.path.as_str() {
                "/page" => "text/plain",
                _ => kind,
            };
            let told = Reply::fresh("answer").header("content-type", kind);
            told.header("grpc-status", "0")
        })
        .await;
        let upstream = format!("{{targets: [{}], protocol: http2}}", origin.url());
        let gateway = Setup::default()
            .upstream("shop", &upstream)
            .route("{name: forced, match: {path: /forced/*}, upstream: shop, policy: {mode: override, ttl: 1h}}")
            .route("{name: calls, upstream: shop}")
            .start()
            .await;
        let client = gateway.client();
        for path in ["/call", "/forced/call"] {
            for _ in 0..2 {
                let answer = client.get(path).await;
                assert_eq!((answer.status.as_u16(), answer.text()), (200, "answer"));
                assert!(!answer.cache().stored, "{kind} {path}");
            }
            assert_eq!(origin.count_of(path), 2, "{kind} {path}");
        }
        client.get("/page").await;
        assert!(client.get("/page").await.is_hit(), "another kind is stored");
    }
}

/// The wait for a place among `load.max_concurrent` is part of the wait for the answer.
#[tokio::test]
async fn a_call_waits_in_the_queue_no_longer_than_it_says() {
    let hangs = Origin::start(|_| async { std::future::pending().await }).await;
    let more = ", load: {max_concurrent: 1, queue_timeout: 10m}";
    let gateway = before(&[&hangs], more).await;
    let client = gateway.client_http2().uncached();
    let holds = tokio::spawn(async move { client.get("/held").await });
    hangs.saw(1).await;
    let answer = call(&gateway, "100m").await;
    assert_eq!(
        answer.header("grpc-status"),
        "4",
        "the deadline was exceeded"
    );
    assert_eq!(hangs.count(), 1);
    holds.abort();
}
