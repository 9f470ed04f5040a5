//! Automatic certificates, from a real certificate authority.

use std::path::Path;

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pebble::Pebble;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use rustls::pki_types::CertificateDer;

/// A gateway in front of a certificate authority.
pub struct Obtaining {
    pub setup: Setup,
    /// The port at which it serves HTTPS.
    pub port: u16,
}

/// A gateway that obtains a certificate for these names; `issuer` and `acme` are further keys.
pub fn obtaining(
    origin: &Origin,
    pebble: &Pebble,
    names: &[&str],
    issuer: &str,
    acme: &str,
) -> Obtaining {
    let (clear, port) = (pebble.http_port, pebble.tls_port);
    let listeners = listeners("127.0.0.1", (clear, port), names);
    let acme = format!(
        "{{storage: store, poll_interval: 200ms{acme}, issuers: {{pebble: {}}}}}",
        pebble.issuer(issuer)
    );
    let setup = Setup::new(origin)
        .top("listeners", &listeners)
        .top("acme", &acme);
    Obtaining { setup, port }
}

/// An origin with one page.
pub async fn page() -> Origin {
    Origin::pages(|_| Reply::ok("page")).await
}

/// A clear-text listener and one with TLS.
pub fn listeners(address: &str, (clear, secured): (u16, u16), names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        "[{{address: \"{address}:{clear}\"}}, {{address: \"{address}:{secured}\", tls: {{certificates: [{{acme: pebble, names: [{}]}}]}}}}]",
        names.join(", ")
    )
}

/// Waits until the name has a certificate of the authority.
pub async fn obtained(pebble: &Pebble, port: u16, name: &str) -> CertificateDer<'static> {
    wait_for("a certificate is there", SOON * 2, || async {
        pebble.shown_by(port, name).await.ok()
    })
    .await
}

/// What `/readyz` says.
pub async fn readiness(gateway: &Gateway) -> serde_json::Value {
    let answer = gateway.admin(http::Method::GET, "/readyz", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

fn modes(folder: &Path) -> Vec<(String, u32)> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            found.extend(modes(&path));
        }
        found.push((path.display().to_string(), mode));
    }
    found
}

#[tokio::test]
async fn a_certificate_is_obtained_by_http_01_and_survives_a_restart() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let names = ["shop.acme.test", "www.acme.test"];
    let site = obtaining(&origin, &pebble, &names, "", "");
    let gateway = site.setup.start().await;
    for name in names {
        obtained(&pebble, site.port, name).await;
    }
    wait_for("nothing is missing", SOON, || async {
        (readiness(&gateway).await["state"] == "serving").then_some(())
    })
    .await;
    assert_eq!(pebble.orders(), 1);
    let labels = [("issuer", "pebble"), ("outcome", "issued")];
    let issued = gateway.metric("lamina_acme_orders_total", &labels).await;
    assert_eq!(issued, 1.0);
    assert_eq!(gateway.metric("lamina_acme_failures", &[]).await, 0.0);
    for (path, mode) in modes(&gateway.dir().join("store")) {
        let wanted = if path.ends_with(".json") {
            0o600
        } else {
            0o700
        };
        assert_eq!(mode, wanted, "{path}");
    }
}
