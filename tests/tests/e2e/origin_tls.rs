//! TLS to origins: whom the gateway trusts, and by which name (OT1, OT2).
//!
//! Every test that refuses looks at the bytes that the origin got: there must be none.

use std::collections::BTreeSet;

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls_origin::{FrontSettings, TestAuthority, TlsFront, TlsOrigin};
use http::Method;

/// The origin's authority is trusted.
pub const TRUSTING: &str = "{ca_file: ca.pem}";

/// Each request has a connection of its own, with HTTP/1.1.
pub const APART: &str = ", protocol: http1, pool: {max_idle: 0}";

/// An origin whose pages say which path was asked for, and are not stored.
pub async fn paths() -> TlsOrigin {
    TlsOrigin::pages(|seen| Reply::ok(seen.path.clone()).header("cache-control", "no-store")).await
}

/// A gateway before it; `ca.pem` is its authority.
pub fn setup(tls: &TlsOrigin, settings: &str, more: &str) -> Setup {
    Setup::default()
        .upstream("origin", &tls.upstream(settings, more))
        .file("ca.pem", tls.authority.pem())
}

/// Panics unless the answer is this error of TLS.
#[track_caller]
pub fn failed(answer: &Answer, error: &str, what: &str) {
    let said = answer.header("proxy-status");
    assert_eq!(answer.status, 502, "{what}: {said}");
    let wanted = format!("lamina; error={error}");
    assert!(said == wanted, "{what}: {said:?} is not {wanted:?}");
    assert!(
        !answer.text().contains("ertificate"),
        "{what}: the client was told more than that: {}",
        answer.text()
    );
}

/// A request with a secret in its path, head and body, and whether it was refused with this error
/// before any of it was sent.
pub async fn refused(gateway: &Gateway, front: &TlsFront, error: &str, what: &str) {
    let before = front.connections();
    let ask = gateway.client().ask(Method::POST, "/secret");
    let answer = ask.header("x-secret", "secret").body("secret").send().await;
    failed(&answer, error, what);
    assert!(front.connections() > before, "{what}: nobody connected");
    let data = front.data();
    assert!(data.is_empty(), "{what}: {} bytes came", data.len());
}

#[tokio::test]
async fn origins_are_verified_by_the_systems_authorities_unless_a_file_replaces_them() {
    let tls = paths().await;
    let folder = tempfile::tempdir().unwrap();
    let stranger = TestAuthority::new("stranger");
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let others = file("others.pem", stranger.pem());
    let own = file("own.pem", tls.authority.pem());
    let gateway = async |settings: &str, system: &str| {
        let setup = setup(&tls, settings, "").variable("SSL_CERT_FILE", system);
        setup.file("stranger.pem", stranger.pem()).start().await
    };
    let error = "tls_certificate_error";
    let by_default = gateway("{}", &others).await;
    refused(&by_default, &tls.front, error, "no authority knows it").await;
    let replaced = gateway("{ca_file: stranger.pem}", &own).await;
    refused(&replaced, &tls.front, error, "the file's do not know it").await;
    assert_eq!(tls.origin.count(), 0);
    let by_system = gateway("{}", &own).await;
    assert_eq!(by_system.client().get("/a").await.text(), "/a");
    let by_file = gateway(TRUSTING, &others).await;
    assert_eq!(by_file.client().get("/b").await.text(), "/b");
    assert_eq!(tls.origin.count(), 2);
    // What was counted above as no byte is seen when there are some.
    assert!(!tls.front.data().is_empty());
}

/// Names that a client may say it asks for.
const HOSTS: [&str; 9] = [
    "evil.example",
    "127.0.0.1",
    "[::1]:443",
    "localhost.evil.example",
    "LOCALHOST",
    "localhost:1",
    "xn--mnchen-3ya.de",
    "shop.internal.",
    "a-b_c.example:65535",
];

