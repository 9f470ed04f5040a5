//! Bodies flow through, in both directions, and stop when their reader stops.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use e2e::client::Failure;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::{Pieces, Reply};
use e2e::setup::Setup;
use e2e::wait::{SOON, within};
use http::Method;
use http_body_util::BodyExt;

const PIECE: usize = 64 << 10;
/// More than all buffers between two ends hold together, by far.
const FAR_TOO_MUCH: usize = 64 << 20;

/// An origin that gives one streamed answer, and the test's hand on it.
async fn one_stream(shape: impl FnOnce(Reply) -> Reply) -> (Origin, Pieces) {
    let (reply, pieces) = Reply::stream();
    let reply = Mutex::new(Some(shape(reply)));
    let page = move |_: &e2e::origin::Seen| {
        reply
            .lock()
            .unwrap()
            .take()
            .unwrap_or_else(|| Reply::status_only(500))
    };
    (Origin::pages(page).await, pieces)
}

/// Sends until the other side takes no more for a while; answers how many bytes it took.
async fn send_until_stuck(mut send: impl AsyncFnMut(Bytes) -> bool) -> usize {
    let piece = Bytes::from(vec![b'.'; PIECE]);
    let mut sent = 0;
    while sent < FAR_TOO_MUCH {
        // A pause of this length may also be the machine's; then it is merely "stuck" early.
        match tokio::time::timeout(Duration::from_millis(500), send(piece.clone())).await {
            Ok(true) => sent += PIECE,
            Ok(false) => panic!("nobody reads any more after {sent} bytes"),
            Err(_) => return sent,
        }
    }
    panic!("{sent} bytes were taken although nobody reads")
}

