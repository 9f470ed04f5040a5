//! Automatic certificates, from a real certificate authority.

use std::net::SocketAddr;
use std::path::Path;

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pebble::{Pebble, PebbleOptions, connect, here};
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

/// How a gateway obtains a certificate.
pub struct Wanted<'a> {
    pub names: &'a [&'a str],
    /// Further keys of the issuer, as in `, key: both`.
    pub issuer: &'a str,
    /// Further keys of `acme`.
    pub acme: &'a str,
    /// Further keys of the clear-text listener.
    pub listener: &'a str,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            names: &[SHOP],
            issuer: "",
            acme: "",
            listener: "",
        }
    }
}

pub const SHOP: &str = "shop.acme.test";

/// A configuration that obtains certificates, and where they are kept.
pub struct Obtaining {
    pub setup: Setup,
    pub store: TempDir,
    /// Where it serves HTTPS.
    pub secured: SocketAddr,
}

impl Wanted<'_> {
    /// A gateway that obtains this from a certificate authority.
    pub fn from(&self, pebble: &Pebble, origin: &Origin) -> Obtaining {
        let store = tempfile::tempdir().unwrap();
        let issuers = format!("pebble: {}", pebble.issuer(self.issuer));
        Obtaining {
            setup: Setup::new(origin)
                .top("listeners", &self.listeners("127.0.0.1", pebble, "pebble"))
                .top("acme", &self.acme(store.path(), &issuers)),
            store,
            secured: here(pebble.tls_port),
        }
    }

    /// The section `acme`, with these issuers.
    pub fn acme(&self, store: &Path, issuers: &str) -> String {
        format!(
            "{{storage: \"{}\", poll_interval: 200ms{}, issuers: {{{issuers}}}}}",
            store.join("acme").display(),
            self.acme
        )
    }

    /// A clear-text listener and one with TLS, where the authority looks for them.
    pub fn listeners(&self, address: &str, pebble: &Pebble, issuers: &str) -> String {
        let names: Vec<_> = self
            .names
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let (clear, secured) = (pebble.http_port, pebble.tls_port);
        format!(
            "[{{address: \"{address}:{clear}\"{}}}, {{address: \"{address}:{secured}\", tls: {{certificates: [{{acme: {issuers}, names: [{}]}}]}}}}]",
            self.listener,
            names.join(", ")
        )
    }
}

/// An origin with one page.
pub async fn page() -> Origin {
    Origin::pages(|_| Reply::ok("page")).await
}

/// Waits until a server has a certificate of the authority for a name.
pub async fn obtained(pebble: &Pebble, server: SocketAddr, name: &str) -> CertificateDer<'static> {
    wait_for("a certificate is there", SOON * 2, || async {
        pebble.shown_by(server, name).await.ok()
    })
    .await
}

