//! What is told of automatic certificates: to `/readyz`, to metrics, and to operators, who can ask
//! for more.

use std::sync::Arc;

use super::failure::AcmeFailure;
use super::managed::{CertificateOccasion, ManagedCertificate};
use super::metrics::ScheduledCertificate;
use super::{AcmeManager, revocation, schedule};

/// The most names that are listed as missing.
const MOST_LISTED: usize = 20;

/// Names that have no certificate.
pub struct MissingCertificates {
    /// The first of them.
    pub names: Vec<String>,
    pub count: usize,
}

/// What is known of one certificate. Times are seconds since 1970.
pub struct ObtainedStatus {
    pub id: String,
    pub names: Vec<String>,
    /// The issuer that it was obtained from. None if there is none yet.
    pub issuer: Option<String>,
    pub not_after: Option<u64>,
    /// When it is renewed, or tried again.
    pub next: u64,
    pub failures: u32,
    pub last_error: Option<String>,
}

impl MissingCertificates {
    /// None if there are no names.
    pub fn of(names: Vec<String>) -> Option<Self> {
        let count = names.len();
        let listed = names.into_iter().take(MOST_LISTED).collect();
        (count > 0).then_some(Self {
            names: listed,
            count,
        })
    }
}

impl AcmeManager {
    /// Names without a certificate that clients accept. None if all have one.
    pub fn missing(&self) -> Option<MissingCertificates> {
        let now = schedule::now();
        let certificates = self.certificates.load();
        let listed = certificates.iter();
        let listed = listed.filter(|one| one.occasion == CertificateOccasion::Listed);
        let missing = listed.filter(|certificate| !certificate.state.lock().is_usable(now));
        let names = missing.flat_map(|certificate| certificate.names.clone());
        MissingCertificates::of(names.collect())
    }

    /// Brings the gauges up to date, before a scrape.
    pub fn update_metrics(&self) {
        let now = schedule::now();
        let certificates = self.certificates.load();
        let shown = certificates.iter().map(|certificate| {
            let state = certificate.state.lock();
            ScheduledCertificate {
                id: &certificate.id,
                next: state.next_time(now),
                failures: state.attempts.failures,
            }
        });
        self.metrics.update(shown.collect());
    }

    /// Every certificate.
    pub fn statuses(&self) -> Vec<ObtainedStatus> {
        let now = schedule::now();
        let certificates = self.certificates.load();
        let told = certificates.iter().map(|certificate| {
            let state = certificate.state.lock();
            let held = state.held.as_ref();
            ObtainedStatus {
                id: certificate.id.clone(),
                names: certificate.names.clone(),
                issuer: held.map(|held| held.stored.issuer.clone()),
                not_after: held.map(|held| held.facts.validity.not_after),
                next: state.next_time(now),
                failures: state.attempts.failures,
                last_error: state.attempts.last_error.clone(),
            }
        });
        told.collect()
    }

    /// Has the certificates for a name renewed now, whatever pauses there are. Returns how many
    /// there are.
    pub fn renew(&self, name: &str) -> usize {
        let found = self.for_name(name);
        for certificate in &found {
            let mut state = certificate.state.lock();
            state.renewal_asked = true;
            state.busy_until = None;
        }
        found.len()
    }

    /// Has the certificates for a name revoked by their issuers, and others obtained in their
    /// place. Returns how many there are.
    ///
    /// # Errors
    /// If an issuer refuses.
    pub async fn revoke(&self, name: &str) -> Result<usize, AcmeFailure> {
        let mut count = 0;
        for certificate in self.for_name(name) {
            let Some(held) = certificate.state.lock().held.clone() else {
                continue;
            };
            let issuer = self.issuers.get(&held.stored.issuer);
            let Some(issuer) = issuer else {
                continue;
            };
            revocation::revoke(&issuer.real, &*self.storage, &held.stored).await?;
            tracing::warn!(certificate = certificate.id, "a certificate is revoked");
            certificate.state.lock().renewal_asked = true;
            count += 1;
        }
        Ok(count)
    }

    fn for_name(&self, name: &str) -> Vec<Arc<ManagedCertificate>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let has = |certificate: &&Arc<ManagedCertificate>| {
            certificate
                .names
                .iter()
                .any(|one| one.eq_ignore_ascii_case(name))
        };
        self.certificates
            .load()
            .iter()
            .filter(has)
            .cloned()
            .collect()
    }
}
