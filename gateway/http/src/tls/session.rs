//! What is known of a TLS connection after its handshake.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ServerConnection, SupportedCipherSuite};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::reference::without_port;

use super::certificate::{ServerCertificate, instant};
use super::config::{ClientCertificateField, FingerprintField};
use super::policy::TlsPolicy;
use super::quic::QuicHandshake;
use super::{ServerChoice, TlsListener, client_chain};

/// A TLS connection with a client.
pub struct TlsSession {
    /// As in `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, by its name in the IANA registry.
    pub cipher: String,
    /// The name that the client asked for (SNI).
    pub server_name: Option<Box<str>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The fingerprint of the client's software (JA4).
    pub ja4: Option<Box<str>>,
    /// The field `Client-Cert` (RFC 9440), if the policy asks for it and the client showed a
    /// certificate, which was verified.
    pub client_certificate: Option<HeaderValue>,
    /// The field `Client-Cert-Chain` (RFC 9440), if the policy asks for it and there is one.
    pub(crate) client_chain: Option<HeaderValue>,
    /// The field `Client-JA4`, if the listener tells it.
    pub(crate) ja4_field: Option<HeaderValue>,
    pub(crate) listener: Arc<TlsListener>,
    certificate: Arc<ServerCertificate>,
    policy: Arc<TlsPolicy>,
    /// Whether the certificate covers the name that the client asked for.
    covers_its_name: bool,
}

/// Marks a request whose client has shown a certificate that the request's fields tell.
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificatePresented;

/// Why a connection is not used although its handshake succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SessionRefusal {
    #[error("the certificate of the client has expired since the session began")]
    ClientCertificateExpired,
}

/// What a handshake has led to, whatever it ran over.
struct CompletedHandshake<'a> {
    version: &'static str,
    suite: Option<SupportedCipherSuite>,
    server_name: Option<Box<str>>,
    resumed: bool,
    ja4: Option<Box<str>>,
    /// What the client has shown, its own certificate first, which is verified.
    presented: &'a [CertificateDer<'static>],
}

impl TlsSession {
    pub(crate) fn new(
        connection: &ServerConnection,
        choice: ServerChoice,
        listener: &Arc<TlsListener>,
        ja4: Option<String>,
    ) -> Result<Self, SessionRefusal> {
        let handshake = CompletedHandshake {
            version: match connection.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "unknown",
            },
            suite: connection.negotiated_cipher_suite(),
            server_name: connection.server_name().map(Into::into),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            ja4: ja4.map(Into::into),
            presented: connection.peer_certificates().unwrap_or_default(),
        };
        Self::of(handshake, choice, listener)
    }

    /// The session of a QUIC connection whose handshake is complete.
    pub(crate) fn over_quic(
        handshake: QuicHandshake,
        listener: &Arc<TlsListener>,
    ) -> Result<Self, SessionRefusal> {
        let QuicHandshake {
            choice,
            server_name,
            resumed,
            suite,
            ja4,
            presented,
            ..
        } = handshake;
        let handshake = CompletedHandshake {
            version: "TLSv1.3",
            suite,
            server_name,
            resumed,
            ja4,
            presented: &presented,
        };
        Self::of(handshake, choice, listener)
    }

    fn of(
        handshake: CompletedHandshake<'_>,
        choice: ServerChoice,
        listener: &Arc<TlsListener>,
    ) -> Result<Self, SessionRefusal> {
        let ServerChoice {
            certificate,
            policy,
        } = choice;
        let CompletedHandshake {
            presented, resumed, ..
        } = handshake;
        let shown = presented.first();
        // A resumed session brings the certificate of the handshake that it goes back to.
        if resumed && shown.is_some_and(|shown| has_expired(shown)) {
            return Err(SessionRefusal::ClientCertificateExpired);
        }
        let told = shown.filter(|_| policy.forward != ClientCertificateField::Off);
        let client_chain = match policy.forward {
            ClientCertificateField::ClientCertChain => client_chain::field(presented, &policy),
            ClientCertificateField::ClientCert | ClientCertificateField::Off => None,
        };
        let tells_ja4 = listener.config.ja4 == FingerprintField::On;
        let ja4_field = handshake.ja4.as_deref().filter(|_| tells_ja4);
        let name = handshake.server_name;
        Ok(Self {
            version: handshake.version,
            cipher: handshake.suite.map_or_else(String::new, |suite| {
                format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
            }),
            resumed,
            ja4_field: ja4_field.and_then(|ja4| HeaderValue::from_str(ja4).ok()),
            ja4: handshake.ja4,
            client_certificate: told.and_then(|certificate| field(certificate)),
            client_chain,
            listener: Arc::clone(listener),
            covers_its_name: name.as_deref().is_some_and(|name| certificate.covers(name)),
            server_name: name,
            certificate,
            policy,
        })
    }

    /// Whether a request for this host may come over the connection: its certificate covers the
    /// host, and the host's policy is the one that the session was made under (RFC 9110 §15.5.20).
    pub(crate) fn may_serve(&self, host: &str) -> bool {
        let host = without_port(host);
        let asked_for = self.server_name.as_deref();
        if self.covers_its_name && asked_for.is_some_and(|name| name.eq_ignore_ascii_case(host)) {
            return true;
        }
        self.certificate.covers(host) && self.listener.policy_of(host).id == self.policy.id
    }
}

/// Whether a certificate (DER) is no longer valid, or can't be read.
pub(super) fn has_expired(certificate: &[u8]) -> bool {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => instant(parsed.validity().not_after.timestamp()) <= SystemTime::now(),
        Err(_) => true,
    }
}

/// A certificate as a field: a byte sequence (RFC 9440 §2.1, RFC 9651 §3.3.5).
fn field(certificate: &CertificateDer<'_>) -> Option<HeaderValue> {
    let item = sfv::ItemSerializer::new();
    let text = item.bare_item(&certificate[..]).finish();
    HeaderValue::from_str(&text).ok()
}