#[tokio::test]
async fn an_upload_reaches_the_origin_before_it_is_complete() {
    let first = Gate::new();
    let noted = first.clone();
    let origin = Origin::start(move |mut asked| {
        let noted = noted.clone();
        async move {
            let piece = asked
                .body
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap();
            noted.open();
            let rest = asked.body.collect().await.unwrap().to_bytes();
            Reply::ok([piece, rest].concat())
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let (ask, pieces) = gateway.client().ask(Method::POST, "/up").upload();
    let asking = tokio::spawn(ask.send());
    pieces.send("one ".into()).await.unwrap();
    first.pass().await;
    pieces.send("two".into()).await.unwrap();
    drop(pieces);
    assert_eq!(asking.await.unwrap().text(), "one two");
}

#[tokio::test]
async fn an_origin_that_does_not_read_stops_the_client() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::ok(asked.read().await.body.unwrap().len().to_string())
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let (ask, pieces) = gateway.client().ask(Method::POST, "/up").upload();
    let asking = tokio::spawn(ask.send());
    let sent = send_until_stuck(async |piece| pieces.send(piece).await.is_ok()).await;
    gate.open();
    drop(pieces);
    assert_eq!(asking.await.unwrap().text(), sent.to_string());
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_origin() {
    let (origin, pieces) = one_stream(|reply| reply).await;
    let gateway = Setup::new(&origin)
        .route("{name: big, upstream: origin, cache: off}")
        .start()
        .await;
    let client = gateway.client().uncached();
    let opening = tokio::spawn(async move { client.request("/big").open().await });
    assert!(pieces.send("head").await);
    let streaming = opening.await.unwrap();
    let sent = send_until_stuck(async |piece| pieces.send(piece).await).await;
    let reading = tokio::spawn(streaming.into_answer());
    pieces.finish().await;
    // A piece that was offered when it got stuck may have been taken or not.
    let got = reading.await.unwrap().unwrap().body.len();
    assert!(
        got >= sent + 4 && got <= sent + 4 + PIECE,
        "sent {sent}, got {got}"
    );
}

#[tokio::test]
async fn a_client_that_leaves_ends_a_stream_that_nobody_stores() {
    let (origin, pieces) = one_stream(|reply| reply).await;
    let gateway = Setup::new(&origin)
        .route("{name: live, upstream: origin, cache: off}")
        .start()
        .await;
    let client = gateway.client().uncached();
    let opening = tokio::spawn(async move { client.request("/live").open().await });
    assert!(pieces.send("head").await);
    drop(opening.await.unwrap());
    // A closed connection looks like a half-closed one until something is written to it.
    let piece = Bytes::from(vec![b'.'; PIECE]);
    let mut sent = 0;
    while within(
        "a piece to a client that left",
        SOON,
        pieces.send(piece.clone()),
    )
    .await
    {
        sent += PIECE;
        assert!(sent < FAR_TOO_MUCH, "{sent} bytes were taken for nobody");
    }
}

#[tokio::test]
async fn trailers_pass_in_http2() {
    let (origin, pieces) =
        one_stream(|reply| reply.header("content-type", "application/grpc")).await;
    let upstream = format!("{{targets: [\"{}\"], protocol: http2}}", origin.url());
    let gateway = Setup::new(&origin)
        .upstream("origin", &upstream)
        .start()
        .await;
    let ask = gateway
        .client_http2()
        .ask(Method::POST, "/pkg.Service/Call")
        .header("te", "trailers")
        .body("message");
    let asking = tokio::spawn(ask.send());
    pieces.send("answer").await;
    pieces.trailer("grpc-status", "0").await;
    pieces.finish().await;
    let answer = asking.await.unwrap();
    assert_eq!(answer.text(), "answer");
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    assert_eq!(origin.last().header("te"), "trailers");
}

#[tokio::test]
async fn trailers_pass_in_http1_to_a_client_that_takes_them() {
    let (origin, pieces) = one_stream(|reply| reply.header("trailer", "x-sum")).await;
    let gateway = Setup::new(&origin).start().await;
    let asking = tokio::spawn(
        gateway
            .client()
            .request("/")
            .header("te", "trailers")
            .send(),
    );
    pieces.send("answer").await;
    pieces.trailer("x-sum", "42").await;
    pieces.finish().await;
    let answer = asking.await.unwrap();
    assert_eq!(answer.trailers.expect("trailers")["x-sum"], "42");
}

#[tokio::test]
async fn expect_100_continue_gets_its_100_before_the_body() {
    let origin = Origin::pages(|seen| Reply::ok(seen.body.clone().unwrap())).await;
    let gateway = Setup::new(&origin).start().await;
    let mut raw = gateway.raw().await;
    raw.write("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.status, 100);
    raw.write("hello").await;
    assert_eq!(raw.head().await.status, 200);
    assert_eq!(origin.last().body.unwrap(), "hello");
}

#[tokio::test]
async fn a_body_that_the_origin_cuts_is_cut_for_the_client_too() {
    let (origin, pieces) = one_stream(|reply| reply).await;
    let gateway = Setup::new(&origin)
        .route("{name: big, upstream: origin, cache: off}")
        .start()
        .await;
    let client = gateway.client().uncached();
    let opening = tokio::spawn(async move { client.request("/").open().await });
    pieces.send("half").await;
    let streaming = opening.await.unwrap();
    pieces.cut();
    assert!(matches!(
        streaming.into_answer().await,
        Err(Failure::Cut { .. })
    ));
}

/// Guards against a connection that closes without a word: the head had come, the cut came
/// before it was written.
#[tokio::test]
async fn a_body_that_is_cut_at_once_leaves_its_head_and_what_had_come() {
    let origin = Origin::start(|_| async {
        let (reply, pieces) = Reply::stream();
        tokio::spawn(async move {
            pieces.send("half").await;
            pieces.cut();
        });
        reply.header("cache-control", "max-age=60")
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    for n in 0..100 {
        match gateway.client().request(&format!("/{n}")).try_send().await {
            Err(Failure::Cut { status, .. }) => assert_eq!(status, 200),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn sigterm_lets_a_response_under_way_finish() {
    let (origin, pieces) = one_stream(|reply| reply).await;
    let mut gateway = Setup::new(&origin).start().await;
    let client = gateway.client();
    let opening = tokio::spawn(async move { client.request("/").open().await });
    pieces.send("before ").await;
    let streaming = opening.await.unwrap();
    gateway.terminate();
    let address = gateway.address;
    e2e::wait::wait_for("the listener is closed", SOON, || async move {
        tokio::net::TcpStream::connect(address)
            .await
            .is_err()
            .then_some(())
    })
    .await;
    assert!(gateway.is_running(), "it left with a response under way");
    pieces.send("after").await;
    pieces.finish().await;
    assert_eq!(
        streaming.into_answer().await.unwrap().text(),
        "before after"
    );
    assert_eq!(gateway.ended(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let (origin, pieces) = one_stream(|reply| reply).await;
    let mut gateway = Setup::new(&origin)
        .top("server", "{threads: 1, drain_timeout: 500ms}")
        .start()
        .await;
    let client = gateway.client();
    let opening = tokio::spawn(async move { client.request("/").open().await });
    pieces.send("forever").await;
    let _streaming = opening.await.unwrap();
    gateway.terminate();
    // By the default it would take 30 s.
    gateway.ended(SOON / 2).await;
}

#[tokio::test]
async fn a_second_sigterm_ends_the_process_at_once() {
    let (origin, pieces) = one_stream(|reply| reply).await;
    let mut gateway = Setup::new(&origin)
        .top("server", "{threads: 1, drain_timeout: 1h}")
        .start()
        .await;
    let client = gateway.client();
    let opening = tokio::spawn(async move { client.request("/").open().await });
    pieces.send("forever").await;
    let _streaming = opening.await.unwrap();
    gateway.terminate();
    let drains = |line: &str| line.contains("stopping") || line.contains("signal");
    gateway.logged("the line of the first signal", drains).await;
    assert!(gateway.is_running(), "a response is under way");
    gateway.terminate();
    gateway.ended(SOON).await;
}

/// An origin whose whole page is this reply, with a trailer behind it, however often it is asked.
async fn with_trailer(announced: bool) -> (Origin, Gateway) {
    let origin = Origin::start(move |_| async move {
        let (reply, pieces) = Reply::stream();
        tokio::spawn(async move {
            pieces.send("page").await;
            pieces.trailer("x-sum", "42").await;
            pieces.finish().await;
        });
        let reply = reply.header("cache-control", "max-age=60");
        match announced {
            true => reply.header("trailer", "x-sum"),
            false => reply,
        }
    })
    .await;
    let upstream = format!("{{targets: [\"{}\"], protocol: http2}}", origin.url());
    let gateway = Setup::new(&origin)
        .upstream("origin", &upstream)
        .start()
        .await;
    (origin, gateway)
}

#[tokio::test]
async fn what_announces_trailers_is_passed_on_with_them_and_not_called_stored() {
    let (origin, gateway) = with_trailer(true).await;
    // While the key is marked, what follows does not wait for one that may be stored.
    for detail in ["trailers", "hit-for-miss"] {
        let ask = gateway.client_http2().ask(Method::GET, "/");
        let answer = ask.header("te", "trailers").send().await;
        assert_eq!(answer.text(), "page");
        assert_eq!(answer.cache().detail.as_deref(), Some(detail));
        assert!(!answer.header("cache-status").contains("stored"));
        assert_eq!(answer.trailers.unwrap()["x-sum"], "42");
    }
    assert_eq!(origin.count(), 2);
}

/// RFC 9111 §3.1: a cache may discard them.
#[tokio::test]
async fn trailers_that_nobody_announced_are_for_the_first_reader_and_the_page_is_stored() {
    let (origin, gateway) = with_trailer(false).await;
    let ask = || {
        let ask = gateway.client_http2().ask(Method::GET, "/");
        ask.header("te", "trailers").send()
    };
    let first = ask().await;
    assert!(first.header("cache-status").contains("stored"));
    assert_eq!(first.trailers.as_ref().unwrap()["x-sum"], "42");
    let second = ask().await;
    assert!(second.is_hit(), "{}", second.header("cache-status"));
    assert_eq!(second.text(), "page");
    assert!(second.trailers.is_none());
    assert_eq!(origin.count(), 1);
}
