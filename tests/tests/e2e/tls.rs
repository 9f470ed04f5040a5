//! A listener of HTTPS: what it speaks, what it refuses and how (edge.md, TLS1, TLS5, TLS11,
//! TLS12).

use std::io::Write as _;
use std::process::{Command, Stdio};

use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::tls::hello::{self, ECDHE_ECDSA, Hello, HelloAnswer};
use e2e::tls::site::{HttpsSite, NAME};
use e2e::tls::{OneByteRecords, TlsClient, TlsFailure, alert};
use http::{Method, Version};
use rustls::{CipherSuite, ProtocolVersion};
use tokio::net::TcpStream;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

/// Checks the handshakes that were counted with these outcomes.
async fn counted(site: &HttpsSite, outcomes: &[(&str, f64)]) {
    for (outcome, count) in outcomes {
        let labels = [("outcome", *outcome)];
        let name = "lamina_tls_handshakes_total";
        site.gateway
            .metric_until(name, &labels, |found| found == *count)
            .await;
    }
}

#[tokio::test]
async fn a_request_over_tls_is_served_by_either_protocol() {
    let site = HttpsSite::start("").await;
    for (offered, version) in [("http/1.1", Version::HTTP_11), ("h2", Version::HTTP_2)] {
        let mut https = site.client().speaking(&[offered]).http().await;
        let answer = https.get(NAME, "/").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "page"));
        assert_eq!(answer.version, version);
        let seen = site.origin.last();
        assert_eq!(seen.header("x-forwarded-proto"), "https");
        assert_eq!(seen.authority, NAME);
    }
    assert_eq!(site.origin.count(), 1, "both protocols share the entry");
    counted(&site, &[("full", 2.0)]).await;
}

/// What a client claims to speak is not what it speaks.
#[tokio::test]
async fn the_scheme_is_that_of_the_connection() {
    let site = HttpsSite::start("").await;
    let mut h2 = site.client().http2().connect().await.unwrap().h2().await;
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", NAME),
        (":path", "/scheme"),
    ];
    let request = e2e::h2raw::headers(1, e2e::h2raw::flag::END_STREAM, &fields);
    h2.write([e2e::h2raw::setting(1, 0), request].concat())
        .await;
    let answered = h2.end_of(1).await;
    if site.origin.count() > 0 {
        assert_eq!(site.origin.last().header("x-forwarded-proto"), "https");
    } else {
        let refused = matches!(answered, e2e::h2raw::End::Answered { status: 400, .. });
        assert!(refused, "{answered:?}");
    }
    let mut raw = site.client().connect().await.unwrap().raw();
    raw.write("GET http://a.example/absolute HTTP/1.1\r\nhost: a.example\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.status, 200);
    assert_eq!(site.origin.last().header("x-forwarded-proto"), "https");
}

#[tokio::test]
async fn clear_http_on_a_port_of_https_is_told_so_and_never_routed() {
    let site = HttpsSite::start("").await;
    let post = "POST /x HTTP/1.1\r\nhost: a.example\r\ncontent-length: 4\r\n\r\nbody";
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100 << 10));
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let all = [GET, post, &long, preface, "HEAD / HTTP/1.0\r\n\r\n", "G"];
    for request in all {
        let mut raw = site.gateway.raw().await;
        raw.try_write(request.as_bytes()).await;
        let text = String::from_utf8(raw.to_end().await).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 "), "{request:.20}: {text:?}");
        let lower = text.to_ascii_lowercase();
        assert!(lower.contains("connection: close") && text.contains("HTTPS"));
        assert!(!lower.contains("location:"), "it is no redirect: {text}");
    }
    assert_eq!(site.origin.count(), 0);
    counted(&site, &[("clear_text", all.len() as f64)]).await;
}

