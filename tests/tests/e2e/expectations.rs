//! `Expect: 100-continue` over HTTP/2 (RFC 9110 §10.1.1): a client that waits hears at once
//! that it may go on.

use e2e::gateway::Gateway;
use e2e::h2raw::{End, Frame, H2, PREFACE, flag, frame, get, kind, post, setting, window};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

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