#[tokio::test]
async fn what_a_client_calls_the_site_is_no_name_of_the_origin() {
    let tls = paths().await;
    for kind in ["preserve", "upstream"] {
        let one = setup(&tls, TRUSTING, &format!("{APART}, host_header: {kind}"));
        let gateway = one.start().await;
        for host in HOSTS {
            let answer = gateway.client().request("/a").host(host).send().await;
            assert_eq!(answer.status, 200, "{host}");
            let wanted = match kind {
                // Without the dot of the root.
                "preserve" => host.trim_end_matches('.').to_ascii_lowercase(),
                _ => tls.front.url().replace("https://", ""),
            };
            let got = tls.origin.last().authority.to_ascii_lowercase();
            assert_eq!(got, wanted, "{kind}");
        }
        for host in HOSTS {
            let one = setup(&tls, TRUSTING, &format!(", host_header: {kind}"));
            let gateway = one.start().await;
            let answer = gateway.client().request("/a").host(host).send().await;
            assert_eq!(answer.status, 200, "{host}");
            assert_eq!(tls.origin.last().version, http::Version::HTTP_2);
        }
    }
    let greetings = tls.front.greetings();
    assert_eq!(greetings.len(), HOSTS.len() * 4);
    let asked: BTreeSet<_> = greetings.into_iter().map(|one| one.sni).collect();
    assert_eq!(asked, BTreeSet::from([Some("localhost".to_owned())]));
}

#[tokio::test]
async fn a_certificate_for_the_clients_host_is_no_certificate_for_the_origin() {
    let tls = paths().await;
    tls.front.change(|settings| {
        settings.certificate = tls.authority.certify(&["evil.example"]);
    });
    for kind in ["preserve", "upstream"] {
        for protocol in ["auto", "http1", "http2"] {
            let more = format!(", host_header: {kind}, protocol: {protocol}");
            let gateway = setup(&tls, TRUSTING, &more).start().await;
            let ask = gateway.client().request("/a").host("evil.example");
            failed(&ask.send().await, "tls_certificate_error", &more);
        }
    }
    let greetings = tls.front.greetings();
    assert_eq!(greetings.len(), 6);
    for greeting in greetings {
        assert_eq!(greeting.sni.as_deref(), Some("localhost"));
    }
    assert!(tls.front.data().is_empty());
    // The same certificate is right where the configuration names it.
    let named = "{ca_file: ca.pem, server_name: evil.example}";
    let gateway = setup(&tls, named, "").start().await;
    let ask = gateway.client().request("/a").host("localhost");
    assert_eq!(ask.send().await.text(), "/a");
}

#[tokio::test]
async fn server_name_is_what_is_asked_for_and_what_is_verified() {
    let tls = paths().await;
    let named = "{ca_file: ca.pem, server_name: eu.shop.internal}";
    let gateway = setup(&tls, named, "").start().await;
    // The certificate is for the host of the target, which does not count now.
    let error = "tls_certificate_error";
    refused(&gateway, &tls.front, error, "another name").await;
    tls.front.change(|settings| {
        settings.certificate = tls.authority.certify(&["*.shop.internal"]);
    });
    assert_eq!(gateway.client().get("/a").await.text(), "/a");
    let greetings = tls.front.greetings();
    assert!(greetings.len() >= 2, "{greetings:?}");
    for greeting in greetings {
        assert_eq!(greeting.sni.as_deref(), Some("eu.shop.internal"));
    }
}

#[tokio::test]
async fn an_address_is_verified_and_not_asked_for() {
    let tls = paths().await;
    let port = tls.front.address().port();
    let by_address = format!("{{targets: [\"https://127.0.0.1:{port}\"], tls: {TRUSTING}}}");
    let name = "{ca_file: ca.pem, server_name: 127.0.0.1}";
    let by_name = tls.upstream(name, "");
    for upstream in [&by_address, &by_name] {
        let setup = setup(&tls, TRUSTING, "").upstream("origin", upstream);
        let gateway = setup.start().await;
        assert_eq!(gateway.client().get("/a").await.text(), "/a");
    }
    let greetings = tls.front.greetings();
    assert_eq!(greetings.len(), 2);
    for greeting in greetings {
        assert_eq!(greeting.sni, None);
    }
    // A name in the certificate is no address.
    let named = FrontSettings::new(tls.authority.certify(&["localhost"]));
    let front = TlsFront::before(tls.origin.address(), named).await;
    let port = front.address().port();
    let by_address = format!("{{targets: [\"https://127.0.0.1:{port}\"], tls: {TRUSTING}}}");
    let setup = setup(&tls, TRUSTING, "").upstream("origin", &by_address);
    let gateway = setup.start().await;
    refused(&gateway, &front, "tls_certificate_error", "no address").await;
}
