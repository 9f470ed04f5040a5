//! Interim answers (1xx) of an origin over HTTP/3 (RFC 9110 §15.2, RFC 9114 §4.1).

use e2e::h3::SecuredGateway;
use e2e::h3::raw::{RawAnswer, RawEnd, RawH3, headers};
use e2e::setup::Setup;
use e2e::wait::{SOON, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
const FINAL: &str =
    "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\n\r\nfinal";

/// A gateway before an origin that answers each request with these bytes, piece by piece; it waits
/// for `go` after the first.
async fn gateway(pieces: Vec<String>, go: &'static Notify) -> SecuredGateway {
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
    SecuredGateway::start(Setup::default().upstream("origin", &target)).await
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
            // A gateway that is gone needs no more of it.
            if stream.write_all(piece.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

fn signal() -> &'static Notify {
    Box::leak(Box::default())
}

async fn asked(raw: &RawH3, path: &str) -> RawAnswer {
    match raw.ask(headers(&raw.get(path))).await {
        RawEnd::Answered(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn hints_reach_the_client_before_the_origin_has_its_answer_and_are_not_stored() {
    let go = signal();
    let secured = gateway(vec![HINT.to_owned(), FINAL.to_owned()], go).await;
    let raw = secured.raw().await;
    let mut stream = raw.stream(headers(&raw.get("/"))).await;
    stream.send.finish().unwrap();
    let mut first = [0; 3];
    let read = stream.receive.read_exact(&mut first);
    within("a hint before the answer", SOON, read)
        .await
        .unwrap();
    assert_eq!(first[0], 1, "a HEADERS frame");
    go.notify_one();
    let rest = stream.receive.read_to_end(10_000);
    let rest = within("the answer", SOON, rest).await.unwrap();
    assert!(rest.ends_with(b"final"));
    // What is stored is the answer alone.
    let answer = asked(&raw, "/").await;
    assert_eq!((answer.status, answer.body), (200, b"final".to_vec()));
    assert!(answer.interim.is_empty());
}

#[tokio::test]
async fn interim_and_final_answers_in_one_piece_come_in_order() {
    let hints = [HINT, "HTTP/1.1 100 Continue\r\n\r\n", HINT, FINAL].concat();
    let secured = gateway(vec![hints], signal()).await;
    let raw = secured.raw().await;
    for path in ["/one", "/two"] {
        let answer = asked(&raw, path).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"final"[..]));
        // 100 is each hop's own.
        assert_eq!(answer.interim.len(), 2, "{answer:?}");
        for hint in &answer.interim {
            assert_eq!(field(hint, ":status"), Some("103"));
            assert_eq!(field(hint, "link"), Some("</a.css>; rel=preload"));
            assert!(field(hint, "via").is_some());
            assert_eq!(field(hint, "alt-svc"), None);
        }
    }
}

/// Each request gets its own, though they share a connection.
#[tokio::test]
async fn a_flood_of_hints_is_bounded_and_the_answer_comes() {
    let long = format!(
        "HTTP/1.1 103 Early Hints\r\nlink: <{}>\r\n\r\n",
        "x".repeat(4_000)
    );
    let secured = gateway(vec![[&long.repeat(12), FINAL].concat()], signal()).await;
    let raw = secured.raw().await;
    let paths = ["/a", "/b", "/c"].map(|path| asked(&raw, path));
    for answer in futures_util::future::join_all(paths).await {
        assert_eq!((answer.status, answer.body), (200, b"final".to_vec()));
        let count = answer.interim.len();
        assert!((1..=8).contains(&count), "{count} of 12");
    }
}