/// What `/readyz` says.
pub async fn readiness(gateway: &Gateway) -> serde_json::Value {
    let answer = gateway.admin(http::Method::GET, "/readyz", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

/// Orders of a gateway that ended like this.
pub async fn orders(gateway: &Gateway, issuer: &str, outcome: &str) -> f64 {
    let labels = [("issuer", issuer), ("outcome", outcome)];
    gateway.metric("lamina_acme_orders_total", &labels).await
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
async fn a_certificate_is_obtained_by_http_01_and_served_after_a_restart_without_the_issuer() {
    let (origin, mut pebble) = (page().await, Pebble::start().await);
    let names = [SHOP, "www.acme.test"];
    let wanted = Wanted {
        names: &names,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let gateway = site.setup.start().await;
    let mut shown = Vec::new();
    for name in names {
        shown.push(obtained(&pebble, site.secured, name).await);
    }
    wait_for("nothing is missing", SOON, || async {
        (readiness(&gateway).await["state"] == "serving").then_some(())
    })
    .await;
    assert_eq!(shown[0], shown[1]);
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1));
    assert_eq!(orders(&gateway, "pebble", "issued").await, 1.0);
    assert_eq!(gateway.metric("lamina_acme_failures", &[]).await, 0.0);
    for (path, mode) in modes(site.store.path()) {
        let wanted = if path.ends_with(".json") {
            0o600
        } else {
            0o700
        };
        assert_eq!(mode, wanted, "{path}");
    }
    drop(gateway);
    let root = pebble.root().await;
    pebble.kill();
    let _gateway = site.setup.start().await;
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    // It is ready, so that it must have the certificate.
    let stream = connect(site.secured, SHOP, roots, &[]).await.unwrap();
    let again = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(again[0], shown[0]);
}

#[tokio::test]
async fn a_certificate_is_obtained_by_tls_alpn_01_and_no_request_is_served_there() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let wanted = Wanted {
        issuer: ", challenge: tls-alpn-01",
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let gateway = site.setup.start().await;
    obtained(&pebble, site.secured, SHOP).await;
    let challenges = [("outcome", "challenge")];
    let handshakes = gateway.metric("lamina_tls_handshakes_total", &challenges);
    assert!(handshakes.await >= 1.0);
    let mut roots = RootCertStore::empty();
    roots.add(pebble.root().await).unwrap();
    let refused = connect(site.secured, SHOP, roots, &[b"acme-tls/1"]).await;
    let Err(error) = refused else {
        panic!("there is no challenge any more");
    };
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_without_a_failed_handshake() {
    let origin = page().await;
    let pebble = Pebble::start_with(PebbleOptions {
        validity: 20,
        ..PebbleOptions::default()
    })
    .await;
    let site = Wanted::default().from(&pebble, &origin);
    let gateway = site.setup.start().await;
    let first = obtained(&pebble, site.secured, SHOP).await;
    let renewed = wait_for("another certificate is there", SOON, || async {
        let shown = pebble.shown_by(site.secured, SHOP).await;
        // The client looks whether it is valid.
        let shown = shown.expect("each handshake succeeds");
        (shown != first).then_some(shown)
    })
    .await;
    assert_ne!(renewed, first);
    assert_eq!((pebble.orders(), pebble.accounts()), (2, 1));
    assert_eq!(orders(&gateway, "pebble", "issued").await, 2.0);
}

#[tokio::test]
async fn a_certificate_of_each_kind_of_key_is_obtained() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let wanted = Wanted {
        issuer: ", key: both, challenge: tls-alpn-01",
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let gateway = site.setup.start().await;
    for kind in ["ecdsa-p256", "rsa-2048"] {
        let id = format!("acme: pebble {SHOP} {kind}");
        let not_after = "lamina_tls_certificate_not_after_seconds";
        gateway
            .metric_until(not_after, &[("certificate", &id)], |at| at > 0.0)
            .await;
    }
    assert_eq!(pebble.orders(), 2);
}

#[tokio::test]
async fn challenges_come_before_redirects_and_unknown_tokens_are_the_origins() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let wanted = Wanted {
        listener: ", redirect_to_https: on",
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let gateway = site.setup.start().await;
    obtained(&pebble, site.secured, SHOP).await;
    let client = gateway.client();
    let token = "/.well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
    let answer = client.request(token).host(SHOP).send().await;
    assert_eq!(answer.text(), "page");
    let redirected = client.unchecked().request("/").host(SHOP).send().await;
    assert_eq!(redirected.status, 308);
}

#[tokio::test]
async fn who_has_an_account_outside_of_acme_binds_it() {
    let origin = page().await;
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::start_with(PebbleOptions {
        binding: Some(key),
        ..PebbleOptions::default()
    })
    .await;
    let wanted = Wanted {
        issuer: ", eab: {kid: kid-1, hmac_file: eab.key}, contact: [\"mailto:ops@acme.test\"]",
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let setup = site.setup.clone().file("eab.key", format!("{key}\n"));
    let _gateway = setup.start().await;
    obtained(&pebble, site.secured, SHOP).await;
}

#[tokio::test]
async fn the_preferred_chain_is_taken() {
    let origin = page().await;
    let pebble = Pebble::start_with(PebbleOptions {
        environment: vec![("PEBBLE_ALTERNATE_ROOTS", "2".to_owned())],
        ..PebbleOptions::default()
    })
    .await;
    let root = pebble.root_of_chain(2).await;
    let name = e2e::pebble::common_name(&root);
    let issuer = format!(", preferred_chain: \"{name}\"");
    let wanted = Wanted {
        issuer: &issuer,
        ..Wanted::default()
    };
    let site = wanted.from(&pebble, &origin);
    let _gateway = site.setup.start().await;
    wait_for("the chain to the preferred root is there", SOON, || async {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        connect(site.secured, SHOP, roots, &[]).await.ok()
    })
    .await;
}
