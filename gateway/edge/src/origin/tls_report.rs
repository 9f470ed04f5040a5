//! What is told of TLS to origins while the gateway runs: which upstreams are not verified, and
//! when the certificates of their targets expire.
//!
//! Upstreams are known here as long as they are in use, so that the metrics tell of the
//! configurations in use and of no others.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::{OriginTlsConfig, OriginVerification};
use crate::telemetry::metrics::Registry;

/// TLS of all upstreams of the process, with its metrics.
pub struct OriginTlsReport {
    unverified: IntGaugeVec,
    not_after: IntGaugeVec,
    upstreams: Mutex<Vec<Weak<UpstreamTlsReport>>>,
}

/// TLS of one upstream.
pub(super) struct UpstreamTlsReport {
    upstream: String,
    reminder: Option<UnverifiedReminder>,
    shown: Mutex<Vec<Weak<ShownCertificate>>>,
}

/// Says from time to time that an upstream is not verified.
struct UnverifiedReminder {
    reason: String,
    said: Mutex<Instant>,
}

/// How often it is said that origins are not verified, while connections to them are opened.
const REMIND: Duration = Duration::from_secs(3_600);

/// The certificate that a target has shown last, whether it was accepted or not.
#[derive(Default, Debug)]
pub(super) struct ShownCertificate(Mutex<Option<CertificateDer<'static>>>);

impl Default for OriginTlsReport {
    /// Families that are in no registry yet.
    fn default() -> Self {
        let family = |name, help| {
            IntGaugeVec::new(Opts::new(name, help), &["upstream"])
                .expect("names of metrics and labels are valid")
        };
        Self {
            unverified: family(
                "lamina_origin_tls_unverified",
                "1 where the origins of an upstream with TLS are not verified (tls.verify: off), else 0.",
            ),
            not_after: family(
                "lamina_origin_certificate_not_after_seconds",
                "When the certificate expires that a target of the upstream has shown last, in seconds since 1970; of several targets the first to expire.",
            ),
            upstreams: Mutex::default(),
        }
    }
}

impl OriginTlsReport {
    /// Creates the families and registers them.
    ///
    /// # Errors
    /// If the registry has families of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let watch = Self::default();
        registry.register(Box::new(watch.unverified.clone()))?;
        registry.register(Box::new(watch.not_after.clone()))?;
        Ok(Arc::new(watch))
    }

    pub(super) fn add(&self, upstream: &Arc<UpstreamTlsReport>) {
        self.upstreams.lock().push(Arc::downgrade(upstream));
    }

    /// Brings the gauges up to date, before a scrape.
    pub fn update(&self) {
        let mut upstreams = self.upstreams.lock();
        upstreams.retain(|upstream| upstream.strong_count() > 0);
        let mut known = BTreeMap::<String, (bool, Option<SystemTime>)>::new();
        for upstream in upstreams.iter().filter_map(Weak::upgrade) {
            let (unverified, first) = known.entry(upstream.upstream.clone()).or_default();
            *unverified |= upstream.reminder.is_some();
            let ends = upstream.first_to_expire();
            *first = first.iter().copied().chain(ends).min();
        }
        self.unverified.reset();
        self.not_after.reset();
        for (name, (unverified, first)) in known {
            let gauge = self.unverified.with_label_values(&[&name]);
            gauge.set(i64::from(unverified));
            let Some(first) = first else {
                continue;
            };
            let seconds = first.duration_since(UNIX_EPOCH).unwrap_or_default();
            let gauge = self.not_after.with_label_values(&[&name]);
            gauge.set(i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX));
        }
    }
}

impl UpstreamTlsReport {
    pub(super) fn new(upstream: &str, settings: &OriginTlsConfig) -> Self {
        let reminder = (settings.verify == OriginVerification::Off).then(|| UnverifiedReminder {
            reason: settings.insecure.clone().unwrap_or_default(),
            said: Mutex::new(Instant::now()),
        });
        Self {
            upstream: upstream.to_owned(),
            reminder,
            shown: Mutex::default(),
        }
    }

