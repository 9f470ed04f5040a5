//! The records that are stored: what a restart, or another node, has to know.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An account with an issuer.
#[derive(Serialize, Deserialize)]
pub struct StoredAccount {
    /// The directory that it is known to.
    pub directory: String,
    pub contact: Vec<String>,
    /// The account's URL and key, in the form of the client library.
    pub credentials: Value,
}

/// A certificate with its key.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredCertificate {
    /// The issuer that it was obtained from.
    pub issuer: String,
    /// The certificate and those of the authorities between it and the root, as PEM.
    pub chain: String,
    /// The private key as PEM.
    pub key: String,
}

/// When an issuer wants a certificate to be renewed (RFC 9773). All times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredRenewal {
    /// Which certificate it is about.
    pub certificate: String,
    /// The window that it suggests. None if it does not say.
    pub window: Option<RenewalWindow>,
    /// When it is to be asked again.
    pub ask_again: u64,
}

/// A span of time in which a certificate is to be renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RenewalWindow {
    pub start: u64,
    pub end: u64,
}

/// An order that is under way.
#[derive(Serialize, Deserialize)]
pub struct StoredOrder {
    pub url: String,
    /// The private key of the certificate, as PEM.
    pub key: String,
    /// What was put into the DNS for it, so that whoever goes on with the order removes it.
    #[serde(default)]
    pub records: Vec<StoredDnsRecord>,
}

/// A record of the DNS that answers a challenge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredDnsRecord {
    pub name: String,
    pub text: String,
}

/// Failures to obtain a certificate. All times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct StoredAttempts {
    /// Failures in a row.
    pub failures: u32,
    /// Before this nothing is tried.
    pub not_before: u64,
    /// When names were found not to be ours, the last few times.
    pub refused: Vec<u64>,
    pub last_error: Option<String>,
}

/// Until when nothing is ordered from an issuer, in seconds since 1970.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct StoredPause {
    pub until: u64,
}

/// The answer to a challenge.
#[derive(Serialize, Deserialize)]
pub struct StoredChallenge {
    /// The token and the account's thumbprint (RFC 8555 §8.1).
    pub key_authorization: String,
    /// Seconds since 1970.
    pub until: u64,
}
