//! `Expect: 100-continue` (RFC 9110 §10.1.1): a client that waits hears at once that it may go on,
//! and the origin, which has nothing left to answer, is not asked again.

use e2e::gateway::Gateway;
use e2e::h2raw::{End, Frame, H2, PREFACE, flag, frame, get, kind, post, setting, window};
use e2e::h3::{SecuredGateway, raw as h3};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};
use http::Method;

const WAITS: &[(&str, &str)] = &[("expect", "100-continue"), ("content-length", "5")];
/// `:status: 100`.
const CONTINUE: &[u8] = b"\x08\x03100";

async fn echo() -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/large" => Reply::ok(vec![b'x'; 1 << 20]),
        _ => Reply::ok(seen.body.clone().unwrap_or_default()),
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    (origin, gateway)
}

/// A client whose table of fields has this size.
async fn client(gateway: &Gateway, table: u32) -> H2 {
    let mut h2 = H2::silent(gateway.address).await;
    h2.write([PREFACE, &setting(1, table)].concat()).await;
    h2
}

/// The next head on any stream.
async fn head(h2: &mut H2) -> Frame {
    loop {
        let frame = h2.frame().await.expect("the connection lives");
        if frame.kind == kind::HEADERS {
            return frame;
        }
    }
}

async fn finishes(h2: &mut H2, stream: u32) {
    h2.write(frame(kind::DATA, flag::END_STREAM, stream, "hello"))
        .await;
    match h2.end_of(stream).await {
        End::Answered { status: 200, body } => assert_eq!(body, b"hello"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_of_http2_that_waits_hears_that_it_may_go_on() {
    let (origin, gateway) = echo().await;
    let mut h2 = client(&gateway, 4_096).await;
    for stream in [1, 3, 5] {
        h2.write(post(stream, "/", WAITS)).await;
        let interim = head(&mut h2).await;
        assert_eq!(
            (interim.stream, interim.flags),
            (stream, flag::END_HEADERS),
            "{interim:?}"
        );
        assert_eq!(interim.payload, CONTINUE);
        finishes(&mut h2, stream).await;
    }
    assert_eq!(origin.count(), 3);
    assert!(h2.lives().await);
}

#[tokio::test]
async fn it_stands_between_the_frames_of_other_answers() {
    let (_origin, gateway) = echo().await;
    let mut h2 = client(&gateway, 4_096).await;
    // The windows hold the large answers up, so that frames wait on the way out.
    let mut asked: Vec<u8> = (0..20).flat_map(|n| get(2 * n + 1, "/large")).collect();
    asked.extend((20..40).flat_map(|n| post(2 * n + 1, "/", WAITS)));
    h2.write(asked).await;
    let mut waiting: Vec<u32> = (20..40).map(|n| 2 * n + 1).collect();
    while !waiting.is_empty() {
        let head = head(&mut h2).await;
        if head.payload == CONTINUE {
            waiting.retain(|stream| *stream != head.stream);
        }
    }
    // Room for what the large answers have to send before.
    h2.write(window(0, 32 << 20)).await;
    finishes(&mut h2, 79).await;
}

#[tokio::test]
async fn a_client_with_a_smaller_table_sends_its_content_unasked() {
    let (_origin, gateway) = echo().await;
    let mut h2 = client(&gateway, 0).await;
    h2.write(post(1, "/", WAITS)).await;
    finishes(&mut h2, 1).await;
}

/// HTTP/1: the interim head, then the final one, on a connection of our own.
#[tokio::test]
async fn what_was_answered_here_is_not_asked_of_the_origin_over_http_1() {
    let (origin, gateway) = echo().await;
    let mut raw = gateway.raw().await;
    raw.write("POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.status, 100);
    raw.write("hello").await;
    assert_eq!(raw.head().await.status, 200);
    assert_eq!(raw.exactly(5).await, b"hello");
    assert_eq!(origin.last().header("expect"), "");
}

#[tokio::test]
async fn what_was_answered_here_is_not_asked_of_the_origin_over_http_2() {
    let (origin, gateway) = echo().await;
    let mut h2 = client(&gateway, 4_096).await;
    h2.write(post(1, "/", WAITS)).await;
    assert_eq!(head(&mut h2).await.payload, CONTINUE);
    finishes(&mut h2, 1).await;
    assert_eq!(origin.last().header("expect"), "");
}

#[tokio::test]
async fn what_was_answered_here_is_not_asked_of_the_origin_over_http_3() {
    let origin = Origin::pages(|seen| Reply::ok(seen.body.clone().unwrap_or_default())).await;
    let secured = SecuredGateway::start(Setup::new(&origin)).await;
    let raw = secured.raw().await;
    let more = WAITS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let asked = [raw.head("POST", "/"), more.collect()].concat();
    let mut stream = raw.stream(h3::headers(&asked)).await;
    let mut first = [0; 4];
    let interim = stream.receive.read_exact(&mut first);
    within("an interim answer", SOON, interim).await.unwrap();
    assert!(stream.write(h3::frame(h3::kind::DATA, b"hello")).await);
    stream.send.finish().unwrap();
    let rest = within("the answer", SOON, stream.receive.read_to_end(10_000));
    assert!(rest.await.unwrap().ends_with(b"hello"));
    assert_eq!(origin.last().header("expect"), "");
}

/// As nginx does: an origin that refuses an expectation has not read this one here, and whatever it
/// answers is its answer.
#[tokio::test]
async fn an_origin_that_answers_417_has_answered() {
    let origin = Origin::start(|_| async { Reply::status_only(417) }).await;
    let gateway = Setup::new(&origin).start().await;
    let client = gateway.client().uncached();
    let ask = client
        .ask(Method::POST, "/")
        .header("expect", "100-continue");
    assert_eq!(ask.body("hello").send().await.status, 417);
    assert_eq!(origin.count(), 1, "nothing is tried again");
    assert_eq!(origin.last().header("expect"), "");
}
