//! An authority and a server's certificate for a gateway that speaks HTTP/3.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore};

use super::Reach;
use crate::setup::Setup;

/// What a gateway shows and its clients trust.
pub struct Certificates {
    /// The certificate of the authority, as PEM.
    pub authority: String,
    /// The certificate of the server, as PEM.
    pub server: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
    names: Vec<String>,
    /// One for all connections, since a session is resumed under the same one alone.
    verifier: Arc<WebPkiServerVerifier>,
}

/// A certificate of the server with its key, as PEM.
fn pair(names: &[String], issuer: &Issuer<'static, KeyPair>) -> [String; 2] {
    let server = CertificateParams::new(names.to_vec()).expect("the names are valid");
    let key = KeyPair::generate().expect("a key can be made");
    let server = server.signed_by(&key, issuer).expect("it can be signed");
    [server.pem(), key.serialize_pem()]
}

impl Certificates {
    /// A certificate for these names.
    pub fn new(names: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut authority = CertificateParams::new(Vec::new()).expect("no names are valid names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = "Lamina's tests of HTTP/3";
        authority.distinguished_name.push(DnType::CommonName, name);
        let root = authority.self_signed(&key).expect("a root can be signed");
        let issuer = Issuer::new(authority, key);
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let [server, key] = pair(&names, &issuer);
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).expect("the root is one");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("there is a root");
        Self {
            authority: root.pem(),
            server,
            key,
            issuer,
            names,
            verifier,
        }
    }

    /// Another certificate for the same names, and its key, as the files of the first one.
    pub fn renewed(&self) -> [(&'static str, String); 2] {
        let [server, key] = pair(&self.names, &self.issuer);
        [("server.crt", server), ("server.key", key)]
    }

    /// The SHA-256 of the server's public key, as browsers and curl pin it.
    pub fn pin(&self) -> String {
        crate::tls_origin::pin(&self.key)
    }

    /// The files that a gateway and its clients need: names and contents.
    pub fn files(&self) -> [(&'static str, &str); 3] {
        [
            ("server.crt", &self.server),
            ("server.key", &self.key),
            ("ca.crt", &self.authority),
        ]
    }

    /// The setup with these files, TLS, and all protocols. `tls` are further keys of it.
    pub fn secure(&self, setup: Setup, tls: &str) -> Setup {
        let certificates = "certificates: [{cert: server.crt, key: server.key}]";
        let files = self.files().into_iter();
        files
            .fold(setup, |setup, (name, content)| setup.file(name, content))
            .listener("protocols", "[http1, http2, http3]")
            .listener("tls", &format!("{{{certificates}{tls}}}"))
    }

    /// TLS of a client that offers this protocol alone.
    pub fn tls(&self, protocol: &str) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config
    }

    pub fn quic(&self, reach: &Reach) -> quinn::ClientConfig {
        self.quic_over(reach, |tls| tls)
    }

    /// The same with TLS that is wrapped in something.
    pub(crate) fn quic_over(
        &self,
        reach: &Reach,
        wrap: impl FnOnce(Arc<dyn quinn::crypto::ClientConfig>) -> Arc<dyn quinn::crypto::ClientConfig>,
    ) -> quinn::ClientConfig {
        let mut tls = self.tls("h3");
        tls.resumption = reach.sessions.clone();
        tls.enable_early_data = true;
        tls.client_auth_cert_resolver = Arc::clone(&reach.shows);
        let tls = QuicClientConfig::try_from(tls).expect("TLS 1.3 is there");
        let mut config = quinn::ClientConfig::new(wrap(Arc::new(tls)));
        config.transport_config(Arc::clone(&reach.transport));
        config
    }
}
