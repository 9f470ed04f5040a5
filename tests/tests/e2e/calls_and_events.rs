//! Streams whose sender speaks when it has something to say: event streams, and calls that end
//! with a status of their own.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::origin::Origin;
use e2e::reply::{Pieces, Reply};
use e2e::setup::Setup;
use e2e::wait::passed;
use http::Method;

/// An origin whose one answer has these fields and comes piece by piece.
async fn streaming(fields: &'static [(&'static str, &'static str)]) -> (Origin, Pieces) {
    let (reply, pieces) = Reply::stream();
    let reply = fields
        .iter()
        .fold(reply, |reply, (n, v)| reply.header(n, v));
    let reply = Arc::new(Mutex::new(Some(reply)));
    let origin = Origin::pages(move |_| reply.lock().unwrap().take().unwrap()).await;
    (origin, pieces)
}

#[tokio::test]
async fn silence_on_an_event_stream_is_no_failure() {
    let fields = &[
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-store"),
    ];
    let (origin, pieces) = streaming(fields).await;
    let target = format!(
        "{{targets: [\"{}\"], timeouts: {{idle: 100ms}}}}",
        origin.url()
    );
    let gateway = Setup::new(&origin)
        .upstream("origin", &target)
        .start()
        .await;
    let asking = tokio::spawn({
        let client = gateway.client();
        async move { client.request("/events").open().await }
    });
    pieces.send("data: 1\n\n").await;
    let mut events = asking.await.unwrap();
    assert_eq!(events.at_least(9).await, "data: 1\n\n");
    passed(Instant::now(), Duration::from_millis(500)).await;
    pieces.send("data: 2\n\n").await;
    assert_eq!(events.at_least(9).await, "data: 2\n\n");
    pieces.finish().await;
}

#[tokio::test]
async fn the_line_of_a_grpc_call_says_how_the_call_ended() {
    let fields = &[
        ("content-type", "application/grpc"),
        ("trailer", "grpc-status"),
    ];
    let (origin, pieces) = streaming(fields).await;
    let gateway = Setup::new(&origin)
        .route("{name: calls, upstream: origin, cache: off}")
        .start()
        .await;
    let asking = tokio::spawn({
        let client = gateway.client_http2().uncached();
        let call = client.ask(Method::POST, "/shop.Orders/Get");
        let call = call.header("te", "trailers").body("x");
        async move { call.send().await }
    });
    pieces.send("message").await;
    pieces.trailer("grpc-status", "14").await;
    pieces.finish().await;
    asking.await.unwrap();
    let of_call = |line: &str| line.contains("/shop.Orders/Get") && line.contains("total_us");
    let line = gateway.logged("the line of the call", of_call).await;
    assert!(line.contains("\"grpc_status\":\"14\""), "{line}");
    assert!(line.contains("\"complete\":true"), "{line}");
}
