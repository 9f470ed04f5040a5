//! TLS to origins: certificates of the gateway's own, pins, and what is never shared (OT4).

use std::collections::BTreeSet;

use e2e::client::herd;
use e2e::tls_origin::{FrontSettings, TestAuthority, TestCertificate, TlsFront};
use e2e::wait::{SOON, wait_for};
use rustls::pki_types::CertificateDer;

use crate::origin_tls::{APART, TRUSTING, failed, paths, refused, setup};

const SHOWING: &str = "{ca_file: ca.pem, client: {cert: own.pem, key: own.key}}";

fn own(certificate: &TestCertificate) -> Option<CertificateDer<'static>> {
    certificate.chain.first().cloned()
}

#[tokio::test]
async fn an_origin_that_demands_a_certificate_is_shown_the_configured_one() {
    let tls = paths().await;
    let clients = TestAuthority::new("clients");
    let gateway_s = clients.certify(&["gateway"]);
    tls.front
        .change(|settings| settings.clients_of = Some(clients.der()));
    for protocol in ["auto", "http1", "http2"] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            tls.front
                .change(|settings| settings.versions = vec![version]);
            let more = format!(", protocol: {protocol}");
            let what = format!("{protocol}, {version:?}");
            let showing = setup(&tls, SHOWING, &more)
                .file("own.pem", gateway_s.pem.clone())
                .file("own.key", gateway_s.key_pem.clone())
                .start()
                .await;
            assert_eq!(showing.client().get("/a").await.text(), "/a", "{what}");
            let handshake = tls.front.handshakes().pop().unwrap();
            assert_eq!(handshake.client, own(&gateway_s), "{what}");
        }
    }
    assert_eq!(tls.front.handshakes().len(), 6);
}

#[tokio::test]
async fn without_the_certificate_that_is_demanded_it_is_an_alert_and_nothing_is_sent() {
    let tls = paths().await;
    let clients = TestAuthority::new("clients");
    let stranger_s = TestAuthority::new("strangers").certify(&["gateway"]);
    tls.front
        .change(|settings| settings.clients_of = Some(clients.der()));
    for protocol in ["auto", "http1", "http2"] {
        // RFC 8446 §6: handshake_failure (40), certificate_required (116), decrypt_error (51) or
        // unknown_ca (48) by version and certificate.
        for (version, settings, alerts) in [
            (&rustls::version::TLS13, TRUSTING, &["116"][..]),
            (&rustls::version::TLS12, TRUSTING, &["40", "42", "116"]),
            (&rustls::version::TLS13, SHOWING, &["48", "51", "42"]),
            (&rustls::version::TLS12, SHOWING, &["48", "51", "42"]),
        ] {
            tls.front
                .change(|settings| settings.versions = vec![version]);
            let more = format!(", protocol: {protocol}");
            let gateway = setup(&tls, settings, &more)
                .file("own.pem", stranger_s.pem.clone())
                .file("own.key", stranger_s.key_pem.clone())
                .start()
                .await;
            for n in 0..5 {
                let what = format!("{protocol}, {version:?}, {settings}, {n}");
                let answer = gateway.client().post("/secret", "secret").await;
                let said = answer.header("proxy-status");
                assert_eq!(answer.status, 502, "{what}: {said}");
                let wanted = alerts
                    .iter()
                    .map(|alert| format!("lamina; error=tls_alert_received; alert-id={alert}"));
                assert!(wanted.into_iter().any(|one| one == said), "{what}: {said}");
            }
        }
    }
    assert!(tls.front.connections() >= 3 * 4 * 5);
    assert!(tls.front.data().is_empty());
    assert_eq!(tls.origin.count(), 0);
}

