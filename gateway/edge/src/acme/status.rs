//! What is told of automatic certificates: to `/readyz`, to metrics, and to operators.

use super::metrics::ShownCertificate;
use super::{AcmeManager, schedule};

/// The most names that are listed as missing.
const MOST_LISTED: usize = 20;

/// Names that have no certificate.
pub struct MissingCertificates {
    /// The first of them.
    pub names: Vec<String>,
    pub count: usize,
}

impl AcmeManager {
    /// Names without a certificate that clients accept. None if all have one.
    pub fn missing(&self) -> Option<MissingCertificates> {
        let now = schedule::now();
        let missing = self.certificates.iter();
        let missing = missing.filter(|certificate| !certificate.state.lock().is_usable(now));
        let names: Vec<_> = missing.flat_map(|certificate| &certificate.names).collect();
        let listed = names.iter().take(MOST_LISTED).map(|name| (*name).clone());
        (!names.is_empty()).then(|| MissingCertificates {
            names: listed.collect(),
            count: names.len(),
        })
    }

    /// Brings the gauges up to date, before a scrape.
    pub fn update_metrics(&self) {
        let now = schedule::now();
        let shown = self.certificates.iter().map(|certificate| {
            let state = certificate.state.lock();
            ShownCertificate {
                id: &certificate.id,
                next: state.next_time(now),
                failures: state.attempts.failures,
            }
        });
        self.metrics.update(shown.collect());
    }
}
