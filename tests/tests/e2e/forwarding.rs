//! Fields that end at a hop, fields that a proxy adds (RFC 9110 §7.6, RFC 7239).

use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::{Setup, site};

async fn seen_after(listener: (&str, &str), head: &str) -> Seen {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .listener(listener.0, listener.1)
        .start()
        .await;
    let mut raw = gateway.raw().await;
    raw.write(format!(
        "GET /p HTTP/1.1\r\nhost: shop.example\r\n{head}\r\n"
    ))
    .await;
    assert_eq!(raw.head().await.status, 200);
    origin.last()
}

const NO_TRUST: (&str, &str) = ("trusted_proxies", "[]");
const TRUST: (&str, &str) = ("trusted_proxies", "[\"127.0.0.0/8\"]");

#[tokio::test]
async fn hop_by_hop_fields_of_a_request_end_here() {
    let seen = seen_after(
        NO_TRUST,
        "connection: x-private, keep-alive\r\nx-private: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: keep-alive\r\nte: gzip\r\nx-public: 1\r\n",
    )
    .await;
    for name in ["x-private", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(seen.header(name), "", "{name}");
    }
    assert_eq!(seen.header("x-public"), "1");
}

#[tokio::test]
async fn fields_that_matter_for_safety_cannot_be_removed_through_connection() {
    let seen = seen_after(
        NO_TRUST,
        "connection: authorization, cookie, host, x-forwarded-for, close\r\nauthorization: Basic eA==\r\ncookie: a=b\r\n",
    )
    .await;
    assert_eq!(seen.header("authorization"), "Basic eA==");
    assert_eq!(seen.header("cookie"), "a=b");
    assert_eq!(seen.authority, "shop.example");
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_response_end_here_and_are_not_stored() {
    let (origin, gateway) = site("{}", |_| {
        Reply::fresh("x")
            .header("connection", "x-hop, keep-alive")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("x-end", "1")
    })
    .await;
    for _ in 0..2 {
        let answer = gateway.client().get("/").await;
        assert!(
            !answer.has("x-hop") && answer.header("x-end") == "1",
            "{:?}",
            answer.headers
        );
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn forwarding_fields_from_strangers_are_replaced() {
    let seen = seen_after(
        NO_TRUST,
        "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil.example\r\n\
         forwarded: for=6.6.6.6;proto=https\r\nx-original-url: /admin\r\nx-rewrite-url: /admin\r\n\
         x-http-method-override: DELETE\r\n",
    )
    .await;
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "http");
    assert_eq!(seen.header("x-forwarded-host"), "shop.example");
    assert!(
        !seen.header("forwarded").contains("6.6.6.6")
            && !seen.header("forwarded").contains("https")
    );
    for name in ["x-original-url", "x-rewrite-url", "x-http-method-override"] {
        assert_eq!(seen.header(name), "", "{name}");
    }
}

#[tokio::test]
async fn forwarding_fields_from_trusted_proxies_are_continued() {
    let seen = seen_after(
        TRUST,
        "x-forwarded-for: 203.0.113.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: www.example\r\n",
    )
    .await;
    assert_eq!(seen.header("x-forwarded-for"), "203.0.113.7, 127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "https");
    // It is not part of the key, so the one that is stands in its place.
    assert_eq!(seen.header("x-forwarded-host"), "shop.example");
}

#[tokio::test]
async fn via_is_appended_in_both_directions() {
    let (origin, gateway) = site("{}", |_| Reply::fresh("x").header("via", "1.1 behind")).await;
    let answer = gateway
        .client()
        .request("/")
        .header("via", "1.0 before")
        .send()
        .await;
    let via = |values: http::header::GetAll<'_, http::HeaderValue>| {
        values
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (up, down) = (
        via(origin.last().headers.get_all("via")),
        via(answer.headers.get_all("via")),
    );
    assert!(up.starts_with("1.0 before, 1.1 lamina"), "{up}");
    assert!(down.starts_with("1.1 behind, 1.1 lamina"), "{down}");
}

#[tokio::test]
async fn the_clients_host_is_kept_unless_the_upstream_says_otherwise() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let own = format!("{{targets: [\"{}\"], host_header: upstream}}", origin.url());
    let gateway = Setup::new(&origin)
        .upstream("own", &own)
        .route("{name: own, match: {path: /own}, upstream: own}")
        .route("{name: rest, upstream: origin}")
        .start()
        .await;
    gateway
        .client()
        .request("/")
        .host("shop.example")
        .send()
        .await;
    assert_eq!(origin.last().authority, "shop.example");
    gateway
        .client()
        .request("/own")
        .host("shop.example")
        .send()
        .await;
    assert_eq!(origin.last().authority, origin.address().to_string());
}

#[tokio::test]
async fn nothing_is_added_to_vary_and_nothing_re_compressed() {
    let (_origin, gateway) = site("{}", |_| {
        Reply::fresh("not really gzip")
            .header("content-encoding", "gzip")
            .header("vary", "Accept-Encoding")
    })
    .await;
    for _ in 0..2 {
        let answer = gateway
            .client()
            .request("/")
            .header("accept-encoding", "gzip")
            .send()
            .await;
        assert_eq!(answer.text(), "not really gzip");
        assert_eq!(answer.header("content-encoding"), "gzip");
        assert_eq!(answer.header("vary"), "Accept-Encoding");
    }
}
