//! What is wrong with TLS of a listener, and under which key of the configuration.

use std::path::PathBuf;

use super::certificate::CertificateError;
use super::config::ListenerTlsConfig;
use super::files::PairFault;
use super::policy::TlsPolicyError;

/// Why TLS of a listener can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("tls.{key}: {fault}")]
pub struct TlsSetupError {
    /// The key below `tls`, as in `certificates[0].cert`; empty for `tls` as a whole.
    pub key: String,
    // Not as a source: the message above holds it already.
    pub fault: Box<TlsSetupFault>,
}

/// What is wrong with TLS of a listener.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupFault {
    #[error("{0}")]
    Certificate(CertificateError),
    #[error("{0}")]
    Policy(TlsPolicyError),
    #[error("QUIC needs TLS13_AES_128_GCM_SHA256; expected it among them, or no `http3`")]
    NoQuicCipher,
    #[error("no certificate was found; expected at least one pair of files")]
    NoCertificates,
    #[error(
        "{} is the `cert` of none of the certificates; expected one of them",
        file.display()
    )]
    Default { file: PathBuf },
    #[error(
        "none of the listener's certificates is for {name}, so that the policy is for nobody; \
         expected a name that stands in one of them"
    )]
    PolicyForNobody { name: String },
}

impl TlsSetupError {
    pub(super) fn at(key: impl Into<String>, fault: TlsSetupFault) -> Self {
        Self {
            key: key.into(),
            fault: Box::new(fault),
        }
    }

    /// Something is wrong with what a source of certificates names.
    pub(super) fn of_source(config: &ListenerTlsConfig, pair: PairFault) -> Self {
        let source = config.certificates.get(pair.source);
        let below = source.map_or_else(String::new, |source| pair.error.key(source));
        let key = format!("certificates[{}].{below}", pair.source);
        Self::at(key, TlsSetupFault::Certificate(pair.error))
    }

    /// Something is wrong with what the listener demands, or with the policy of names at this place.
    pub(super) fn of_policy(policy: Option<usize>, error: TlsPolicyError) -> Self {
        Self::at(error.key(policy), TlsSetupFault::Policy(error))
    }
}