#[tokio::test]
async fn other_bytes_get_an_alert() {
    let site = HttpsSite::start("").await;
    let all: [&[u8]; 5] = [
        &[0; 64],
        b"get / http/1.1\r\n\r\n",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        &[23, 3, 3, 0, 5, 1, 2, 3, 4, 5],
        &[22, 3, 3, 0, 4, 2, 0, 0, 0],
    ];
    for bytes in all {
        let answer = hello::answer(site.gateway.address, bytes).await;
        assert!(
            matches!(answer, HelloAnswer::Alert(_)),
            "{bytes:?}: {answer:?}"
        );
    }
    counted(&site, &[("failed", all.len() as f64)]).await;
    assert_eq!(site.origin.count(), 0);
}

#[tokio::test]
async fn the_protocol_is_chosen_in_our_order_and_by_nothing_else() {
    let site = HttpsSite::start("").await;
    for (offered, agreed) in [
        (&["http/1.1", "h2"][..], "h2"),
        (&["h2", "http/1.1"], "h2"),
        (&["spdy/3", "http/1.1"], "http/1.1"),
        (&["h2"], "h2"),
        (&[], ""),
    ] {
        let connection = site.client().speaking(offered).connect().await.unwrap();
        assert_eq!(connection.protocol(), agreed, "{offered:?}");
    }
    let none = site.client().speaking(&[]);
    assert_eq!(none.status(NAME).await, Ok(200), "it speaks HTTP/1.1");
}

#[tokio::test]
async fn without_a_common_protocol_there_is_alert_120() {
    let site = HttpsSite::start("").await;
    // No challenge of ACME runs, so that `acme-tls/1` is nothing that is spoken.
    for offered in [&["http/1.0"][..], &["h3", "spdy/3"], &["acme-tls/1"]] {
        for client in [site.client().only_tls12(), site.client().only_tls13()] {
            let refused = client.speaking(offered).status(NAME).await;
            let alert = TlsFailure::Alert(alert::NO_APPLICATION_PROTOCOL);
            assert_eq!(refused, Err(alert), "{offered:?}");
        }
    }
    counted(&site, &[("failed", 6.0)]).await;
}

#[tokio::test]
async fn a_listener_speaks_only_its_own_protocols() {
    let listener = |protocols: &'static str| {
        HttpsSite::with(
            "",
            move |setup| setup.listener("protocols", protocols),
            |_| Reply::ok("x"),
        )
    };
    let (only1, only2) = (listener("[http1]").await, listener("[http2]").await);
    let refused = Err(TlsFailure::Alert(alert::NO_APPLICATION_PROTOCOL));
    assert_eq!(only1.client().http2().status(NAME).await, refused);
    assert_eq!(only1.client().status(NAME).await, Ok(200));
    assert_eq!(only2.client().status(NAME).await, refused);
    assert_eq!(
        only2
            .client()
            .http2()
            .http()
            .await
            .get(NAME, "/")
            .await
            .status,
        200
    );
    // A client that offers nothing speaks HTTP/1.1.
    let silent = only2.client().speaking(&[]).status(NAME).await;
    assert_eq!(silent, Err(TlsFailure::Closed));
    assert_eq!(only2.origin.count(), 1);
}

#[tokio::test]
async fn the_preface_of_http2_counts_nothing_without_alpn() {
    let site = HttpsSite::start("").await;
    for offered in [&[][..], &["http/1.1"]] {
        let connection = site.client().speaking(offered).connect().await.unwrap();
        let mut raw = connection.raw();
        let requests = [e2e::h2raw::PREFACE, &e2e::h2raw::setting(1, 0)].concat();
        raw.write([requests, e2e::h2raw::get(1, "/")].concat())
            .await;
        let answer = String::from_utf8_lossy(&raw.to_end().await).into_owned();
        let told = answer.is_empty() || answer.starts_with("HTTP/1.1 ");
        assert!(told && !answer.contains(" 200 "), "{answer:?}");
    }
    assert_eq!(site.origin.count(), 0);
}

