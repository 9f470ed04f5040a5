//! Interim answers (1xx) on their way from an origin to a client (RFC 9110 §15.2).

use e2e::gateway::Gateway;
use e2e::raw::RawConnection;
use e2e::setup::Setup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const FINAL: &str =
    "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\n\r\nfinal";
const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A gateway before an origin that answers each request with these bytes, piece by
/// piece; it waits for `go` after the first.
async fn gateway(pieces: Vec<String>, go: &'static Notify) -> Gateway {
    gateway_with("{}", pieces, go).await
}

async fn gateway_with(policy: &str, pieces: Vec<String>, go: &'static Notify) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!(
        "{{targets: [\"http://{}\"]}}",
        listener.local_addr().unwrap()
    );
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, pieces.clone(), go));
        }
    });
    Setup::default()
        .upstream("origin", &target)
        .policy(policy)
        .start()
        .await
}

async fn answer(mut stream: TcpStream, pieces: Vec<String>, go: &'static Notify) {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
        if !read.ends_with(b"\r\n\r\n") {
            continue;
        }
        read.clear();
        for (number, piece) in pieces.iter().enumerate() {
            if number == 1 {
                go.notified().await;
            }
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
    }
}

fn signal() -> &'static Notify {
    Box::leak(Box::default())
}

/// The final answer with its body.
async fn finally(raw: &mut RawConnection) -> String {
    let head = raw.head().await;
    assert_eq!(head.status, 200, "{}", head.text);
    assert_eq!(raw.exactly(5).await, b"final");
    head.text
}

#[tokio::test]
async fn hints_reach_the_client_before_the_origin_has_its_answer() {
    let go = signal();
    let gateway = gateway(vec![HINT.into(), FINAL.into()], go).await;
    let mut raw = gateway.raw().await;
    raw.write(GET).await;
    let hint = raw.head().await;
    assert_eq!(hint.status, 103);
    assert_eq!(hint.header("link"), "</a.css>; rel=preload");
    assert_eq!(
        hint.header("via"),
        "1.1 lamina",
        "RFC 9110 §7.6.3: in each message"
    );
    go.notify_one();
    let answer = finally(&mut raw).await;
    assert!(!answer.contains("link"), "a hint's fields are its own");
    raw.write(GET).await;
    let hit = finally(&mut raw).await;
    assert!(
        hit.contains("lamina; hit"),
        "interim answers are not stored: {hit}"
    );
}

#[tokio::test]
async fn interim_and_final_answers_in_one_piece_come_in_order() {
    let interim = "HTTP/1.1 102 Processing\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n";
    let gateway = gateway(vec![format!("{interim}{HINT}{FINAL}")], signal()).await;
    let mut raw = gateway.raw().await;
    raw.write(GET).await;
    let processing = raw.head().await;
    assert_eq!(processing.status, 102);
    assert_eq!(processing.header("x-hop"), "", "for one hop only");
    assert_eq!(raw.head().await.status, 103);
    finally(&mut raw).await;
}

#[tokio::test]
async fn a_request_that_is_passed_gets_them_too_and_100_is_each_hops_own() {
    let interim = format!("HTTP/1.1 100 Continue\r\n\r\n{HINT}");
    let gateway = gateway(vec![format!("{interim}{FINAL}")], signal()).await;
    let mut raw = gateway.raw().await;
    raw.write("DELETE / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 103);
    finally(&mut raw).await;
}

#[tokio::test]
async fn pipelined_requests_keep_their_order() {
    let answer = FINAL.replace("max-age=60", "no-store");
    let gateway = gateway(vec![format!("{HINT}{answer}")], signal()).await;
    let mut raw = gateway.raw().await;
    raw.write(GET.repeat(20)).await;
    for _ in 0..20 {
        assert_eq!(raw.head().await.status, 103);
        finally(&mut raw).await;
    }
}

#[tokio::test]
async fn old_clients_and_http2_get_the_final_answer_alone() {
    let answer = FINAL.replace("max-age=60", "no-store");
    let gateway = gateway(vec![format!("{HINT}{answer}")], signal()).await;
    let mut raw = gateway.raw().await;
    raw.write("GET / HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n")
        .await;
    finally(&mut raw).await;
    assert_eq!(gateway.client_http2().get("/").await.text(), "final");
}

/// Guards against a hint in the middle or behind of what is answered already.
#[tokio::test]
async fn a_hint_that_comes_after_the_answer_is_dropped() {
    let go = signal();
    let expired = FINAL.replace("max-age=60", "max-age=0");
    let pieces = vec![String::new(), format!("{HINT}{expired}")];
    let policy = "{stale_if_error: 1h, timeouts: {soft: 50ms}}";
    let gateway = gateway_with(policy, pieces, go).await;
    let mut raw = gateway.raw().await;
    go.notify_one();
    raw.write(GET).await;
    assert_eq!(raw.head().await.status, 103);
    finally(&mut raw).await;
    raw.write(GET).await;
    let stale = finally(&mut raw).await;
    assert!(stale.contains("soft-timeout"), "{stale}");
    go.notify_one();
    gateway
        .metric_until("lamina_cache_flights", &[], |flights| flights == 0.0)
        .await;
    assert!(raw.is_silent());
    go.notify_one();
    raw.write("GET /other HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 103);
    finally(&mut raw).await;
}
