//! What a client may send, and what it gets for more (http.md, Bad input; the cheap part).

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};
use http::Method;
use http_body_util::BodyExt;

async fn limited(limits: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin).listener("limits", limits).start().await;
    (origin, gateway)
}

async fn status_of(gateway: &Gateway, request: &str) -> u16 {
    let mut raw = gateway.raw().await;
    raw.write(request).await;
    raw.head().await.status
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n{fields}\r\n")
}

#[tokio::test]
async fn too_many_headers_are_431() {
    let (origin, gateway) = limited("{max_headers: 20}").await;
    let fields = |n| (0..n).map(|i| format!("x-{i}: 1\r\n")).collect::<String>();
    assert_eq!(status_of(&gateway, &get("/", &fields(10))).await, 200);
    assert_eq!(status_of(&gateway, &get("/", &fields(40))).await, 431);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn headers_that_are_too_long_are_431() {
    let (origin, gateway) = limited("{max_header_bytes: 16KiB}").await;
    let field = |n| format!("x-long: {}\r\n", "a".repeat(n));
    assert_eq!(status_of(&gateway, &get("/", &field(4 << 10))).await, 200);
    assert_eq!(status_of(&gateway, &get("/", &field(20 << 10))).await, 431);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_target_that_is_too_long_is_414() {
    let (origin, gateway) = limited("{max_uri_bytes: 1KiB}").await;
    let target = |n| format!("/{}", "a".repeat(n));
    assert_eq!(status_of(&gateway, &get(&target(900), "")).await, 200);
    assert_eq!(status_of(&gateway, &get(&target(2_000), "")).await, 414);
    assert_eq!(gateway.client_http2().get(&target(2_000)).await.status, 414);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_body_that_says_it_is_too_long_is_413() {
    let (origin, gateway) = limited("{max_body_bytes: 1KiB}").await;
    assert_eq!(gateway.client().post("/", vec![0; 1_000]).await.status, 200);
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2000\r\n\r\n";
    assert_eq!(status_of(&gateway, head).await, 413);
    assert_eq!(origin.count(), 1);
}

/// However its length becomes known, the refusal is that of its route.
#[tokio::test]
async fn a_body_that_is_too_long_is_an_error_of_its_route() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .listener("limits", "{max_body_bytes: 1KiB}")
        .route(
            "{name: site, upstream: origin, errors: [{statuses: [413]}], request_id: on, \
             cors: {origins: [\"https://a.test\"]}}",
        )
        .start()
        .await;
    let body = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    for (length, sent) in [
        ("content-length: 2048", String::new()),
        ("transfer-encoding: chunked", body),
    ] {
        let mut raw = gateway.raw().await;
        let fields = "host: x\r\norigin: https://a.test\r\naccept: application/json";
        raw.write(format!(
            "POST / HTTP/1.1\r\n{fields}\r\n{length}\r\n\r\n{sent}"
        ))
        .await;
        let head = raw.head().await;
        assert_eq!(head.status, 413, "{length}");
        for field in [
            "content-type: application/problem+json",
            "access-control-allow-origin: https://a.test",
            "x-request-id: ",
        ] {
            assert!(
                head.text.contains(field),
                "{length}: {field} in {}",
                head.text
            );
        }
    }
}

#[tokio::test]
async fn a_body_that_grows_too_long_never_arrives_whole() {
    let (origin, gateway) = limited("{max_body_bytes: 1KiB}").await;
    let (tell, mut whole) = tokio::sync::mpsc::unbounded_channel();
    origin.behave(move |asked| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(asked.body.collect().await.is_ok());
            Reply::ok("x")
        }
    });
    let (ask, pieces) = gateway.client().ask(Method::POST, "/").upload();
    let asking = tokio::spawn(ask.try_send());
    for _ in 0..8 {
        let _ = pieces.send(vec![0; 512].into()).await;
    }
    drop(pieces);
    let answer = asking.await.unwrap().expect("the client is told");
    assert_eq!(answer.status, 413);
    assert_eq!(origin.count(), 1, "it had begun to arrive");
    let whole = within("the upload's end", SOON, whole.recv()).await;
    assert_eq!(whole, Some(false), "what was cut off looked whole");
}

