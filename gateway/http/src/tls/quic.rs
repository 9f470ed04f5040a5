//! TLS below QUIC: the same certificates and the same policies as over TCP.
//!
//! Inside: `session` is the TLS of one connection, `sessions` keeps those that early data needs.
//!
//! Decision: quinn is given a session of our own, and not its own one, which takes one
//! configuration before it knows the name that a client asks for. Ours keeps the ClientHello until
//! it is whole, chooses certificate and policy by it as `server::handshake` does over TCP, and
//! begins rustls then. It also tells what quinn's keeps to itself: whether a session was resumed.

mod session;
mod sessions;

use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac};
use quinn::ConnectionId;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{self, HandshakeTokenKey, HmacKey, Keys, UnsupportedVersion};
use quinn_proto::transport_parameters::TransportParameters;
use rustls::ServerConfig;
use rustls::quic::{Suite, Version};

use super::TlsListener;
use super::policy::TlsPolicy;
use super::setup_error::{TlsSetupError, TlsSetupFault};
use super::tickets::TicketSecrets;
use session::PolicySession;
use sessions::{NoTickets, SessionsOfPolicy};

pub(crate) use session::QuicHandshake;
pub(super) use sessions::KeptSessions;

/// The protocol of HTTP/3 for ALPN (RFC 9114 §3.1).
const ALPN: &[u8] = b"h3";

/// The version of QUIC that is spoken (RFC 9000 §15).
pub(crate) const QUIC_VERSION: u32 = 1;

/// What the derived keys are for (RFC 5869 §3.2).
const PURPOSE: &[u8] = b"lamina quic 1";

/// The secrets of QUIC that are the same for all workers, and for all nodes that share the keys of
/// tickets: a node can then end a connection that it does not know, and accept the token of another.
#[derive(Clone)]
pub(crate) struct QuicSecrets {
    pub(crate) reset_key: Arc<dyn HmacKey>,
    pub(crate) token_key: Arc<dyn HandshakeTokenKey>,
}

impl QuicSecrets {
    pub(crate) fn new(secrets: &TicketSecrets) -> Self {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, PURPOSE);
        let reset = hmac::Key::new(hmac::HMAC_SHA256, secrets.first());
        Self {
            reset_key: Arc::new(reset),
            token_key: Arc::new(extracted.extract(secrets.first())),
        }
    }
}

/// What QUIC is spoken by under a policy. With `early`, requests may come before the handshake is
/// complete, and sessions live there and not in tickets.
pub(super) fn config(over_tcp: &ServerConfig, early: Option<SessionsOfPolicy>) -> ServerConfig {
    let mut config = over_tcp.clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    if let Some(sessions) = early {
        config.ticketer = Arc::new(NoTickets);
        config.session_storage = Arc::new(sessions);
        // The only value beside 0 (RFC 9001 §4.6.1); what bounds it are the windows of QUIC.
        config.max_early_data_size = u32::MAX;
    }
    config
}

/// The protection of the first packets, before there is a policy: AES-128-GCM (RFC 9001 §5.2).
///
/// # Errors
/// If the policy does not offer that cipher.
pub(super) fn initial_suite(policy: &TlsPolicy) -> Result<Suite, TlsSetupError> {
    let suites = &policy.config.crypto_provider().cipher_suites;
    let initial = suites.iter().find_map(|suite| {
        let is_initial = suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
        suite.tls13().filter(|_| is_initial)?.quic_suite()
    });
    initial.ok_or_else(|| TlsSetupError::at("ciphers", TlsSetupFault::NoQuicCipher))
}

/// Begins the TLS of connections by what the listener has at that moment.
pub(crate) struct QuicTls {
    listener: Arc<TlsListener>,
    suite: Suite,
    /// Only for the tag of a Retry, which has nothing to do with certificates.
    retries: Arc<QuicServerConfig>,
}

impl QuicTls {
    /// None if the listener does not speak HTTP/3.
    pub(crate) fn new(listener: &Arc<TlsListener>) -> Option<Self> {
        let tables = listener.current.load();
        let suite = tables.quic?;
        let any = Arc::clone(tables.policies.first()?.quic.as_ref()?);
        Some(Self {
            listener: Arc::clone(listener),
            suite,
            retries: Arc::new(QuicServerConfig::with_initial(any, suite).ok()?),
        })
    }

    fn first_keys(&self, id: &ConnectionId) -> Keys {
        session::keys(self.suite.keys(id, rustls::Side::Server, Version::V1))
    }
}

impl crypto::ServerConfig for QuicTls {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        match version {
            QUIC_VERSION => Ok(self.first_keys(id)),
            _ => Err(UnsupportedVersion),
        }
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.retries.retry_tag(version, id, packet)
    }

    fn start_session(
        self: Arc<Self>,
        _version: u32,
        parameters: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        let mut octets = Vec::new();
        parameters.write(&mut octets);
        Box::new(PolicySession::new(self, octets))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tickets::ProcessSecret;
    use super::*;

    /// What quinn puts into a token has this form of nonce and no further data.
    fn sealed(secrets: &QuicSecrets) -> Vec<u8> {
        let mut token = b"an address".to_vec();
        let key = secrets.token_key.aead_from_hkdf(b"nonce");
        key.seal(&mut token, &[]).unwrap();
        token
    }

    fn opens(secrets: &QuicSecrets, mut token: Vec<u8>) -> bool {
        let key = secrets.token_key.aead_from_hkdf(b"nonce");
        key.open(&mut token, &[])
            .is_ok_and(|opened| opened == b"an address")
    }

    fn resets(secrets: &QuicSecrets) -> Vec<u8> {
        let mut octets = vec![0; secrets.reset_key.signature_len()];
        secrets.reset_key.sign(b"connection id", &mut octets);
        octets
    }

    /// Clients were given both by the process before, or by another node.
    #[test]
    fn tokens_and_resets_are_the_same_under_the_same_secret_and_no_other() {
        let address = "127.0.0.1:443".parse().unwrap();
        let before = ProcessSecret::random();
        let after = ProcessSecret::of(before.octets()).unwrap();
        let other = ProcessSecret::random();
        let of = |secret: &ProcessSecret| QuicSecrets::new(&secret.of_listener(address));
        let [before, after, other] = [&before, &after, &other].map(of);
        assert!(opens(&after, sealed(&before)));
        assert!(!opens(&other, sealed(&before)));
        assert_eq!(resets(&before), resets(&after));
        assert_ne!(resets(&before), resets(&other));
        let nodes = || QuicSecrets::new(&TicketSecrets::of(vec![vec![7; 32], vec![8; 32]]));
        assert!(opens(&nodes(), sealed(&nodes())));
        assert_eq!(resets(&nodes()), resets(&nodes()));
    }
}