#[tokio::test]
async fn the_lowest_version_is_kept() {
    let usual = HttpsSite::start("").await;
    let strict = HttpsSite::start("min_version: \"1.3\"").await;
    let (old, new) = (ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3);
    let version = async |client: TlsClient| client.connect().await.unwrap().version();
    assert_eq!(version(usual.client()).await, Some(new));
    assert_eq!(version(usual.client().only_tls12()).await, Some(old));
    assert_eq!(version(strict.client()).await, Some(new));
    let refused = strict.client().only_tls12().connect().await.err();
    assert_eq!(refused, Some(TlsFailure::Alert(alert::PROTOCOL_VERSION)));
}

#[tokio::test]
async fn only_the_suites_and_groups_that_are_listed_are_spoken() {
    let suite = CipherSuite::TLS13_AES_256_GCM_SHA384;
    let keys = "ciphers: [TLS13_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], \
                groups: [secp384r1]";
    let site = HttpsSite::start(keys).await;
    let connection = site.client().connect().await.unwrap();
    assert_eq!(connection.suite(), Some(suite));
    let other = site
        .client()
        .suites(&[CipherSuite::TLS13_AES_128_GCM_SHA256]);
    let failed = Some(TlsFailure::Alert(alert::HANDSHAKE_FAILURE));
    assert_eq!(other.connect().await.err(), failed);
    let hello = Hello::tls12(NAME).send(site.gateway.address).await;
    assert!(
        matches!(
            hello,
            HelloAnswer::Hello {
                suite: ECDHE_ECDSA,
                ..
            }
        ),
        "{hello:?}"
    );
}

/// The order of the configuration counts, and without one that of the client.
#[tokio::test]
async fn suites_go_by_the_order_of_the_configuration_or_of_the_client() {
    use CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as OLD_AES,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 as OLD_CHACHA,
        TLS13_AES_128_GCM_SHA256 as AES, TLS13_CHACHA20_POLY1305_SHA256 as CHACHA,
    };
    let ordered = HttpsSite::start(
        "ciphers: [TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, \
         TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]",
    )
    .await;
    let usual = HttpsSite::start("").await;
    let agreed = async |site: &HttpsSite, offered: &[CipherSuite]| {
        let client = site.client().suites(offered);
        client.connect().await.unwrap().suite().unwrap()
    };
    for [aes, chacha] in [[AES, CHACHA], [OLD_AES, OLD_CHACHA]] {
        for offered in [[aes, chacha], [chacha, aes]] {
            assert_eq!(agreed(&ordered, &offered).await, chacha);
            assert_eq!(agreed(&usual, &offered).await, offered[0]);
        }
    }
}

/// Each is a ClientHello that would be answered if what it offers were spoken.
#[tokio::test]
async fn what_is_weak_is_impossible() {
    let site = HttpsSite::start("").await;
    let address = site.gateway.address;
    let good = Hello::tls12(NAME);
    let answer = good.send(address).await;
    let certificate = site.certificate.der.clone();
    let hello = HelloAnswer::Hello {
        version: 0x0303,
        suite: ECDHE_ECDSA,
        compression: 0,
        certificate,
    };
    assert_eq!(answer, hello);
    for version in [0x0300, 0x0301, 0x0302] {
        let old = Hello {
            version,
            ..good.clone()
        };
        let alert = HelloAnswer::Alert(alert::PROTOCOL_VERSION);
        assert_eq!(old.send(address).await, alert, "{version:x}");
    }
    // ECDHE with CBC, static RSA with GCM and with CBC, DHE, 3DES, RC4 and NULL.
    for suite in [
        0xc009, 0xc00a, 0xc013, 0xc023, 0x009c, 0x002f, 0x009e, 0x000a, 0x0005, 0x0002,
    ] {
        let weak = Hello {
            suites: vec![suite],
            ..good.clone()
        };
        let alert = HelloAnswer::Alert(alert::HANDSHAKE_FAILURE);
        assert_eq!(weak.send(address).await, alert, "{suite:x}");
    }
    // SHA-1 with ECDSA and with RSA.
    let sha1 = Hello {
        signatures: vec![0x0203, 0x0201],
        ..good.clone()
    };
    let alert = HelloAnswer::Alert(alert::HANDSHAKE_FAILURE);
    assert_eq!(sha1.send(address).await, alert);
    // DEFLATE is offered, before no compression.
    let deflate = Hello {
        compressions: vec![1, 0],
        ..good.clone()
    };
    assert_eq!(deflate.send(address).await, hello);
    let only_deflate = Hello {
        compressions: vec![1],
        ..good
    };
    let answer = only_deflate.send(address).await;
    assert!(matches!(answer, HelloAnswer::Alert(_)), "{answer:?}");
}