#[tokio::test]
async fn a_head_that_does_not_arrive_in_time_ends_the_connection() {
    let (origin, gateway) = limited("{header_timeout: 300ms}").await;
    // By the default, which is 10 s, this one would be ended first.
    let (_origin, usual) = limited("{}").await;
    let mut other = usual.raw().await;
    other.write("GET / HTTP/1.1\r\nhost:").await;
    let mut raw = gateway.raw().await;
    raw.write("GET / HTTP/1.1\r\nhost:").await;
    let rest = String::from_utf8(raw.to_end().await).unwrap();
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 408"),
        "{rest}"
    );
    assert!(other.is_open(), "the default ended it");
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (_origin, gateway) = limited("{idle_timeout: 300ms}").await;
    let mut raw = gateway.raw().await;
    raw.write(get("/", "")).await;
    assert_eq!(raw.head().await.status, 200);
    assert_eq!(raw.to_end().await, b"x");
}

#[tokio::test]
async fn a_host_that_is_missing_double_or_contradicted_is_400() {
    let (origin, gateway) = limited("{}").await;
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n",
    ] {
        assert_eq!(status_of(&gateway, head).await, 400, "{head:?}");
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn over_the_connection_limit_accepting_pauses_and_goes_on() {
    let (origin, gateway) = limited("{max_connections: 2}").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut raw = gateway.raw().await;
        raw.write(get("/", "")).await;
        assert_eq!(raw.head().await.status, 200);
        held.push(raw);
    }
    let mut third = gateway.raw().await;
    third.write(get("/third", "")).await;
    // While these are answered a third connection would be, too: it came before them.
    for _ in 0..50 {
        for raw in &mut held {
            raw.exactly(1).await;
            raw.write(get("/", "")).await;
            assert_eq!(raw.head().await.status, 200);
        }
    }
    assert!(
        third.is_silent() && origin.count_of("/third") == 0,
        "a third connection was served beside two open ones"
    );
    held.pop();
    assert_eq!(third.head().await.status, 200);
    assert_eq!(origin.count_of("/third"), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (origin, gateway) = limited("{}").await;
    origin.behave(|asked| async move { Reply::ok(asked.seen.path).header("content-length", "2") });
    let mut raw = gateway.raw().await;
    raw.write([get("/1", ""), get("/2", ""), get("/3", "")].concat())
        .await;
    for body in ["/1", "/2", "/3"] {
        assert_eq!(raw.head().await.status, 200);
        assert_eq!(raw.exactly(2).await, body.as_bytes());
    }
}

/// What a route says of a body holds, whether it is less or more than its listener does.
#[tokio::test]
async fn a_route_has_limits_of_its_own_for_request_bodies() {
    let origin = Origin::pages(|seen| Reply::ok(seen.body.clone().unwrap_or_default())).await;
    let gateway = Setup::new(&origin)
        .listener("limits", "{max_body_bytes: 1000}")
        .route("{name: less, match: {path: /less}, upstream: origin, limits: {max_body_bytes: 10}}")
        .route("{name: more, match: {path: /more}, upstream: origin, limits: {max_body_bytes: 100KiB}}")
        .route("{name: slow, match: {path: /slow}, upstream: origin, limits: {upload_timeout: 300ms}}")
        .route("{name: silent, match: {path: /silent}, upstream: origin, limits: {body_timeout: 300ms}}")
        .route("{name: other, upstream: origin}")
        .start()
        .await;
    for (path, most) in [("/less", 10), ("/more", 100 << 10), ("/other", 1_000)] {
        for (length, status) in [(most, 200), (most + 1, 413)] {
            let answer = gateway.client().post(path, "x".repeat(length)).await;
            assert_eq!(answer.status, status, "{path}: {length} bytes");
        }
    }
    let mut raw = gateway.raw().await;
    raw.write("POST /less HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nb\r\nhello hello\r\n0\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.status, 413, "no length was announced");
    for path in ["/slow", "/silent"] {
        let mut raw = gateway.raw().await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n");
        raw.write(format!("{head}hel")).await;
        assert_eq!(raw.head().await.status, 408, "{path}");
    }
}
