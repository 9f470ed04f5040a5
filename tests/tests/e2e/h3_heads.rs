//! Heads over HTTP/3: what the origin sees of a request, what is refused by an answer, and how
//! clients of the other protocols are told of HTTP/3.

use e2e::gate::Gate;
use e2e::h3::raw::{RawEnd, code, frame, frame_head, headers, kind};
use e2e::h3::tcp::TcpAsk;
use e2e::h3::{NAME, OTHER_NAME, SecuredGateway};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};
use http::{Method, Version};

async fn limited(limits: &str) -> (Origin, SecuredGateway) {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let setup = Setup::new(&origin).listener("limits", limits);
    let secured = SecuredGateway::start(setup).await;
    (origin, secured)
}

fn over_tcp(version: Version, target: &str) -> TcpAsk<'_> {
    TcpAsk {
        version,
        name: NAME,
        host: NAME,
        target,
    }
}

#[tokio::test]
async fn the_origin_sees_who_asked_and_how() {
    let (origin, secured) = limited("{}").await;
    let client = secured.client().await;
    client.get("/a%2Fb;c=1//d?x=1&&y=%20").await;
    let seen = origin.last();
    assert_eq!(seen.path, "/a%2Fb;c=1//d?x=1&&y=%20");
    assert_eq!(seen.authority, NAME);
    assert_eq!(seen.header("via"), "3 lamina");
    assert_eq!(seen.header("x-forwarded-proto"), "https");
    assert_eq!(seen.header("x-forwarded-host"), NAME);
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    let answer = client.get("/via").await;
    assert_eq!(answer.header("via"), "1.1 lamina");
}

/// `Host` is there for routes and keys, whichever way the client said it (RFC 9114 §4.3.1).
#[tokio::test]
async fn host_is_made_from_authority() {
    let shop =
        Origin::pages(|seen| Reply::fresh(format!("shop for {}", seen.header("host")))).await;
    let other =
        Origin::pages(|seen| Reply::fresh(format!("other for {}", seen.header("host")))).await;
    let setup = Setup::new(&shop)
        .upstream("second", &format!("\"{}\"", other.url()))
        .route(&format!(
            "{{name: second, match: {{host: {OTHER_NAME}}}, upstream: second}}"
        ))
        .route("{name: first, upstream: origin}");
    let secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    for round in ["miss", "hit"] {
        let asked = |host: &str| client.request("/").host(host).send();
        assert_eq!(
            asked(NAME).await.text(),
            format!("shop for {NAME}"),
            "{round}"
        );
        assert_eq!(
            asked(OTHER_NAME).await.text(),
            format!("other for {OTHER_NAME}"),
            "{round}"
        );
    }
    assert_eq!((shop.count(), other.count()), (1, 1));
    let raw = secured.raw().await;
    let start = [(":method", "GET"), (":scheme", "https"), (":path", "/")];
    for more in [
        &[("host", OTHER_NAME)][..],
        &[(":authority", OTHER_NAME)],
        &[(":authority", OTHER_NAME), ("host", OTHER_NAME)],
    ] {
        match raw.ask(headers(&[&start[..], more].concat())).await {
            RawEnd::Answered(answer) => {
                assert_eq!(
                    answer.body,
                    format!("other for {OTHER_NAME}").as_bytes(),
                    "{more:?}"
                );
            }
            end => panic!("{more:?}: {end:?}"),
        }
    }
    assert_eq!(other.count(), 1, "all of them are one page");
    let neither = raw.ask(headers(&start)).await;
    let refused = neither == RawEnd::Reset(code::MESSAGE) || neither.status() == Some(400);
    assert!(refused, "neither authority nor Host: {neither:?}");
}

/// RFC 9114 §4.2.1: crumbs of `Cookie` are one field for everybody else.
#[tokio::test]
async fn crumbs_of_a_cookie_become_one_field() {
    let (origin, secured) = limited("{}").await;
    let raw = secured.raw().await;
    let crumbs = [
        ("cookie", "a=1"),
        ("x-between", "1"),
        ("cookie", "b=2"),
        ("cookie", "c=3"),
    ];
    let crumbs = crumbs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let fields = [raw.get("/"), crumbs.to_vec()].concat();
    assert_eq!(raw.ask(headers(&fields)).await.status(), Some(200));
    let seen = origin.last();
    let cookies: Vec<_> = seen.headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}

