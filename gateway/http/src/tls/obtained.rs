//! Certificates that are obtained from certificate authorities while the process runs, and the
//! answers to the challenges by which the authorities see that the names are ours (RFC 8555 §8).
//!
//! Who obtains them is above this crate: it provides certificates to [`TlsListeners`], and is
//! asked for answers through [`ChallengeAnswers`].

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use lamina_base::tls;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};

use super::certificate::ServerCertificate;
use super::config::CertificateSource;
use super::listeners::TlsListeners;
use super::names::canonical;

/// Certificates by the source that they are for.
pub type ObtainedCertificates = BTreeMap<ObtainedSourceId, Vec<Arc<ServerCertificate>>>;

/// Which source a certificate is obtained for: its issuers in their order, and its names in
/// alphabetical order. Sources that say the same share a certificate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObtainedSourceId(Arc<str>);

impl ObtainedSourceId {
    /// The id of a source. None if its certificates come from files.
    pub fn of(source: &CertificateSource) -> Option<Self> {
        let issuers = source.acme.as_ref()?.as_slice().join(",");
        let names = names_of(source).join(" ");
        Some(Self(format!("{issuers} {names}").into()))
    }
}

impl std::fmt::Display for ObtainedSourceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names of a source in alphabetical order, each once.
pub fn names_of(source: &CertificateSource) -> Vec<String> {
    let lower = |name: &String| name.trim_end_matches('.').to_ascii_lowercase();
    let mut names: Vec<_> = source.names.iter().map(lower).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Obtains certificates for names that clients ask for and that no source lists.
pub trait OnDemandCertificates: Send + Sync {
    /// Resolves when the source has a certificate for this name, in lower case, or when none comes
    /// in time.
    fn wanted<'a>(&'a self, source: &'a ObtainedSourceId, name: &'a str) -> BoxFuture<'a, ()>;
}

/// Who knows the answers to running challenges.
pub trait ChallengeAnswers: Send + Sync {
    /// What is to be said at `/.well-known/acme-challenge/TOKEN` (RFC 8555 §8.3).
    fn text(&self, token: &str) -> ChallengeLookup;

    /// The certificate for a handshake with this name (RFC 8737). None if there is no challenge.
    fn certificate<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Arc<CertifiedKey>>>;
}

/// What is known of a challenge.
pub enum ChallengeLookup {
    /// This is the answer.
    Known(Arc<str>),
    /// Another node may know it.
    Asked(BoxFuture<'static, Option<Arc<str>>>),
    Unknown,
}

/// The protocol of handshakes that are challenges (RFC 8737 §6.2).
const CHALLENGE_PROTOCOL: &[u8] = b"acme-tls/1";

/// The set-up for a handshake that is a challenge. None if it is none, or of an unknown challenge.
pub(crate) async fn challenge_config(
    listeners: &TlsListeners,
    hello: &ClientHello<'_>,
) -> Option<Arc<ServerConfig>> {
    let mut offered = hello.alpn()?;
    if !offered.any(|protocol| protocol == CHALLENGE_PROTOCOL) {
        return None;
    }
    let name = canonical(hello.server_name()?)?;
    let certificate = listeners.challenges()?.certificate(&name).await?;
    config(certificate).ok()
}

fn config(certificate: Arc<CertifiedKey>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.alpn_protocols = vec![CHALLENGE_PROTOCOL.to_vec()];
    // Nobody resumes a challenge.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
