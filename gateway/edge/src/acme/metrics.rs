//! Metrics of automatic certificates.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// How an order ended, as the value of the label `outcome`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderOutcome {
    Issued,
    /// The issuer found that a name is not ours.
    Refused,
    /// The issuer wants nothing of the account for a while.
    RateLimited,
    Failed,
}

impl OrderOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::Failed => "failed",
        }
    }
}

/// The most certificates that have series of their own.
const MOST_CERTIFICATES: usize = 100;

/// The families about automatic certificates.
pub struct AcmeMetrics {
    orders: IntCounterVec,
    next_renewal: IntGaugeVec,
    failures: IntGaugeVec,
}

/// What is shown of one certificate.
pub struct ScheduledCertificate<'a> {
    pub id: &'a str,
    /// When something is done about it next, in seconds since 1970.
    pub next: u64,
    pub failures: u32,
}

impl AcmeMetrics {
    /// Creates the families and registers them.
    ///
    /// # Errors
    /// If the registry has families of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            orders: IntCounterVec::new(
                Opts::new(
                    "lamina_acme_orders_total",
                    "Orders of certificates by this node, by how they ended.",
                ),
                &["issuer", "outcome"],
            )?,
            next_renewal: IntGaugeVec::new(
                Opts::new(
                    "lamina_acme_next_renewal_seconds",
                    "When a certificate is renewed or tried again, in seconds since 1970; those that are next.",
                ),
                &["certificate"],
            )?,
            failures: IntGaugeVec::new(
                Opts::new(
                    "lamina_acme_failures",
                    "Failures in a row to obtain a certificate; of those that are renewed next.",
                ),
                &["certificate"],
            )?,
        };
        registry.register(Box::new(metrics.orders.clone()))?;
        registry.register(Box::new(metrics.next_renewal.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        Ok(metrics)
    }

    pub fn ended(&self, issuer: &str, outcome: OrderOutcome) {
        let labels = [issuer, outcome.label()];
        self.orders.with_label_values(&labels).inc();
    }

    /// Brings the gauges up to date, before a scrape.
    pub fn update(&self, mut certificates: Vec<ScheduledCertificate<'_>>) {
        certificates.sort_by_key(|certificate| (certificate.failures == 0, certificate.next));
        self.next_renewal.reset();
        self.failures.reset();
        for certificate in certificates.iter().take(MOST_CERTIFICATES) {
            let next = i64::try_from(certificate.next).unwrap_or(i64::MAX);
            let labels = [certificate.id];
            self.next_renewal.with_label_values(&labels).set(next);
            let failures = self.failures.with_label_values(&labels);
            failures.set(certificate.failures.into());
        }
    }
}
