//! Which certificates are different in another configuration, also where it names the same files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::app::{GatewayStartError, certificates};
use crate::config::GatewayConfig;
use crate::http::config::ListenerConfig;
use crate::http::tls::certificate::ServerCertificate;
use crate::http::tls::listeners::TlsListeners;
use crate::http::tls::obtained::names_of;

/// The differences between the certificates of two configurations.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CertificateChanges {
    /// Names for which there is no certificate now.
    pub added_names: Vec<String>,
    /// Names for which there would be none any more.
    pub removed_names: Vec<String>,
    /// Files that hold another certificate than the one that is in use from them.
    pub exchanged: Vec<ExchangedCertificate>,
}

/// A file that holds another certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExchangedCertificate {
    pub file: String,
    /// When each ends, in seconds since 1970.
    pub not_after_before: u64,
    pub not_after: u64,
}

/// What clients can be shown by a configuration.
struct ShownCertificates<'a> {
    listeners: &'a [ListenerConfig],
    certificates: Vec<Arc<ServerCertificate>>,
}

impl ShownCertificates<'_> {
    /// The names that stand in the certificates, and those that are to be obtained.
    fn names(&self) -> BTreeSet<String> {
        let held = self.certificates.iter().flat_map(|held| &held.names);
        let tls = self.listeners.iter().filter_map(|one| one.tls.as_ref());
        let sources = tls.flat_map(|tls| &tls.certificates);
        let obtained = sources.filter(|source| source.acme.is_some());
        held.map(ToString::to_string)
            .chain(obtained.flat_map(names_of))
            .collect()
    }

    fn by_file(&self) -> BTreeMap<&Path, &ServerCertificate> {
        let all = self.certificates.iter();
        all.map(|one| (&*one.file, &**one)).collect()
    }
}

impl CertificateChanges {
    /// What is different in `after` from the certificates that are in use. It reads files.
    ///
    /// # Errors
    /// If a file can't be used.
    pub fn of(
        (before, in_use): (&GatewayConfig, Vec<Arc<ServerCertificate>>),
        after: &GatewayConfig,
        tls: &Arc<TlsListeners>,
    ) -> Result<Self, GatewayStartError> {
        let opened = certificates::open(after, tls)?.into_iter();
        let opened = opened.flat_map(|listener| listener.certificates);
        let before = ShownCertificates {
            listeners: &before.listeners,
            certificates: in_use,
        };
        let after = ShownCertificates {
            listeners: &after.listeners,
            certificates: opened.collect(),
        };
        Ok(Self::between(&before, &after))
    }

    fn between(before: &ShownCertificates<'_>, after: &ShownCertificates<'_>) -> Self {
        let (names_before, names_after) = (before.names(), after.names());
        let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| {
            these.difference(those).cloned().collect()
        };
        let held = before.by_file();
        let exchanged = after.by_file().into_iter().filter_map(|(file, after)| {
            let before = held.get(file).filter(|before| !before.is_same_as(after))?;
            Some(ExchangedCertificate {
                file: file.display().to_string(),
                not_after_before: seconds(before.not_after),
                not_after: seconds(after.not_after),
            })
        });
        Self {
            added_names: only(&names_after, &names_before),
            removed_names: only(&names_before, &names_after),
            exchanged: exchanged.collect(),
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs())
}