#[tokio::test]
async fn fields_that_are_too_many_or_too_long_are_431_and_the_connection_lives() {
    let (origin, secured) = limited("{max_headers: 20, max_header_bytes: 16KiB}").await;
    let raw = secured.raw().await;
    let with = |more: Vec<(String, String)>| headers(&[raw.get("/"), more].concat());
    let many = |n| (0..n).map(|i| (format!("x-{i}"), "1".to_owned())).collect();
    let long = |n| vec![("x-long".to_owned(), "a".repeat(n))];
    // A reference of one octet is a field: `:method GET` is the 17th entry of the static table,
    // and `accept: */*` the 29th.
    let indexed = |n: usize| {
        let head = [0xd1, 0xd7, 0xc1];
        frame(
            kind::HEADERS,
            [
                &[0, 0][..],
                &head,
                &[0x50, 9],
                NAME.as_bytes(),
                &vec![0xdd; n],
            ]
            .concat(),
        )
    };
    for (what, bytes, status) in [
        ("10 fields", with(many(10)), 200),
        ("25 fields", with(many(25)), 431),
        ("8 KiB", with(long(8 << 10)), 200),
        ("16 KiB", with(long(16 << 10)), 431),
        ("60 KiB", with(long(60 << 10)), 431),
        ("10 octets of references", indexed(10), 200),
        ("100 octets of references", indexed(100), 431),
        ("16,000 octets of references", indexed(16_000), 431),
        (
            "a head of 1 GiB that never comes",
            frame_head(kind::HEADERS, 1 << 30),
            431,
        ),
    ] {
        assert_eq!(raw.ask(bytes).await.status(), Some(status), "{what}");
    }
    assert_eq!(origin.count(), 1, "the answers of 200 are one page");
    // Each counts 32 octets more than its text.
    let (origin, secured) = limited("{max_headers: 1000, max_header_bytes: 16KiB}").await;
    let raw = secured.raw().await;
    assert_eq!(raw.ask(indexed(60)).await.status(), Some(200));
    assert_eq!(
        raw.ask(indexed(500)).await.status(),
        Some(431),
        "500 fields of 43 octets each"
    );
    assert_eq!(origin.count(), 1);
}

/// What is not read of a refused request is stopped without an error (RFC 9114 §4.1): it must not
/// look as if nothing was done, which would make the client ask again.
#[tokio::test]
async fn a_refusal_stops_the_rest_of_the_request_without_an_error() {
    let (_origin, secured) = limited("{max_body_bytes: 1KiB, header_timeout: 1s}").await;
    let raw = secured.raw().await;
    let long = raw.head("POST", "/");
    let long = [long, vec![("content-length".to_owned(), "2000".to_owned())]].concat();
    let cases = [
        (
            "a head that is too long",
            frame_head(kind::HEADERS, 1 << 30),
            431,
        ),
        ("content that is too long", headers(&long), 413),
        (
            "a head that does not come",
            headers(&long)[..9].to_vec(),
            408,
        ),
    ];
    for (what, bytes, status) in cases {
        let mut stream = raw.stream(bytes).await;
        assert_eq!(stream.read_end().await.status(), Some(status), "{what}");
        assert_eq!(stream.stopped().await, Some(code::NO_ERROR), "{what}");
    }
    assert!(raw.answers("/").await);
}

#[tokio::test]
async fn what_is_refused_is_refused_by_an_answer() {
    let origin = Origin::pages(|_| Reply::ok("x").header("cache-control", "no-store")).await;
    let setup = Setup::new(&origin)
        .listener("limits", "{max_uri_bytes: 1KiB, max_body_bytes: 1KiB}")
        .route("{name: only, match: {path: /only/*}, upstream: origin}");
    let secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    assert_eq!(client.get("/other").await.status, 404);
    assert_eq!(
        client
            .get(&format!("/only/{}", "a".repeat(2_000)))
            .await
            .status,
        414
    );
    let ask = || client.ask(Method::POST, "/only/x");
    assert_eq!(
        ask()
            .header("content-length", "1000")
            .body(vec![0; 1_000])
            .send()
            .await
            .status,
        200
    );
    assert_eq!(
        ask()
            .header("content-length", "2000")
            .body(vec![0; 2_000])
            .send()
            .await
            .status,
        413
    );
    assert_eq!(
        ask()
            .body(vec![0; 600])
            .body(vec![0; 600])
            .send()
            .await
            .status,
        413
    );
    let answer = client.request("/only/x").host("unknown.test").send().await;
    assert_eq!(answer.status, 421);
    assert!(!answer.has("alt-svc"));
    let raw = secured.raw().await;
    let with_path = |path: &str| headers(&raw.get(path));
    assert_eq!(raw.ask(with_path("/only/x#part")).await.status(), Some(400));
    assert_eq!(raw.ask(with_path("/only/x")).await.status(), Some(200));
    let connect = [(":method", "CONNECT"), (":authority", "shop.test:443")];
    assert_eq!(raw.ask(headers(&connect)).await.status(), Some(501));
    let malformed = [
        (":method", "CONNECT"),
        (":authority", "shop.test:443"),
        (":scheme", "https"),
        (":path", "/"),
    ];
    assert_eq!(
        raw.ask(headers(&malformed)).await,
        RawEnd::Reset(code::MESSAGE)
    );
    assert!(raw.answers("/only/x").await);
}

