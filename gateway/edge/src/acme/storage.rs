//! Where accounts, certificates, orders and answers to challenges are kept, and whose turn it is to
//! order a certificate.
//!
//! Inside: `folder` and `redis` are the two places, `seal` hides what is put into the second.
//! Invariant: whoever has lost a lease writes nothing under it any more.

pub mod folder;
pub mod redis;
mod seal;

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a record is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AcmeRecordKind {
    /// An account with an issuer.
    Account,
    /// A certificate with its key.
    Certificate,
    /// When an issuer wants a certificate to be renewed.
    Renewal,
    /// An order that is under way.
    Order,
    /// Failures to obtain a certificate.
    Attempts,
    /// Until when nothing is ordered from an issuer.
    Pause,
    /// The answer to a challenge.
    Challenge,
    /// The secret that session tickets of one span of time are sealed by.
    TicketSecret,
}

impl AcmeRecordKind {
    pub const ALL: [Self; 8] = [
        Self::Account,
        Self::Certificate,
        Self::Renewal,
        Self::Order,
        Self::Attempts,
        Self::Pause,
        Self::Challenge,
        Self::TicketSecret,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Account => "accounts",
            Self::Certificate => "certificates",
            Self::Renewal => "renewals",
            Self::Order => "orders",
            Self::Attempts => "attempts",
            Self::Pause => "pauses",
            Self::Challenge => "challenges",
            Self::TicketSecret => "tickets",
        }
    }

    /// Whether all nodes look at records of this kind again when one of them has changed.
    fn is_watched(self) -> bool {
        matches!(
            self,
            Self::Certificate | Self::Renewal | Self::Attempts | Self::Pause
        )
    }
}

/// The name of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcmeRecordKey {
    pub kind: AcmeRecordKind,
    pub name: String,
}

impl AcmeRecordKey {
    pub fn new(kind: AcmeRecordKind, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { kind, name }
    }
}

impl fmt::Display for AcmeRecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), stem(&self.name))
    }
}

/// The most octets of a name that remain readable in the name of a file or a key.
const MOST_READABLE: usize = 80;

/// A name as the name of a file or a key: its beginning so that people know it, and a digest so
/// that no two names are the same.
fn stem(name: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() || "-_.".contains(c) {
        true => c,
        false => '_',
    };
    let readable: String = name.chars().take(MOST_READABLE).map(plain).collect();
    let digest = digest(&SHA256, name.as_bytes());
    let digest: String = digest.as_ref()[..8]
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    format!("{}-{digest}", readable.trim_start_matches('.'))
}

/// The turn of this node at a certificate or an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcmeLease {
    pub name: String,
    /// Grows with each owner.
    pub number: u64,
    /// Tells this owner from all others.
    pub token: String,
}

/// Why something can't be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcmeStorageError {
    #[error("the storage of certificates can't be used: {0}")]
    Unusable(String),
    #[error("{0}: not a record of ours: {1}")]
    Corrupt(String, String),
    #[error("another node has taken over")]
    LeaseLost,
}

/// The outcome of a call to the storage.
pub type AcmeStored<'a, T> = BoxFuture<'a, Result<T, AcmeStorageError>>;

/// A place where records are kept.
pub trait AcmeStorage: Send + Sync {
    /// Whether other nodes may know records that this one does not.
    fn is_shared(&self) -> bool;

    fn read<'a>(&'a self, key: &'a AcmeRecordKey) -> AcmeStored<'a, Option<Vec<u8>>>;

    /// Writes a record, for so long if `life` is given. With a lease, only while it is ours.
    fn write<'a>(
        &'a self,
        key: &'a AcmeRecordKey,
        record: Vec<u8>,
        life: Option<Duration>,
        lease: Option<&'a AcmeLease>,
    ) -> AcmeStored<'a, ()>;

    fn remove<'a>(&'a self, key: &'a AcmeRecordKey) -> AcmeStored<'a, ()>;

    /// A value that is another one after a watched record was written or removed.
    fn version(&self) -> AcmeStored<'_, Vec<u8>>;

    /// Takes the lease with this name. None if another one has it.
    fn acquire<'a>(&'a self, name: &'a str, life: Duration) -> AcmeStored<'a, Option<AcmeLease>>;

    /// Renews a lease. Returns whether it is still ours.
    fn renew<'a>(&'a self, lease: &'a AcmeLease, life: Duration) -> AcmeStored<'a, bool>;

    fn release<'a>(&'a self, lease: &'a AcmeLease) -> AcmeStored<'a, ()>;
}

/// Reads a record.
///
/// # Errors
/// If it can't be read, or is not one of ours.
pub async fn load<T: DeserializeOwned>(
    storage: &dyn AcmeStorage,
    key: &AcmeRecordKey,
) -> Result<Option<T>, AcmeStorageError> {
    let Some(octets) = storage.read(key).await? else {
        return Ok(None);
    };
    let parsed = serde_json::from_slice(&octets);
    parsed
        .map(Some)
        .map_err(|error| AcmeStorageError::Corrupt(key.to_string(), error.to_string()))
}

/// Writes a record.
///
/// # Errors
/// If it can't be written, or the lease is lost.
pub async fn store<T: Serialize>(
    storage: &dyn AcmeStorage,
    key: &AcmeRecordKey,
    record: &T,
    lease: Option<&AcmeLease>,
) -> Result<(), AcmeStorageError> {
    let octets = serde_json::to_vec(record);
    let octets =
        octets.map_err(|error| AcmeStorageError::Corrupt(key.to_string(), error.to_string()))?;
    storage.write(key, octets, None, lease).await
}

/// A token that nobody else has.
fn new_token() -> Result<String, AcmeStorageError> {
    let mut octets = [0; 16];
    aws_lc_rs::rand::fill(&mut octets)
        .map_err(|_| AcmeStorageError::Unusable("no random numbers".to_owned()))?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::{AcmeRecordKey, AcmeRecordKind};

    #[test]
    fn no_name_leads_out_of_its_folder() {
        let key = |name: &str| AcmeRecordKey::new(AcmeRecordKind::Challenge, name).to_string();
        let climbing = key("../../etc/passwd");
        assert!(
            climbing.starts_with("challenges/_.._etc_passwd-"),
            "{climbing}"
        );
        assert!(key("..").starts_with("challenges/-"));
        assert_ne!(key("a b"), key("a_b"));
        assert!(key(&"x".repeat(4_096)).len() < 120);
    }
}
