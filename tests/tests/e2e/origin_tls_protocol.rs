//! TLS to origins: HTTP/2 or HTTP/1.1 by what both agree on (OT3).

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::tls_origin::TlsOrigin;
use e2e::wait::{SOON, wait_for};
use http::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::origin_tls::{TRUSTING, paths, refused, setup};

const BOTH: [&str; 2] = ["h2", "http/1.1"];

#[tokio::test]
async fn what_is_offered_and_spoken_follows_the_protocol_and_the_origin() {
    let tls = paths().await;
    let (one, two) = (Version::HTTP_11, Version::HTTP_2);
    let table: [(&str, &[&str], Version, &[&str]); 8] = [
        ("auto", &BOTH, two, &BOTH),
        ("auto", &["http/1.1", "h2"], one, &BOTH),
        ("auto", &["h2"], two, &BOTH),
        ("auto", &["http/1.1"], one, &BOTH),
        ("auto", &[], one, &BOTH),
        ("http1", &BOTH, one, &["http/1.1"]),
        ("http1", &[], one, &["http/1.1"]),
        ("http2", &BOTH, two, &["h2"]),
    ];
    for (n, (protocol, speaks, spoken, offered)) in table.into_iter().enumerate() {
        let what = format!("{protocol} to {speaks:?}");
        tls.front.change(|settings| settings.alpn = speaks.to_vec());
        let more = format!(", protocol: {protocol}");
        let gateway = setup(&tls, TRUSTING, &more).start().await;
        // One connection, so that one worker asks.
        let client = gateway.client();
        for path in ["/a", "/b"] {
            assert_eq!(client.post(path, "body").await.text(), path, "{what}");
            let last = tls.origin.last();
            assert_eq!(last.version, spoken, "{what}");
            assert_eq!(last.body.as_deref(), Some(&b"body"[..]), "{what}");
        }
        let greetings = tls.front.greetings();
        assert_eq!(greetings.len(), n + 1, "{what}: {greetings:?}");
        assert_eq!(greetings[n].alpn, offered, "{what}");
    }
    assert_eq!(tls.origin.count(), 2 * 8);
}

#[tokio::test]
async fn an_origin_that_does_not_speak_the_fixed_protocol_gets_nothing() {
    let tls = paths().await;
    let table: [(&str, &[&str]); 4] = [
        ("http2", &["http/1.1"]),
        ("http2", &[]),
        ("http1", &["h2"]),
        ("auto", &["spdy/3"]),
    ];
    for (protocol, speaks) in table {
        tls.front.change(|settings| settings.alpn = speaks.to_vec());
        let more = format!(", protocol: {protocol}");
        let gateway = setup(&tls, TRUSTING, &more).start().await;
        let what = format!("{protocol} to {speaks:?}");
        refused(&gateway, &tls.front, "tls_protocol_error", &what).await;
    }
    assert_eq!(tls.origin.count(), 0);
}

/// Asks until the origin was asked by this version; answers how many requests failed before.
async fn by(gateway: &Gateway, tls: &TlsOrigin, version: Version) -> usize {
    let failed = std::cell::Cell::new(0);
    wait_for(&format!("it speaks {version:?}"), SOON, || async {
        let answer = gateway.client().get("/a").await;
        if answer.status != 200 {
            failed.set(failed.get() + 1);
            return None;
        }
        (tls.origin.last().version == version).then_some(())
    })
    .await;
    failed.get()
}

#[tokio::test]
async fn an_origin_may_change_what_it_speaks() {
    let tls = paths().await;
    let gateway = setup(&tls, TRUSTING, "").start().await;
    for round in 0..3 {
        for (speaks, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
            tls.front.change(|settings| settings.alpn = vec![speaks]);
            tls.front.cut();
            let failed = by(&gateway, &tls, version).await;
            // One for what the gateway believed, on each of its two workers, and one for each
            // connection that was cut below a request.
            assert!(failed <= 4, "round {round}, {speaks}: {failed} failed");
        }
    }
}

/// An origin whose `/chat` is a tunnel that turns words round.
async fn chat() -> TlsOrigin {
    let origin = Origin::start(|asked| async move {
        if asked.seen.header("upgrade") != "echo" {
            return Reply::ok("page").header("cache-control", "no-store");
        }
        Reply::upgrade("echo", |mut tunnel| async move {
            let mut word = [0; 4];
            while tunnel.read_exact(&mut word).await.is_ok() {
                word.reverse();
                let sent = tunnel.write_all(&word).await.is_ok() && tunnel.flush().await.is_ok();
                if !sent {
                    break;
                }
            }
        })
    })
    .await;
    TlsOrigin::of(origin).await
}

async fn talk(gateway: &Gateway) {
    let mut raw = gateway.raw().await;
    raw.write("GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    let head = raw.head().await;
    assert_eq!((head.status, head.header("upgrade")), (101, "echo"));
    for word in ["abcd", "1234"] {
        raw.write(word).await;
        assert_eq!(raw.exactly(4).await, word.bytes().rev().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_upgrade_is_a_tunnel_whatever_else_the_origin_speaks() {
    for (speaks, version) in [
        (&BOTH[..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let tls = chat().await;
        tls.front.change(|settings| settings.alpn = speaks.to_vec());
        let gateway = setup(&tls, TRUSTING, "").start().await;
        talk(&gateway).await;
        // Enough pages for both workers to know what is spoken.
        for _ in 0..8 {
            assert_eq!(gateway.client().get("/page").await.text(), "page");
            assert_eq!(tls.origin.last().version, version);
        }
        for _ in 0..4 {
            talk(&gateway).await;
        }
        assert_eq!(gateway.client().get("/page").await.text(), "page");
        assert_eq!(tls.origin.last().version, version);
        assert_eq!(tls.origin.count_of("/chat"), 5);
    }
}

#[tokio::test]
async fn one_host_may_be_a_target_with_and_without_tls() {
    for protocol in ["http1", "http2"] {
        let tls = paths().await;
        // It speaks clear text, so that TLS to it fails and the other target is asked.
        let address = tls.origin.address();
        let both = format!(
            "{{targets: [\"http://{address}\", \"https://{address}\"], protocol: {protocol}, tls: {TRUSTING}}}"
        );
        let setup = setup(&tls, TRUSTING, "").upstream("origin", &both);
        let gateway = setup.start().await;
        // One connection, so that one worker asks.
        let client = gateway.client();
        for n in 0..6 {
            let path = format!("/{n}");
            assert_eq!(client.get(&path).await.text(), path, "{protocol}");
        }
        assert_eq!(tls.origin.count(), 6, "{protocol}");
        // What is for the target with TLS never goes over the other one's connection.
        assert!(tls.origin.connections() >= 2, "{protocol}: TLS was tried");
    }
}
