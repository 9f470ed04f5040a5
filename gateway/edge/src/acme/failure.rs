//! Why a certificate was not obtained.

use super::dns_challenge::DnsChallengeError;
use super::keys::KeyMakingError;
use super::schedule::AttemptFault;
use super::storage::AcmeStorageError;
use crate::http::tls::certificate::CertificateError;

/// Why a certificate was not obtained.
#[derive(Debug, thiserror::Error)]
pub enum AcmeFailure {
    #[error(transparent)]
    Issuer(#[from] instant_acme::Error),
    #[error("the issuer refuses: {0}")]
    Refused(String),
    #[error("{name}: the issuer does not offer the challenge {challenge}")]
    NoChallenge {
        name: String,
        challenge: &'static str,
    },
    #[error(transparent)]
    Dns(#[from] DnsChallengeError),
    #[error("the certificate that came can't be used: {0}")]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Storage(#[from] AcmeStorageError),
    #[error(transparent)]
    Key(#[from] KeyMakingError),
    #[error("the order took longer than `acme.order_timeout`")]
    Timeout,
    #[error("the stored account can't be read: {0}")]
    Account(String),
    #[error("the key of the certificate can't be used: {0}")]
    CertificateKey(String),
    #[error("eab.hmac: {0}; expected the key in base64url, as the issuer has given it out")]
    AccountBinding(String),
}

/// What the types of problems begin with (RFC 8555 §6.7).
const PROBLEM: &str = "urn:ietf:params:acme:error:";

impl AcmeFailure {
    /// The type of the problem that the issuer has answered with, as in `rateLimited`.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Issuer(instant_acme::Error::Api(problem)) => {
                problem.r#type.as_deref()?.strip_prefix(PROBLEM)
            }
            _ => None,
        }
    }

    /// Whether the issuer wants nothing of this account for a while.
    pub fn is_rate_limit(&self) -> bool {
        self.problem() == Some("rateLimited")
    }

    /// Whether another way than by the account may do better: the issuer refuses what the account asks
    /// for, or there is no account that can be used.
    pub fn may_be_about_the_account(&self) -> bool {
        let settled = ["alreadyRevoked", "rateLimited", "serverInternal"];
        match self.problem() {
            Some(problem) => !settled.contains(&problem),
            None => matches!(self, Self::Account(_) | Self::AccountBinding(_)),
        }
    }

    /// What it means for further attempts.
    pub fn fault(&self) -> AttemptFault {
        match self {
            Self::Refused(_) => AttemptFault::Refused,
            _ => AttemptFault::Other,
        }
    }
}
