//! One request in the forms that protocols have for it: what cache and origin see is the same.

use e2e::gateway::Gateway;
use e2e::h2raw::{End, H2, flag, frame, headers, kind};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

async fn site() -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| {
        let lines = seen.headers.get_all("cookie").iter().count();
        let page = format!("{lines}: {}", seen.header("cookie"));
        Reply::fresh(page).header("vary", "cookie")
    })
    .await;
    let gateway = Setup::new(&origin)
        .policy("{cookies: ignore}")
        .start()
        .await;
    (origin, gateway)
}

/// A GET of `/` on a stream, with more fields, that has its end or has not.
fn get(stream: u32, flags: u8, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "x"),
    ];
    headers(stream, flags, &[&fields[..], more].concat())
}

async fn answer(h2: &mut H2, stream: u32) -> String {
    match h2.end_of(stream).await {
        End::Answered { status: 200, body } => String::from_utf8(body).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// RFC 9113 §8.2.3.
#[tokio::test]
async fn cookies_of_http2_are_one_line_for_variants_and_origin() {
    let (origin, gateway) = site().await;
    let mut h2 = H2::open(gateway.address).await;
    let pieces = [("cookie", "a=1"), ("cookie", "b=2")];
    h2.write(get(1, flag::END_STREAM, &pieces)).await;
    assert_eq!(answer(&mut h2, 1).await, "1: a=1; b=2");
    h2.write(get(3, flag::END_STREAM, &[("cookie", "a=1; b=2")]))
        .await;
    assert_eq!(answer(&mut h2, 3).await, "1: a=1; b=2");
    assert_eq!(origin.count(), 1, "one variant");
    h2.write(get(5, flag::END_STREAM, &[("cookie", "a=1")]))
        .await;
    assert_eq!(answer(&mut h2, 5).await, "1: a=1");
}

#[tokio::test]
async fn a_get_whose_body_is_empty_has_none() {
    let (origin, gateway) = site().await;
    gateway.client().request("/").host("x").send().await;
    let mut h2 = H2::open(gateway.address).await;
    let nothing = frame(kind::DATA, 0, 1, "");
    let end = frame(kind::DATA, flag::END_STREAM, 1, "");
    h2.write([get(1, 0, &[]), nothing, end].concat()).await;
    assert_eq!(answer(&mut h2, 1).await, "0: ");
    let mut raw = gateway.raw().await;
    raw.write("GET / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    let head = raw.head().await;
    assert!(head.header("cache-status").contains("hit"), "{}", head.text);
    assert_eq!(origin.count(), 1, "both are hits");
}

#[tokio::test]
async fn a_get_with_a_body_passes_the_cache_with_all_of_it() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.body.clone().unwrap_or_default())).await;
    let gateway = Setup::new(&origin).start().await;
    for _ in 0..2 {
        let mut raw = gateway.raw().await;
        raw.write("GET / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        raw.write("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").await;
        let head = raw.head().await;
        assert!(head.header("cache-status").contains("request-body"));
        assert_eq!(raw.exactly(3).await, b"abc");
    }
    assert_eq!(origin.count(), 2);
}

/// RFC 3986 §6.2.3, and names that are written in full.
#[tokio::test]
async fn one_host_has_one_key() {
    let (origin, gateway) = site().await;
    let client = gateway.client();
    for host in [
        "a.example",
        "A.example",
        "a.example.",
        "a.example:",
        "a.example.:80",
    ] {
        let answer = client.request("/").host(host).send().await;
        assert_eq!(answer.status, 200, "{host}");
        assert_eq!(origin.last().authority, "a.example", "{host}");
    }
    assert_eq!(origin.count(), 1);
}