#[tokio::test]
async fn a_head_or_content_that_does_not_come_is_408_and_the_connection_lives() {
    let (origin, secured) = limited("{header_timeout: 1s, body_timeout: 1s}").await;
    let raw = secured.raw().await;
    let get = headers(&raw.get("/"));
    for bytes in [&get[..0], &get[..1], &get[..10]] {
        let stream = raw.stream(bytes).await;
        // A stream of which nothing came is not known to the gateway.
        if !bytes.is_empty() {
            assert_eq!(
                stream.end().await.status(),
                Some(408),
                "{} octets",
                bytes.len()
            );
        }
    }
    let post = [
        raw.head("POST", "/"),
        vec![("content-length".to_owned(), "5".to_owned())],
    ]
    .concat();
    let begun = [headers(&post), frame(kind::DATA, b"hel")].concat();
    assert_eq!(
        raw.stream(begun).await.end().await.status(),
        Some(408),
        "content"
    );
    assert!(raw.answers("/").await);
    assert!(origin.count_of("/") <= 2);
}

/// A client that waits for `100 Continue` before it sends its content gets it at once.
#[tokio::test]
async fn expect_100_continue_is_answered_before_the_content() {
    let origin = Origin::pages(|seen| Reply::ok(seen.body.clone().unwrap())).await;
    let secured = SecuredGateway::start(Setup::new(&origin)).await;
    let raw = secured.raw().await;
    let more = [("expect", "100-continue"), ("content-length", "5")];
    let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut stream = raw
        .stream(headers(&[raw.head("POST", "/"), more.to_vec()].concat()))
        .await;
    let mut first = [0; 4];
    within(
        "an interim answer",
        SOON / 3,
        stream.receive.read_exact(&mut first),
    )
    .await
    .unwrap();
    assert_eq!(first[0], 1, "a HEADERS frame");
    assert!(stream.write(frame(kind::DATA, b"hello")).await);
    stream.send.finish().unwrap();
    let rest = within("the answer", SOON, stream.receive.read_to_end(10_000))
        .await
        .unwrap();
    assert!(rest.ends_with(b"hello"));
}

#[tokio::test]
async fn clients_of_the_other_protocols_are_told_of_http3() {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/own" => Reply::fresh("x").header("alt-svc", "h2=\"elsewhere:1\""),
        _ => Reply::fresh("x"),
    })
    .await;
    let secured = SecuredGateway::start(Setup::new(&origin)).await;
    let told = format!("h3=\":{}\"; ma=86400", secured.address().port());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for target in ["/", "/", "/own", "/own"] {
            let answer = secured.ask_over_tcp(over_tcp(version, target)).await;
            let fields: Vec<_> = answer.headers.get_all("alt-svc").iter().collect();
            assert_eq!(fields, [&told], "{version:?} {target}");
        }
        let ask = TcpAsk {
            host: "unknown.test",
            ..over_tcp(version, "/")
        };
        let misdirected = secured.ask_over_tcp(ask).await;
        assert_eq!(misdirected.status, 421);
        assert!(!misdirected.has("alt-svc"), "{version:?}");
    }
    let client = secured.client().await;
    for target in ["/", "/own", "/own"] {
        assert!(!client.get(target).await.has("alt-svc"), "HTTP/3 {target}");
    }
    let setup = Setup::new(&origin).listener("alt_svc", "{port: 443, max_age: 1h}");
    let secured = SecuredGateway::start(setup).await;
    let answer = secured.ask_over_tcp(over_tcp(Version::HTTP_2, "/")).await;
    assert_eq!(answer.header("alt-svc"), "h3=\":443\"; ma=3600");
    let setup = Setup::new(&origin).listener("alt_svc", "{max_age: 0s}");
    let secured = SecuredGateway::start(setup).await;
    for target in ["/", "/own"] {
        let answer = secured
            .ask_over_tcp(over_tcp(Version::HTTP_2, target))
            .await;
        assert!(!answer.has("alt-svc"), "{target}");
    }
}

/// In a drain clients must forget that there is HTTP/3 here (RFC 7838 §3).
#[tokio::test]
async fn a_drain_clears_what_clients_were_told() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::fresh("x")
        }
    })
    .await;
    let secured = std::sync::Arc::new(SecuredGateway::start(Setup::new(&origin)).await);
    let asking = [Version::HTTP_11, Version::HTTP_2].map(|version| {
        let secured = std::sync::Arc::clone(&secured);
        let target = if version == Version::HTTP_2 {
            "/two"
        } else {
            "/one"
        };
        tokio::spawn(async move { secured.ask_over_tcp(over_tcp(version, target)).await })
    });
    let client = secured.client().await;
    let by_http3 = tokio::spawn(async move { client.get("/three").await });
    gate.reached_by(3).await;
    secured.gateway.terminate();
    let drains = |line: &str| line.contains("stopping") || line.contains("signal");
    secured
        .gateway
        .logged("the line of the signal", drains)
        .await;
    gate.open();
    for answer in asking.into_iter().chain([by_http3]) {
        let answer = answer.await.unwrap();
        assert_eq!(answer.header("alt-svc"), "clear", "{:?}", answer.version);
    }
}