#[tokio::test]
async fn a_session_is_not_negotiated_again() {
    let site = HttpsSite::start("").await;
    let address = site.gateway.address.to_string();
    let said = tokio::task::spawn_blocking(move || {
        let arguments = [
            "s_client",
            "-connect",
            &address,
            "-servername",
            NAME,
            "-tls1_2",
        ];
        let mut client = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed (make test-install)");
        // A line with an R makes s_client ask for it.
        let mut input = client.stdin.take().unwrap();
        input.write_all(b"R\n").unwrap();
        let output = client.wait_with_output().unwrap();
        drop(input);
        [output.stdout, output.stderr].concat()
    });
    let said = String::from_utf8_lossy(&said.await.unwrap()).into_owned();
    assert!(said.contains("RENEGOTIATING"), "it was asked for: {said}");
    assert!(said.contains("no renegotiation"), "{said}");
    assert_eq!(site.client().status(NAME).await, Ok(200));
}

#[tokio::test]
async fn a_client_hello_in_records_of_one_byte_works() {
    let site = HttpsSite::start("").await;
    for client in [site.client().only_tls12(), site.client().only_tls13()] {
        let stream = TcpStream::connect(site.gateway.address).await.unwrap();
        let connection = client.over(OneByteRecords::new(stream)).await.unwrap();
        assert_eq!(connection.certificate(), site.certificate.der);
        assert_eq!(connection.status(NAME).await, Ok(200));
    }
    // And each byte in a packet of its own, without the records.
    let mut raw = site.gateway.raw().await;
    for byte in site.client().hello() {
        raw.write([byte]).await;
    }
    assert_eq!(raw.exactly(1).await, [22], "a record of the handshake");
}

#[tokio::test]
async fn a_client_hello_over_64_kib_is_refused() {
    let site = HttpsSite::start("").await;
    let address = site.gateway.address;
    let mut before = 0;
    // What is allocated once comes with the first of them. Kept, the others were 20 MiB.
    for round in 0..=10 {
        for length in [0x01_0000, 0xff_ffff] {
            let mut message = hello::message(&vec![0; length]);
            message.truncate(1 << 20);
            let answer = hello::answer(address, &hello::records(&message, 1 << 14)).await;
            assert!(
                matches!(answer, HelloAnswer::Alert(_)),
                "{length}: {answer:?}"
            );
        }
        if round == 0 {
            before = site.gateway.resident_bytes();
        }
    }
    let grown = site.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes are kept");
    assert_eq!(site.client().status(NAME).await, Ok(200));
}

/// Without close_notify a client can't tell the end from an attacker's cut (RFC 8446 §6.1).
#[tokio::test]
async fn close_notify_precedes_the_end() {
    let limits = "{idle_timeout: 300ms, header_timeout: 1s}";
    let site = HttpsSite::with(
        "",
        |setup| setup.listener("limits", limits),
        |_| Reply::fresh("page"),
    )
    .await;
    let close = "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
    for (case, request, status) in [
        ("the client wants it", close, "HTTP/1.1 200 "),
        (
            "HTTP/1.0",
            "GET / HTTP/1.0\r\nhost: a.example\r\n\r\n",
            "HTTP/1.0 200 ",
        ),
        ("nothing more comes", GET, "HTTP/1.1 200 "),
        (
            "a bad request",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "HTTP/1.1 400 ",
        ),
        ("no HTTP at all", "\0\0\0\0\r\n\r\n", "HTTP/1.1 400 "),
        (
            "a head that does not end",
            "GET / HTTP/1.1\r\nhost",
            "HTTP/1.1 408 ",
        ),
        ("nothing at all comes", "", ""),
    ] {
        let mut raw = site.client().connect().await.unwrap().raw();
        raw.write(request).await;
        let (read, in_order) = raw.to_close().await;
        let text = String::from_utf8_lossy(&read);
        assert!(text.starts_with(status), "{case}: {text}");
        assert!(in_order, "{case}: no close_notify after {text:?}");
    }
}

