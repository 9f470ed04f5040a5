//! Which certificate a client gets, and for which hosts its connection is (edge.md, TLS2 to TLS4
//! and TLS6).

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::authority::{Authority, Certificate, KeyKind, Order};
use e2e::tls::hello::{ECDHE_ECDSA, ECDHE_RSA, Hello, HelloAnswer, PSS_SHA256, RSA_SHA256};
use e2e::tls::{TlsClient, TlsFailure, alert};
use http::{Request, StatusCode};
use rustls::{CipherSuite, SignatureScheme};

const UNKNOWN: Result<Vec<u8>, TlsFailure> = Err(TlsFailure::Alert(alert::UNRECOGNIZED_NAME));

/// An origin, and a gateway whose listener has these certificates and keys of TLS.
async fn with(certificates: &[(&str, &Certificate)], tls: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let mut setup = Setup::new(&origin);
    let mut list = String::new();
    for (name, certificate) in certificates {
        setup = setup.pair(name, certificate);
        list += &format!("{{cert: {name}.crt, key: {name}.key}}, ");
    }
    let tls = format!("{{certificates: [{list}], {tls}}}");
    (origin, setup.listener("tls", &tls).start().await)
}

/// The certificate that a client gets.
async fn shown(client: TlsClient) -> Result<Vec<u8>, TlsFailure> {
    client
        .connect()
        .await
        .map(|connection| connection.certificate())
}

/// The certificate for a name as it is written in the ClientHello, or the alert.
async fn shown_for(gateway: &Gateway, name: &[u8]) -> Result<Vec<u8>, u8> {
    let hello = Hello {
        name: Some(name.to_vec()),
        ..Hello::tls12("")
    };
    match hello.send(gateway.address).await {
        HelloAnswer::Hello { certificate, .. } => Ok(certificate),
        HelloAnswer::Alert(alert) => Err(alert),
        other => panic!("{name:?}: {other:?}"),
    }
}

#[tokio::test]
async fn an_exact_name_goes_before_a_wildcard_and_that_before_the_default() {
    let authority = Authority::new("authority");
    let exact = authority.server(&["a.example", "xn--bcher-kva.example"]);
    let wildcard = authority.server(&["*.example"]);
    let deeper = authority.server(&["*.b.example"]);
    let default = authority.server(&["default.test"]);
    let all = [
        ("wildcard", &wildcard),
        ("exact", &exact),
        ("deeper", &deeper),
        ("default", &default),
    ];
    let (_origin, gateway) = with(&all, "default: default.crt").await;
    let client = TlsClient::new(gateway.address, "");
    let cases = [
        ("a.example", &exact),
        ("A.Example", &exact),
        ("xn--bcher-kva.example", &exact),
        ("b.example", &wildcard),
        ("B.EXAMPLE", &wildcard),
        ("x.b.example", &deeper),
        // A wildcard is exactly one label.
        ("x.y.b.example", &default),
        ("example", &default),
        ("x.a.example", &default),
        ("default.test", &default),
        ("unknown.test", &default),
    ];
    for (name, certificate) in cases {
        let shown = shown(client.clone().named(name)).await;
        assert_eq!(shown, Ok(certificate.der.clone()), "{name}");
    }
    assert_eq!(
        shown(client.clone().nameless()).await,
        Ok(default.der.clone())
    );
}

/// What proper clients would not send as a name.
#[tokio::test]
async fn names_are_compared_without_case_and_last_dot_and_an_address_is_none() {
    let authority = Authority::new("authority");
    let exact = authority.server(&["a.example", "xn--bcher-kva.example", "127.0.0.1"]);
    let default = authority.server(&["default.test"]);
    let all = [("exact", &exact), ("default", &default)];
    let (_origin, gateway) = with(&all, "default: default.crt").await;
    for name in [
        "a.example.",
        "A.EXAMPLE",
        "a.eXample.",
        "XN--BCHER-KVA.example",
    ] {
        let shown = shown_for(&gateway, name.as_bytes()).await;
        assert_eq!(shown, Ok(exact.der.clone()), "{name}");
    }
    for name in [
        "127.0.0.1",
        "a.example..",
        "a..example",
        "*.example",
        "bücher.example",
        " a.example",
    ] {
        // rustls may refuse a name that is none, which serves nobody either.
        let shown = shown_for(&gateway, name.as_bytes()).await;
        assert_ne!(shown, Ok(exact.der.clone()), "{name}");
    }
}

