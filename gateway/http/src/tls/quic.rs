//! TLS below QUIC: the same certificates, and one policy.
//!
//! Decision: names with a policy of their own are not served over QUIC. quinn takes one
//! configuration before it knows the name that a client asks for, and a session must not escape
//! the policy of its name. Such clients are refused in the handshake and are not told of HTTP/3;
//! they use TCP.

use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{HandshakeTokenKey, HmacKey};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::names::{ServerNameTable, canonical};
use super::policy::TlsPolicy;
use super::tickets::TicketSecrets;
use super::{CertificateTable, TlsSetupError, TlsSetupFault};

/// The protocol of HTTP/3 for ALPN (RFC 9114 §3.1).
const ALPN: &[u8] = b"h3";

/// What the derived keys are for (RFC 5869 §3.2).
const PURPOSE: &[u8] = b"lamina quic 1";

/// The secrets of QUIC that are the same for all workers, and for all nodes that share the keys of
/// tickets: a node can then end a connection that it does not know, and accept the token of another.
#[derive(Clone)]
pub(crate) struct QuicSecrets {
    pub(crate) reset_key: Arc<dyn HmacKey>,
    pub(crate) token_key: Arc<dyn HandshakeTokenKey>,
    /// What an endpoint is opened with, before it chooses a configuration for each client.
    pub(crate) placeholder: Option<quinn::ServerConfig>,
}

impl QuicSecrets {
    pub(crate) fn new(secrets: &TicketSecrets, config: Option<Arc<QuicServerConfig>>) -> Self {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, PURPOSE);
        let reset = hmac::Key::new(hmac::HMAC_SHA256, secrets.first());
        let token_key: Arc<dyn HandshakeTokenKey> = Arc::new(extracted.extract(secrets.first()));
        let token = Arc::clone(&token_key);
        Self {
            reset_key: Arc::new(reset),
            token_key,
            placeholder: config.map(|config| quinn::ServerConfig::new(config, token)),
        }
    }
}

/// What QUIC is spoken by, made of the listener's own policy.
pub(super) fn config(
    policy: &TlsPolicy,
    certificates: &Arc<CertificateTable>,
    policy_of: &Arc<ServerNameTable<usize>>,
) -> Result<Arc<QuicServerConfig>, TlsSetupError> {
    let mut config = (*policy.config).clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.cert_resolver = Arc::new(WithoutPolicy {
        certificates: Arc::clone(certificates),
        policy_of: Arc::clone(policy_of),
    });
    let config = QuicServerConfig::try_from(Arc::new(config));
    config
        .map(Arc::new)
        .map_err(|_| TlsSetupError::at("ciphers", TlsSetupFault::NoQuicCipher))
}

/// Gives rustls the certificate for a client that asks for a name without a policy of its own.
#[derive(Debug)]
struct WithoutPolicy {
    certificates: Arc<CertificateTable>,
    policy_of: Arc<ServerNameTable<usize>>,
}

impl ResolvesServerCert for WithoutPolicy {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(canonical);
        if name
            .as_deref()
            .is_some_and(|name| self.policy_of.get(name).is_some())
        {
            return None;
        }
        let chosen = self.certificates.choose(name.as_deref(), &hello)?;
        Some(Arc::clone(&chosen.certified))
    }
}