#[tokio::test]
async fn certificates_and_authorities_that_change_are_taken_while_it_runs() {
    let tls = paths().await;
    let clients = TestAuthority::new("clients");
    let (first, second) = (clients.certify(&["one"]), clients.certify(&["two"]));
    tls.front
        .change(|settings| settings.clients_of = Some(clients.der()));
    let gateway = setup(&tls, SHOWING, APART)
        .file("own.pem", first.pem.clone())
        .file("own.key", first.key_pem.clone())
        .start()
        .await;
    let write = |name: &str, text: &str| {
        std::fs::write(gateway.dir().join(name), text).unwrap();
    };
    let shown = async || {
        assert_eq!(gateway.client().get("/a").await.text(), "/a");
        tls.front.handshakes().pop().unwrap().client
    };
    assert_eq!(shown().await, own(&first));
    // The key of another certificate: what was before stays in use, and it is said why.
    write("own.key", &second.key_pem);
    wait_for("it is said that the pair can't be used", SOON, || async {
        assert_eq!(shown().await, own(&first));
        let log = gateway.log();
        let found = log.iter().find(|line| line.contains("not taken"));
        found.map(|line| assert!(line.contains("tls.client"), "{line}"))
    })
    .await;
    write("own.pem", &second.pem);
    wait_for("the second certificate is shown", SOON, || async {
        (shown().await == own(&second)).then_some(())
    })
    .await;
    // The origin moves to another authority.
    let next = TestAuthority::new("next");
    let both = format!("{}{}", tls.authority.pem(), next.pem());
    write("ca.pem", &both);
    tls.front
        .change(|settings| settings.certificate = next.certify(&["localhost"]));
    wait_for("the next authority is trusted", SOON, || async {
        let answer = gateway.client().get("/a").await;
        (answer.status == 200).then_some(())
    })
    .await;
    // The first one is trusted no longer, and no session of its time helps.
    write("ca.pem", next.pem());
    tls.front.change(|settings| {
        settings.certificate = tls.authority.certify(&["localhost"]);
    });
    wait_for("the first authority is not trusted", SOON, || async {
        let answer = gateway.client().get("/a").await;
        (answer.status == 502).then_some(())
    })
    .await;
    let answer = gateway.client().get("/a").await;
    failed(&answer, "tls_certificate_error", "the first authority");
}

#[tokio::test]
async fn upstreams_with_other_settings_share_neither_connections_nor_sessions() {
    let tls = paths().await;
    let clients = TestAuthority::new("clients");
    let (one, two) = (clients.certify(&["one"]), clients.certify(&["two"]));
    for (pool, resumes) in [("max_idle: 8", false), ("max_idle: 0", true)] {
        let settings = FrontSettings {
            clients_of: Some(clients.der()),
            ..FrontSettings::new(tls.authority.certify(&["localhost"]))
        };
        let front = TlsFront::before(tls.origin.address(), settings).await;
        let upstream = |name: &str| {
            format!(
                "{{targets: [\"{}\"], protocol: http1, pool: {{{pool}}}, tls: {{ca_file: ca.pem, client: {{cert: {name}.pem, key: {name}.key}}}}}}",
                front.url()
            )
        };
        let gateway = setup(&tls, TRUSTING, "")
            .upstream("one", &upstream("one"))
            .upstream("two", &upstream("two"))
            .route("{name: one, match: {path: /one/*}, upstream: one}")
            .route("{name: two, match: {path: /two/*}, upstream: two}")
            .file("one.pem", one.pem.clone())
            .file("one.key", one.key_pem.clone())
            .file("two.pem", two.pem.clone())
            .file("two.key", two.key_pem.clone())
            .start()
            .await;
        for round in 0..10 {
            for name in ["one", "two"] {
                let path = format!("/{name}/{round}");
                for answer in herd(&gateway.client(), 3, &path).await {
                    assert_eq!(answer.unwrap().text(), path);
                }
            }
        }
        let (mut resumed, mut looked) = (0, BTreeSet::new());
        for handshake in front.handshakes() {
            resumed += usize::from(handshake.resumed);
            let text = String::from_utf8_lossy(&handshake.data).into_owned();
            for (name, certificate) in [("/one/", &one), ("/two/", &two)] {
                if text.contains(name) {
                    looked.insert((name, handshake.resumed));
                    assert_eq!(handshake.client, own(certificate), "{text}");
                }
            }
        }
        if resumes {
            assert!(resumed > 0, "nothing was resumed, so nothing was seen");
            assert_eq!(looked.len(), 4, "{looked:?}");
        }
        assert!(looked.len() >= 2, "{looked:?}");
    }
}