    /// Says in the log that origins are not verified, if they are not.
    pub(super) fn warn_of_unverified(&self) {
        if let Some(UnverifiedReminder { reason, .. }) = &self.reminder {
            let upstream = &*self.upstream;
            tracing::warn!(
                upstream,
                reason,
                "origins are not verified (tls.verify: off)"
            );
        }
    }

    /// Notes that a connection is opened now.
    pub(super) fn opening(&self, now: Instant) {
        let due = |reminder: &UnverifiedReminder| reminder.is_due(now);
        if self.reminder.as_ref().is_some_and(due) {
            self.warn_of_unverified();
        }
    }

    /// A place for the certificates that one more target shows.
    pub(super) fn target(&self) -> Arc<ShownCertificate> {
        let shown = Arc::<ShownCertificate>::default();
        let mut known = self.shown.lock();
        known.retain(|target| target.strong_count() > 0);
        known.push(Arc::downgrade(&shown));
        shown
    }

    fn first_to_expire(&self) -> Option<SystemTime> {
        let shown = self.shown.lock();
        let shown = shown.iter().filter_map(Weak::upgrade);
        let ends = shown.filter_map(|target| target.not_after());
        ends.min()
    }
}

impl UnverifiedReminder {
    fn is_due(&self, now: Instant) -> bool {
        let mut said = self.said.lock();
        let due = now.saturating_duration_since(*said) >= REMIND;
        if due {
            *said = now;
        }
        due
    }
}

impl ShownCertificate {
    pub(super) fn note(&self, certificate: &CertificateDer<'_>) {
        *self.0.lock() = Some(certificate.clone().into_owned());
    }

    /// When it expires. None if none was shown, or one that can't be read.
    pub(super) fn not_after(&self) -> Option<SystemTime> {
        let shown = self.0.lock();
        let (_, certificate) = X509Certificate::from_der(shown.as_ref()?).ok()?;
        let seconds = certificate.validity().not_after.timestamp();
        Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    }

    /// The names and addresses that it is for.
    pub(super) fn names(&self) -> Vec<String> {
        let shown = self.0.lock();
        let parsed = shown.as_ref().map(|der| X509Certificate::from_der(der));
        let Some(Ok((_, certificate))) = parsed else {
            return Vec::new();
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names);
        names.filter_map(readable).collect()
    }
}

fn readable(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(std::net::IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*octets).map(std::net::IpAddr::from);
            let address = v4.or_else(|_| v6()).ok()?;
            Some(address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(verify: OriginVerification) -> OriginTlsConfig {
        OriginTlsConfig {
            verify,
            insecure: Some("a test".to_owned()),
            ..OriginTlsConfig::default()
        }
    }

    #[test]
    fn it_is_said_again_once_an_hour_while_connections_are_opened() {
        let watch = UpstreamTlsReport::new("shop", &settings(OriginVerification::Off));
        let reminder = watch.reminder.as_ref().unwrap();
        let start = *reminder.said.lock();
        let due = |minutes: u64| reminder.is_due(start + Duration::from_secs(60 * minutes));
        let seen: Vec<_> = [0, 59, 60, 61, 119, 120, 300, 301].map(due).into();
        assert_eq!(
            seen,
            [false, false, true, false, false, true, true, false],
            "an hour after it was said last, and not before"
        );
        let verified = UpstreamTlsReport::new("shop", &settings(OriginVerification::On));
        assert!(verified.reminder.is_none());
    }

    #[test]
    fn an_upstream_that_is_gone_has_no_series() {
        let watch = OriginTlsReport::default();
        let unverified = Arc::new(UpstreamTlsReport::new(
            "a",
            &settings(OriginVerification::Off),
        ));
        let verified = Arc::new(UpstreamTlsReport::new(
            "b",
            &settings(OriginVerification::On),
        ));
        watch.add(&unverified);
        watch.add(&verified);
        watch.update();
        let of = |name: &str| watch.unverified.with_label_values(&[name]).get();
        assert_eq!((of("a"), of("b")), (1, 0));
        drop(unverified);
        watch.update();
        let families = prometheus::core::Collector::collect(&watch.unverified);
        assert_eq!(families[0].get_metric().len(), 1);
    }
}