/// A body without length ends with the connection: its client must be able to tell a cut.
#[tokio::test]
async fn a_body_that_broke_off_has_no_close_notify() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let origin = e2e::origin::Origin::start(move |_| {
        let (reply, pieces) = Reply::stream();
        let _ = tell.send(pieces);
        async { reply }
    })
    .await;
    let site = HttpsSite::before(origin, "", |setup| setup).await;
    for whole in [false, true] {
        let mut raw = site.client().connect().await.unwrap().raw();
        raw.write("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").await;
        let pieces = told.recv().await.unwrap();
        pieces.send("half a ").await;
        raw.until(b"half a ").await;
        match whole {
            true => pieces.finish().await,
            false => pieces.cut(),
        }
        let (rest, in_order) = raw.to_close().await;
        assert_eq!((rest.len(), in_order), (0, whole));
    }
}

#[tokio::test]
async fn keys_are_logged_only_if_the_configuration_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for keylog in ["off", "on"] {
        let file = dir.path().join(keylog);
        let site = HttpsSite::with(
            &format!("keylog: {keylog}"),
            |setup| setup.variable("SSLKEYLOGFILE", file.to_str().unwrap()),
            |_| Reply::ok("x"),
        )
        .await;
        assert_eq!(site.client().status(NAME).await, Ok(200));
        let logged = std::fs::read_to_string(&file).unwrap_or_default();
        let ready = site.gateway.admin(Method::GET, "/readyz", "").await;
        let warned = |line: &String| line.contains("\"WARN\"") && line.contains("keylog");
        let warned = site.gateway.log().iter().any(warned);
        let on = keylog == "on";
        assert_eq!(
            logged.contains("SERVER_HANDSHAKE_TRAFFIC_SECRET"),
            on,
            "{logged}"
        );
        assert_eq!(warned, on, "{keylog}: the start warns");
        assert_eq!(ready.text.contains("keylog"), on, "{}", ready.text);
        assert_eq!(ready.status, 200);
    }
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x10\xe1\0\x50";

#[tokio::test]
async fn the_header_of_the_proxy_protocol_comes_before_tls() {
    let site = HttpsSite::with(
        "",
        |setup| {
            setup
                .listener("proxy_protocol", "true")
                .listener("trusted_proxies", "[127.0.0.0/8]")
        },
        |_| Reply::ok("x").header("cache-control", "no-store"),
    )
    .await;
    let address = site.gateway.address;
    let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 4321 443\r\n";
    for header in [&v1[..], V2] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        use tokio::io::AsyncWriteExt;
        stream.write_all(header).await.unwrap();
        let connection = site.client().over(stream).await.unwrap();
        assert_eq!(connection.status(NAME).await, Ok(200));
        assert_eq!(site.origin.last().header("x-forwarded-for"), "192.0.2.7");
        // Header and ClientHello in one piece.
        let mut raw = RawConnection::open(address).await;
        raw.write([header, &site.client().hello()].concat()).await;
        assert_eq!(raw.exactly(1).await, [22], "a record of the handshake");
    }
    // Without the header, and with one behind the handshake, nobody is served.
    let refused = site.client().connect().await.err();
    assert_eq!(refused, Some(TlsFailure::Closed));
    assert_eq!(site.origin.count(), 2);
}
