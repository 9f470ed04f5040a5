//! What a gRPC call is told when the gateway itself answers it: a status in `grpc-status`, over
//! each protocol that carries gRPC, and whichever part of the gateway refuses the request.

use e2e::client::Answer;
use e2e::h3::SecuredGateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;

const CALL: &str = "application/grpc+proto";
/// A message that the listener takes and the route does not.
const LARGE: usize = 2 << 10;

/// Paths, the HTTP status that a plain request gets there, and the gRPC status of a call.
const ERRORS: &[(&str, u16, &str)] = &[
    // The route's own limit.
    ("/pkg.Small/Call", 413, "8"),
    // No route takes it.
    ("/elsewhere/Call", 404, "12"),
    // The path itself is refused.
    ("/pkg.Call%00", 400, "13"),
    // Nobody listens at the origin's address.
    ("/pkg.Away/Call", 502, "14"),
    // The origin does not answer in time.
    ("/pkg.Late/Call", 504, "4"),
];

async fn setup() -> (Origin, Setup) {
    let origin = Origin::start(|asked| async move {
        if asked.seen.path_only() == "/pkg.Late/Call" {
            return std::future::pending().await;
        }
        asked.read().await;
        Reply::ok("read")
    })
    .await;
    let late = format!(
        "{{targets: [\"{}\"], timeouts: {{first_byte: 300ms}}}}",
        origin.url()
    );
    let setup = Setup::new(&origin)
        .upstream("late", &late)
        .upstream("away", "http://127.0.0.1:1")
        .route("{name: small, match: {path: /pkg.Small/*}, upstream: origin, limits: {max_body_bytes: 1KiB}}")
        .route("{name: late, match: {path: /pkg.Late/*}, upstream: late}")
        .route("{name: away, match: {path: /pkg.Away/*}, upstream: away}")
        .route("{name: calls, match: {path: /pkg*}, upstream: origin}")
        .listener("limits", "{max_body_bytes: 8KiB, max_uri_bytes: 2KiB}");
    (origin, setup)
}

fn is_told(answer: &Answer, status: &str, path: &str) {
    let told = (answer.status.as_u16(), answer.header("grpc-status"));
    assert_eq!(told, (200, status), "{path}");
    assert_eq!(answer.header("content-type"), "application/grpc", "{path}");
    assert!(
        answer.has("grpc-message") && answer.body.is_empty(),
        "{path}"
    );
}

#[tokio::test]
async fn every_error_of_ours_is_a_grpc_status_to_a_call_over_http_2() {
    let (_origin, setup) = setup().await;
    let gateway = setup.start().await;
    let ask = |path: &str, kind: &str, body: Vec<u8>| {
        let client = gateway.client_http2().uncached();
        let ask = client.ask(Method::POST, path).header("content-type", kind);
        ask.body(body).send()
    };
    for (path, http, grpc) in ERRORS {
        let plain = ask(path, "application/json", vec![b'x'; LARGE]).await;
        assert_eq!(plain.status, *http, "{path}");
        is_told(&ask(path, CALL, vec![b'x'; LARGE]).await, grpc, path);
    }
    // The listener refuses these before a route is looked for.
    let long = format!("/pkg.{}/Call", "x".repeat(3 << 10));
    for (path, bytes, http, grpc) in [("/pkg.Any/Call", 16 << 10, 413, "8"), (&long, 1, 414, "8")] {
        let plain = ask(path, "application/json", vec![b'x'; bytes]).await;
        assert_eq!(plain.status, http, "{path}");
        is_told(&ask(path, CALL, vec![b'x'; bytes]).await, grpc, path);
    }
    let whole = ask("/pkg.Any/Call", CALL, vec![b'x'; LARGE]).await;
    assert_eq!((whole.status.as_u16(), whole.text()), (200, "read"));
}

#[tokio::test]
async fn content_without_a_length_that_grows_too_large_is_told_too() {
    let (_origin, setup) = setup().await;
    let gateway = setup.start().await;
    let client = gateway.client_http2().uncached();
    let ask = client
        .ask(Method::POST, "/pkg.Small/Call")
        .header("content-type", CALL);
    let (ask, upload) = ask.upload();
    let answer = tokio::spawn(ask.send());
    // Whether it is read to its end is of no interest.
    let _ = upload.send(vec![b'x'; LARGE].into()).await;
    drop(upload);
    is_told(&answer.await.unwrap(), "8", "/pkg.Small/Call");
}

#[tokio::test]
async fn every_error_of_ours_is_a_grpc_status_to_a_call_over_http_3() {
    let (_origin, setup) = setup().await;
    let secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    for (path, http, grpc) in ERRORS {
        let ask = |kind: &str| {
            let ask = client.ask(Method::POST, path).header("content-type", kind);
            ask.body(vec![b'x'; LARGE]).send()
        };
        assert_eq!(ask("application/json").await.status, *http, "{path}");
        is_told(&ask(CALL).await, grpc, path);
    }
}

/// gRPC needs trailers, which clients of HTTP/1 do not take.
#[tokio::test]
async fn a_request_over_http_1_gets_the_status_of_http() {
    let (_origin, setup) = setup().await;
    let gateway = setup.start().await;
    let client = gateway.client().uncached();
    let ask = client
        .ask(Method::POST, "/pkg.Small/Call")
        .header("content-type", CALL);
    let answer = ask.body(vec![b'x'; LARGE]).send().await;
    assert_eq!(answer.status, 413);
    assert!(!answer.has("grpc-status"));
}

#[tokio::test]
async fn the_log_has_the_status_that_the_call_got() {
    let (_origin, setup) = setup().await;
    let gateway = setup.start().await;
    let client = gateway.client_http2().uncached();
    let ask = client
        .ask(Method::POST, "/pkg.Small/Call")
        .header("content-type", CALL);
    ask.body(vec![b'x'; LARGE]).send().await;
    let of_call = |line: &str| line.contains("/pkg.Small/Call") && line.contains("total_us");
    let line = gateway.logged("the line of the call", of_call).await;
    assert!(line.contains("\"grpc_status\":\"8\""), "{line}");
}