#[tokio::test]
async fn what_an_upstream_that_verifies_nobody_has_opened_serves_no_other() {
    let tls = paths().await;
    tls.front.change(|settings| {
        settings.certificate = TestCertificate::self_signed(&["elsewhere.example"]);
    });
    for more in ["", ", protocol: http1", ", protocol: http2"] {
        let open = tls.upstream("{verify: off, insecure: \"a test\"}", more);
        let gateway = setup(&tls, TRUSTING, more)
            .upstream("open", &open)
            .route("{name: open, match: {path: /open/*}, upstream: open}")
            .route("{name: site, upstream: origin}")
            .start()
            .await;
        for n in 0..8 {
            let path = format!("/open/{n}");
            assert_eq!(gateway.client().get(&path).await.text(), path);
            let answer = gateway.client().get("/closed").await;
            failed(&answer, "tls_certificate_error", more);
        }
    }
    assert_eq!(tls.origin.count(), 3 * 8);
    assert_eq!(tls.origin.count_of("/closed"), 0);
}

#[tokio::test]
async fn a_pin_holds_in_addition_to_all_else() {
    let tls = paths().await;
    let certificate = tls.authority.certify(&["localhost"]);
    let other = tls.authority.certify(&["localhost"]);
    let below = tls.authority.below("between");
    let from_below = below.certify(&["localhost"]);
    let error = "tls_certificate_error";
    let with_root = certificate.clone().beside(tls.authority.der());
    let with_pinned = other.clone().beside(certificate.chain[0].clone());
    for (what, shown, pins, taken) in [
        ("its own key", &certificate, vec![certificate.pin()], true),
        (
            "one of two",
            &certificate,
            vec![other.pin(), certificate.pin()],
            true,
        ),
        ("another key", &certificate, vec![other.pin()], false),
        (
            "the key of its authority, which it shows",
            &with_root,
            vec![tls.authority.pin()],
            false,
        ),
        (
            "the key of the authority between, which it must show",
            &from_below,
            vec![below.pin()],
            false,
        ),
        (
            "the key of a certificate that only stands behind it",
            &with_pinned,
            vec![certificate.pin()],
            false,
        ),
    ] {
        let front = FrontSettings::new(shown.clone());
        let front = TlsFront::before(tls.origin.address(), front).await;
        let pins: Vec<_> = pins.iter().map(|pin| format!("\"{pin}\"")).collect();
        let upstream = format!(
            "{{targets: [\"{}\"], tls: {{ca_file: ca.pem, pins: [{}]}}}}",
            front.url(),
            pins.join(", ")
        );
        let gateway = setup(&tls, TRUSTING, "").upstream("origin", &upstream);
        let gateway = gateway.start().await;
        match taken {
            true => assert_eq!(gateway.client().get("/a").await.text(), "/a", "{what}"),
            false => refused(&gateway, &front, error, what).await,
        }
    }
    // A pin is no reason to trust: name, authority and date count as before.
    let self_signed = TestCertificate::self_signed(&["localhost"]);
    let elsewhere = tls.authority.certify(&["elsewhere.example"]);
    for shown in [self_signed, elsewhere] {
        let pin = shown.pin();
        let front = TlsFront::before(tls.origin.address(), FrontSettings::new(shown)).await;
        let upstream = format!(
            "{{targets: [\"{}\"], tls: {{ca_file: ca.pem, pins: [\"{pin}\"]}}}}",
            front.url()
        );
        let gateway = setup(&tls, TRUSTING, "").upstream("origin", &upstream);
        refused(&gateway.start().await, &front, error, "pinned alone").await;
    }
}
