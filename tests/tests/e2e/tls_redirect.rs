//! The way from HTTP to HTTPS: redirects, and Strict-Transport-Security (edge.md, TLS14, TLS15).

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::h2raw::{End, H2, flag, headers};
use e2e::origin::Origin;
use e2e::raw::{RawConnection, RawHead};
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::tls::authority::Authority;
use e2e::tls::site::HttpsSite;
use http::{Method, Request};

const FIELD: &str = "strict-transport-security";

/// An origin and a gateway whose first listener sends clients to HTTPS. There is a route for
/// `routed.test` and `*.shop.test`, and a certificate for `certified.test`.
async fn redirecting(redirect: &str, more: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let certificate = Authority::new("servers").server(&[
        "certified.test",
        "*.wild.test",
        "192.0.2.7",
        "2001:db8::7",
    ]);
    let https = format!(
        "{{address: \"127.0.0.1:0\", {more} tls: {{certificates: [{{cert: a.crt, key: a.key}}]}}}}"
    );
    let clear = format!("{{address: \"127.0.0.1:0\", redirect_to_https: {redirect}}}");
    let gateway = Setup::new(&origin)
        .pair("a", &certificate)
        .top("listeners", &format!("[{clear}, {https}]"))
        .top("purge_method", "{enabled: true, allow: [127.0.0.0/8]}")
        .route("{name: routed, match: {host: [routed.test, \"*.shop.test\"]}, upstream: origin}")
        .route("{name: rest, upstream: origin}")
        .start()
        .await;
    (origin, gateway)
}

async fn ask(gateway: &Gateway, method: Method, host: &str, target: &str) -> Answer {
    let client = gateway.client().uncached();
    client.ask(method, target).host(host).send().await
}

/// Answers that no service makes: to a head that is too slow, and to what is no request.
#[tokio::test]
async fn hsts_is_on_refusals_that_nobody_but_the_listener_makes() {
    let further = |setup: Setup| {
        setup
            .listener("hsts", "{max_age: 1d}")
            .listener("limits", "{header_timeout: 1s}")
    };
    let site = HttpsSite::with("", further, |_| Reply::fresh("page")).await;
    let told = |head: &RawHead| {
        let text = head.text.to_lowercase();
        text.matches("strict-transport-security: max-age=86400")
            .count()
    };
    let mut looked_at = 0;
    for (sent, status) in [
        ("GET / HTTP/1.1\r\nhost: a.ex", 408),
        ("\u{1}\u{2} / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/9.9\r\nhost: a.example\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a.example\r\na b: c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
    ] {
        let mut raw = site.client().connect().await.unwrap().raw();
        raw.write(sent).await;
        let head = raw.head().await;
        assert_eq!(head.status, status, "{sent:?}");
        assert_eq!(told(&head), 1, "{sent:?}: {}", head.text);
        looked_at += 1;
    }
    assert_eq!(looked_at, 5);
    let mut clear = site.gateway.raw().await;
    clear.write("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(told(&clear.head().await), 0, "in clear text");
}

#[tokio::test]
async fn clients_are_sent_to_https_of_the_same_host_and_target() {
    let (origin, gateway) = redirecting("on", "").await;
    for (host, target, location) in [
        ("routed.test", "/", "https://routed.test/"),
        ("a.shop.test", "/a/b?c=d&e", "https://a.shop.test/a/b?c=d&e"),
        ("certified.test", "/%20x", "https://certified.test/%20x"),
        (
            "x.wild.test",
            "//evil.test/",
            "https://x.wild.test//evil.test/",
        ),
        ("routed.test:8080", "/", "https://routed.test/"),
        ("192.0.2.7:80", "/x", "https://192.0.2.7/x"),
        ("[2001:db8::7]", "/x", "https://[2001:db8::7]/x"),
    ] {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
            let answer = ask(&gateway, method.clone(), host, target).await;
            assert_eq!(answer.status, 308, "{method} {host}");
            assert_eq!(answer.header("location"), location, "{method}");
            assert_eq!(answer.header(FIELD), "", "never over clear text");
        }
    }
    // The same again over HTTP/2.
    let mut h2 = H2::open(gateway.address).await;
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "routed.test"),
        (":path", "/h2"),
    ];
    h2.write(headers(1, flag::END_STREAM, &fields)).await;
    let answered = h2.end_of(1).await;
    assert!(
        matches!(answered, End::Answered { status: 308, .. }),
        "{answered:?}"
    );
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_stored() {
    let (origin, gateway) = redirecting("on", "").await;
    for _ in 0..2 {
        let answer = ask(&gateway, Method::GET, "certified.test", "/page").await;
        assert_eq!(answer.status, 308);
        assert!(!answer.has("cache-status") && !answer.has("age"));
    }
    let https = TlsClient::new(gateway.addresses()[1], "certified.test");
    let answer = https.http().await.get("certified.test", "/page").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "page"));
    let answer = ask(&gateway, Method::GET, "certified.test", "/page").await;
    assert_eq!(answer.status, 308, "also when the page is stored");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn port_and_status_are_those_of_the_configuration() {
    let (_origin, gateway) = redirecting("{port: 8443, status: 301}", "").await;
    for (method, status) in [
        (Method::GET, 301),
        (Method::HEAD, 301),
        // Some clients would make a GET of it.
        (Method::POST, 308),
        (Method::PUT, 308),
    ] {
        let answer = ask(&gateway, method.clone(), "routed.test", "/x").await;
        assert_eq!(answer.status, status, "{method}");
        assert_eq!(answer.header("location"), "https://routed.test:8443/x");
    }
}