#[tokio::test]
async fn the_yaml_may_narrow_the_names() {
    let authority = Authority::new("authority");
    let wide = authority.server(&["a.example", "b.example", "*.c.example"]);
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let names = "[b.example, x.c.example]";
    let tls = format!("{{certificates: [{{cert: wide.crt, key: wide.key, names: {names}}}]}}");
    let gateway = Setup::new(&origin)
        .pair("wide", &wide)
        .listener("tls", &tls)
        .start()
        .await;
    let client = TlsClient::new(gateway.address, "");
    for name in ["b.example", "x.c.example"] {
        assert_eq!(
            shown(client.clone().named(name)).await,
            Ok(wide.der.clone()),
            "{name}"
        );
    }
    for name in ["a.example", "y.c.example"] {
        assert_eq!(shown(client.clone().named(name)).await, UNKNOWN, "{name}");
        let b = client.clone().named("b.example");
        assert_eq!(b.status(name).await, Ok(421), "{name}");
    }
}

#[tokio::test]
async fn a_folder_has_pairs_by_name_and_secrets_in_folders() {
    let authority = Authority::new("authority");
    let (flat, secret) = (
        authority.server(&["flat.test"]),
        authority.server(&["secret.test"]),
    );
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .pair("certs/flat", &flat)
        .pair("certs/secret/tls", &secret)
        .file("certs/broken.crt", "no certificate")
        .file("certs/broken.key", "no key")
        .file("certs/readme.txt", "no pair")
        .listener("tls", "{certificates: [{dir: certs}]}")
        .start()
        .await;
    let client = TlsClient::new(gateway.address, "");
    for (name, certificate) in [("flat.test", &flat), ("secret.test", &secret)] {
        let shown = shown(client.clone().named(name)).await;
        assert_eq!(shown, Ok(certificate.der.clone()), "{name}");
    }
    // One that can't be used keeps the others from nothing, and is told.
    gateway
        .logged("the broken pair is told", |line| line.contains("broken"))
        .await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_comes_after_those_that_have_not() {
    let authority = Authority::new("authority");
    let order = |kind| Order::server(&["a.example"]).key(kind);
    let expired = authority.make(&order(KeyKind::P256).expired());
    let rsa = authority.make(&order(KeyKind::Rsa2048));
    let (_origin, gateway) = with(&[("expired", &expired), ("rsa", &rsa)], "").await;
    let client = TlsClient::new(gateway.address, "a.example");
    for client in [client.clone().only_tls12(), client.only_tls13()] {
        assert_eq!(shown(client).await, Ok(rsa.der.clone()));
    }
    // Whoever can use no other one gets it.
    let only_ecdsa = Hello {
        suites: vec![ECDHE_ECDSA],
        signatures: vec![0x0403],
        ..Hello::tls12("a.example")
    };
    let answer = only_ecdsa.send(gateway.address).await;
    let HelloAnswer::Hello { certificate, .. } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(certificate, expired.der);
}

#[tokio::test]
async fn a_client_that_can_use_no_key_is_told_so() {
    let authority = Authority::new("authority");
    let ecdsa = authority.server(&["a.example"]);
    let (_origin, gateway) = with(&[("ecdsa", &ecdsa)], "").await;
    // A signature of P-384, which our key can't make.
    let hello = Hello {
        suites: vec![ECDHE_ECDSA],
        signatures: vec![0x0503],
        ..Hello::tls12("a.example")
    };
    let answer = hello.send(gateway.address).await;
    let told = matches!(answer, HelloAnswer::Alert(alert::HANDSHAKE_FAILURE));
    assert!(told, "{answer:?}");
}

#[tokio::test]
async fn the_first_certificate_that_the_client_can_use_counts_and_ecdsa_before_rsa() {
    let authority = Authority::new("authority");
    let order = |kind| Order::server(&["a.example"]).key(kind);
    let rsa = authority.make(&order(KeyKind::Rsa2048));
    let ecdsa = authority.make(&order(KeyKind::P256));
    let other = authority.make(&order(KeyKind::P256));
    let all = [("rsa", &rsa), ("ecdsa", &ecdsa), ("other", &other)];
    let (_origin, gateway) = with(&all, "").await;
    let client = TlsClient::new(gateway.address, "a.example");
    for client in [client.clone().only_tls12(), client.clone().only_tls13()] {
        assert_eq!(shown(client).await, Ok(ecdsa.der.clone()));
    }
    let only_rsa = client.clone().signatures(&[
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PKCS1_SHA256,
    ]);
    for client in [only_rsa.clone().only_tls12(), only_rsa.only_tls13()] {
        assert_eq!(shown(client).await, Ok(rsa.der.clone()));
    }
    let suite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    let no_suite = client.only_tls12().suites(&[suite]);
    assert_eq!(shown(no_suite).await, Ok(rsa.der.clone()));
    // A client that has the suite for ECDSA, but no signature, and the other way round.
    for (suites, signatures) in [
        (vec![ECDHE_ECDSA, ECDHE_RSA], vec![PSS_SHA256, RSA_SHA256]),
        (vec![ECDHE_RSA], vec![0x0403, PSS_SHA256]),
    ] {
        let hello = Hello {
            suites,
            signatures,
            ..Hello::tls12("a.example")
        };
        let answer = hello.send(gateway.address).await;
        let HelloAnswer::Hello {
            certificate, suite, ..
        } = &answer
        else {
            panic!("{answer:?}");
        };
        assert_eq!((certificate, *suite), (&rsa.der, ECDHE_RSA));
    }
}

#[tokio::test]
async fn a_name_without_certificate_gets_alert_112_where_there_is_no_default_or_it_is_strict() {
    let authority = Authority::new("authority");
    let a = authority.server(&["a.example"]);
    let all = [("a", &a)];
    for (tls, refused) in [
        ("strict_sni: true", true),
        ("strict_sni: false", true),
        ("strict_sni: false, default: a.crt", false),
    ] {
        let (_origin, gateway) = with(&all, tls).await;
        let client = TlsClient::new(gateway.address, "a.example");
        let strangers = [
            client.clone().nameless().only_tls12(),
            client.clone().nameless().only_tls13(),
            client.clone().named("b.example").only_tls12(),
            client.clone().named("b.example").only_tls13(),
        ];
        let count = strangers.len() as f64;
        for stranger in strangers {
            let expected = if refused { UNKNOWN } else { Ok(a.der.clone()) };
            assert_eq!(shown(stranger).await, expected, "{tls}");
        }
        assert_eq!(shown(client).await, Ok(a.der.clone()), "{tls}");
        let labels = [("outcome", "unknown_name")];
        // A client knows of the end of its handshake before the gateway does.
        let expected = if refused { count } else { 0.0 };
        gateway
            .metric_until("lamina_tls_handshakes_total", &labels, |n| n == expected)
            .await;
    }
}

/// The hosts of a connection for a name: 200 where they share certificate and policy.
#[tokio::test]
async fn misdirected() {
    let authority = Authority::new("authority");
    let wildcard = authority.server(&["*.w.example", "w.example"]);
    let other = authority.server(&["other.example", "127.0.0.1"]);
    let clients = Authority::new("clients");
    let me = clients.client("me");
    let origin = Origin::pages(|_| Reply::ok("x").header("cache-control", "no-store")).await;
    let policies = "[{names: [mtls.w.example], client_auth: {mode: require, ca: ca.pem}}, \
                     {names: [ask.w.example], client_auth: {mode: request, ca: ca.pem}}, \
                     {names: [new.w.example, newer.w.example], min_version: \"1.3\"}]";
    let pairs = "[{cert: w.crt, key: w.key}, {cert: other.crt, key: other.key}]";
    let tls = format!("{{certificates: {pairs}, default: other.crt, policies: {policies}}}");
    let gateway = Setup::new(&origin)
        .pair("w", &wildcard)
        .pair("other", &other)
        .file("ca.pem", clients.pem.clone())
        .listener("tls", &tls)
        .start()
        .await;
    let client = TlsClient::new(gateway.address, "").showing(&me);
    const HOSTS: [&str; 9] = [
        "a.w.example",
        "b.w.example",
        "w.example",
        "mtls.w.example",
        "ask.w.example",
        "new.w.example",
        "newer.w.example",
        "other.example",
        "stranger.example",
    ];
    // The names of connections, and the hosts that they are for.
    let plain: &[&str] = &["a.w.example", "b.w.example", "w.example"];
    let cases: [(&str, &[&str]); 8] = [
        ("a.w.example", plain),
        ("w.example", plain),
        ("mtls.w.example", &["mtls.w.example"]),
        ("ask.w.example", &["ask.w.example"]),
        ("new.w.example", &["new.w.example", "newer.w.example"]),
        ("other.example", &["other.example"]),
        // The default certificate is for its own hosts alone.
        ("stranger.example", &["other.example"]),
        ("", &["other.example"]),
    ];
    let (mut asked, mut refused) = (0, 0);
    for (name, served) in cases {
        for protocol in ["http/1.1", "h2"] {
            let client = client.clone().speaking(&[protocol]);
            let client = match name {
                "" => client.nameless(),
                name => client.named(name),
            };
            let mut https = client.http().await;
            // Twice over one connection, which must go on after each 421.
            for host in HOSTS.iter().chain(&HOSTS) {
                let before = origin.count();
                let answer = https.get(host, "/").await;
                let wanted = if served.contains(host) { 200 } else { 421 };
                assert_eq!(answer.status, wanted, "{protocol}: {host} over {name}");
                asked += 1;
                refused += usize::from(wanted == 421);
                assert_eq!(origin.count() - before, usize::from(wanted == 200));
            }
            let spelled = served[0].to_ascii_uppercase() + ".:443";
            assert_eq!(https.get(&spelled, "/").await.status, 200, "{spelled}");
            assert!(https.is_open(), "{protocol} {name}");
        }
    }
    assert_eq!((asked, refused), (288, 288 - 4 * 13), "all were looked at");
    // The host that counts is that of the target, however it is written.
    let asked = origin.count();
    for target in [
        "https://mtls.w.example/",
        "http://mtls.w.example/",
        "https://MTLS.w.example.:443/",
        "https://other.example/",
    ] {
        let client = client.clone().named("a.w.example");
        let mut raw = client.connect().await.unwrap().raw();
        raw.write(format!(
            "GET {target} HTTP/1.1\r\nhost: a.w.example\r\n\r\n"
        ))
        .await;
        let head = raw.head().await;
        assert!([400, 421].contains(&head.status), "{target}: {}", head.text);
    }
    assert_eq!(origin.count(), asked);
    let mut address = client.nameless().http().await;
    assert_eq!(address.get("127.0.0.1:8443", "/").await.status, 200);
    assert_eq!(address.get("127.0.0.2", "/").await.status, 421);
}

#[tokio::test]
async fn a_body_for_another_host_is_passed_over() {
    let authority = Authority::new("authority");
    let a = authority.server(&["a.example"]);
    let (origin, gateway) = with(&[("a", &a)], "").await;
    for protocol in ["http/1.1", "h2"] {
        let client = TlsClient::new(gateway.address, "a.example").speaking(&[protocol]);
        let mut https = client.http().await;
        let post = Request::post("/upload");
        let answer = https.send_with("b.example", post, "x".repeat(20_000)).await;
        assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{protocol}");
        // hyper may close a connection of HTTP/1 rather than read on.
        if protocol == "http/1.1" && !https.is_open() {
            https = client.http().await;
        }
        assert_eq!(
            https.get("a.example", "/").await.text(),
            "page",
            "{protocol}"
        );
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_421_is_not_stored_and_clear_text_has_none() {
    let authority = Authority::new("authority");
    let (a, b) = (
        authority.server(&["a.example"]),
        authority.server(&["b.example"]),
    );
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let pairs = "[{cert: a.crt, key: a.key}, {cert: b.crt, key: b.key}]";
    let listeners = format!(
        "[{{address: \"127.0.0.1:0\", tls: {{certificates: {pairs}}}}}, {{address: \"127.0.0.1:0\"}}]"
    );
    let gateway = Setup::new(&origin)
        .pair("a", &a)
        .pair("b", &b)
        .top("listeners", &listeners)
        .start()
        .await;
    let client = TlsClient::new(gateway.address, "a.example");
    let mut misdirected = client.http().await;
    let answer = misdirected.get("b.example", "/page").await;
    assert_eq!(answer.status, 421);
    assert!(!answer.has("cache-status"), "{:?}", answer.headers);
    assert_eq!(origin.count(), 0);
    let mut right = client.named("b.example").http().await;
    let answer = right.get("b.example", "/page").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "page"));
    // And the page that is stored now is not for the other connection.
    assert_eq!(misdirected.get("b.example", "/page").await.status, 421);
    let clear = e2e::client::Client::http1(gateway.addresses()[1]);
    for host in ["a.example", "b.example", "stranger.example"] {
        let answer = clear.request("/page").host(host).send().await;
        assert_eq!(answer.status, 200, "{host}");
    }
}
