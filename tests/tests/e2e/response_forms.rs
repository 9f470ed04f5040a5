//! What origins write in odd ways, and what the gateway says in its own words.

use e2e::attack::origin::Sees;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::rogue::{Act, After, Play, Rogue};
use e2e::setup::Setup;

const ODD: &[Play] = &[
    Play {
        name: "spaces",
        sees: Sees::Whole(200, "ok"),
        act: Act::Say(
            b"HTTP/1.1 200 OK\r\nX-One : 1\r\nCache-Control\t: max-age=60\r\nContent-Length : 2\r\n\r\nok",
            After::Keep,
        ),
    },
    Play {
        name: "latin1",
        sees: Sees::Whole(200, "ok"),
        act: Act::Say(
            b"HTTP/1.1 200 Schlie\xdflich\r\nContent-Length: 2\r\n\r\nok",
            After::Keep,
        ),
    },
];

/// RFC 9112 §5.1, §4.
#[tokio::test]
async fn spaces_before_a_colon_and_reasons_in_latin1_pass() {
    let rogue = Rogue::start(ODD).await;
    let origin = Origin::pages(|_| Reply::ok("")).await;
    let upstream = format!("{{targets: [\"{}\"]}}", rogue.url());
    let gateway = Setup::new(&origin)
        .upstream("origin", &upstream)
        .start()
        .await;
    let client = gateway.client();
    for _ in 0..2 {
        let spaced = client.get("/spaces").await;
        assert_eq!(spaced.status, 200);
        assert_eq!((spaced.header("x-one"), spaced.text()), ("1", "ok"));
    }
    assert_eq!(rogue.count_of("/spaces"), 1, "its lifetime is read");
    assert_eq!(client.get("/latin1").await.text(), "ok");
}

/// RFC 9110 §15.5.22.
#[tokio::test]
async fn a_426_says_which_protocol_is_required() {
    let origin = Origin::pages(|_| {
        Reply::status_only(426)
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let mut raw = gateway.raw().await;
    raw.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let head = raw.head().await;
    assert_eq!((head.status, head.header("upgrade")), (426, "websocket"));
    assert_eq!(head.header("connection"), "upgrade");
    let answer = gateway.client_http2().get("/").await;
    assert_eq!(answer.status, 426);
    assert!(!answer.has("upgrade"), "HTTP/2 has no such field");
}

#[tokio::test]
async fn an_error_of_ours_says_its_own_status() {
    let origin = Origin::pages(|_| Reply::ok("")).await;
    let gateway = Setup::new(&origin)
        .listener("limits", "{max_body_bytes: 10, max_uri_bytes: 100}")
        .start()
        .await;
    let client = gateway.client().uncached();
    let long = format!("/{}", "a".repeat(200));
    let (sized, upload) = client.ask(http::Method::POST, "/").upload();
    let sending = async {
        // Refused in the middle.
        let _ = upload.send("far more than ten bytes".into()).await;
        drop(upload);
    };
    let (grown, ()) = tokio::join!(sized.send(), sending);
    for answer in [
        client.get(&long).await,
        client.post("/", "far more than ten bytes").await,
        grown,
    ] {
        let status = answer.status.as_u16();
        assert!(status >= 400, "{status}");
        assert!(
            answer.text().starts_with(&format!("{status} ")),
            "{}",
            answer.text()
        );
    }
}

/// What was stale when it came is kept for validation, and has no time to live.
#[tokio::test]
async fn what_is_stale_on_arrival_has_no_time_to_live() {
    let origin = Origin::pages(|_| {
        Reply::ok("page")
            .header("cache-control", "max-age=10")
            .header("age", "100")
            .header("etag", "\"a\"")
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let answer = gateway.client().get("/").await;
    assert_eq!(
        answer.cache().ttl,
        None,
        "{}",
        answer.header("cache-status")
    );
}