#[tokio::test]
async fn a_host_that_nobody_knows_is_no_target() {
    let (origin, gateway) = redirecting("on", "").await;
    for host in [
        "evil.test",
        "routed.test.evil.test",
        "shop.test",
        "a.b.wild.test",
        "evil.test:80",
        "127.0.0.1",
    ] {
        let answer = ask(&gateway, Method::GET, host, "/").await;
        assert!(
            [400, 404].contains(&answer.status.as_u16()),
            "{host}: {}",
            answer.status
        );
        assert!(!answer.has("location"), "{host}");
    }
    for head in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: \r\n\r\n",
        "GET / HTTP/1.1\r\nhost: routed.test@evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: evil.test/routed.test\r\n\r\n",
        "GET http://evil.test/ HTTP/1.1\r\nhost: routed.test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: routed.test\r\n\r\n",
    ] {
        let mut raw = RawConnection::open(gateway.address).await;
        raw.write(head).await;
        let answer = raw.head().await;
        assert!(
            [400, 404].contains(&answer.status),
            "{head}: {}",
            answer.text
        );
        assert_eq!(answer.header("location"), "", "{head}");
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn challenges_and_purges_are_served_in_clear_text() {
    let (origin, gateway) = redirecting("on", "").await;
    let path = "/.well-known/acme-challenge/token";
    let answer = ask(&gateway, Method::GET, "routed.test", path).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "page"));
    assert_eq!(origin.count_of(path), 1);
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let answer = ask(&gateway, purge, "routed.test", path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    ask(&gateway, Method::GET, "routed.test", path).await;
    assert_eq!(origin.count_of(path), 2, "it was purged");
    for near in [
        "/.well-known/acme-challenge",
        "/.well-known/",
        "/x/.well-known/acme-challenge/",
    ] {
        let answer = ask(&gateway, Method::GET, "routed.test", near).await;
        assert_eq!(answer.status, 308, "{near}");
    }
}

const HSTS: &str = "hsts: {max_age: 365d, include_subdomains: true, preload: true},";
const VALUE: &str = "max-age=31536000; includeSubDomains; preload";

#[tokio::test]
async fn the_field_stands_on_everything_over_tls_also_on_errors() {
    let (origin, gateway) = redirecting("off", HSTS).await;
    let name = "certified.test";
    for protocol in ["http/1.1", "h2"] {
        let client = TlsClient::new(gateway.addresses()[1], name).speaking(&[protocol]);
        let mut https = client.http().await;
        let long = format!("/{}", "x".repeat(20 << 10));
        let cases = [
            (name, Request::get("/page"), 200),
            (name, Request::get("/page"), 200),
            (name, Request::head("/page"), 200),
            ("other.test", Request::get("/"), 421),
            (name, Request::get(long), 414),
            (name, Request::get("/%00"), 400),
        ];
        for (host, request, status) in cases {
            let what = format!("{request:.60?}");
            // A bad request ends a connection of HTTP/1.
            if !https.is_open() {
                https = client.http().await;
            }
            let answer = https.send(host, request).await;
            assert_eq!(answer.status, status, "{protocol} {what}");
            assert_eq!(answer.header(FIELD), VALUE, "{protocol} {what}");
        }
    }
    assert_eq!(origin.count(), 1);
    // The page that is stored now has it over TLS alone.
    let answer = ask(&gateway, Method::GET, name, "/page").await;
    assert!(!answer.has(FIELD), "{:?}", answer.headers);
}

#[tokio::test]
async fn an_origin_that_fails_does_not_keep_it_away() {
    let (mut origin, gateway) = redirecting("off", HSTS).await;
    origin.stop().await;
    let client = TlsClient::new(gateway.addresses()[1], "certified.test");
    let answer = client.http().await.get("certified.test", "/").await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
    assert_eq!(answer.header(FIELD), VALUE);
}

#[tokio::test]
async fn the_field_of_an_origin_counts_and_there_are_never_two() {
    let (origin, gateway) = redirecting("off", "hsts: {max_age: 1h},").await;
    origin.behave(|asked| async move {
        match asked.seen.path_only() {
            "/own" => Reply::fresh("own").header(FIELD, "max-age=0"),
            _ => Reply::fresh("page"),
        }
    });
    let client = TlsClient::new(gateway.addresses()[1], "certified.test");
    let mut https = client.http().await;
    for (path, value) in [("/own", "max-age=0"), ("/page", "max-age=3600")] {
        for hit in [false, true] {
            let answer = https.get("certified.test", path).await;
            let values: Vec<_> = answer.headers.get_all(FIELD).iter().collect();
            assert_eq!(values, [value], "{path}");
            assert_eq!(answer.is_hit(), hit, "{path}");
        }
    }
}

/// The scheme is part of the key: what clear text has stored is not what TLS answers, and the
/// other way round.
#[tokio::test]
async fn a_clear_text_entry_is_another_one() {
    let (origin, gateway) = redirecting("off", HSTS).await;
    let answer = ask(&gateway, Method::GET, "certified.test", "/page").await;
    assert!(answer.cache().stored && !answer.has(FIELD));
    let client = TlsClient::new(gateway.addresses()[1], "certified.test");
    let answer = client.http().await.get("certified.test", "/page").await;
    assert!(answer.cache().stored, "{:?}", answer.headers);
    assert_eq!(answer.header(FIELD), VALUE);
    assert_eq!(origin.count(), 2);
}
