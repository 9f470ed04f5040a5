//! The metrics of upstreams.
//!
//! Labels are names of the configuration. Gauges are brought up to date before a scrape.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

use super::Origin;
use super::config::FailureKind;
use super::targets::ChoiceSituation;
use crate::telemetry::metrics::Registry;

/// The metric families about upstreams, created once for the process.
pub struct OriginFamilies {
    requests: IntCounterVec,
    head_seconds: HistogramVec,
    ejections: IntCounterVec,
    retries: IntCounterVec,
    in_flight: IntGaugeVec,
    usable: IntGaugeVec,
    panic: IntGaugeVec,
    connections: IntGaugeVec,
    checks: IntCounterVec,
    origins: Mutex<Vec<Weak<Origin>>>,
}

/// The metrics of one upstream.
#[derive(Clone)]
pub(super) struct UpstreamMetrics {
    families: Arc<OriginFamilies>,
    upstream: Arc<str>,
    /// The series of times, made when the first one is noted.
    head_seconds: Arc<OnceLock<Histogram>>,
    /// What the gauge of panics says.
    panics: Arc<AtomicBool>,
}

/// What came of a further attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RetryOutcome {
    Answered,
    Failed,
    /// The budget had none left.
    Refused,
}

/// Seconds to the head of a response.
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

impl Default for OriginFamilies {
    /// Families that are in no registry yet.
    fn default() -> Self {
        const VALID: &str = "names of metrics and labels are valid";
        let counters = |name, help, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
        };
        let gauges = |name, help, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID)
        };
        let seconds = HistogramOpts::new(
            "lamina_upstream_head_seconds",
            "The time from sending a request to a target to the head of its response.",
        );
        Self {
            requests: counters(
                "lamina_upstream_requests_total",
                "Attempts to get a response from a target, by what came of them: a class of statuses (2xx to 5xx), or connect, reset, timeout, or other.",
                &["upstream", "target", "outcome"],
            ),
            head_seconds: HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["upstream"])
                .expect(VALID),
            ejections: counters(
                "lamina_upstream_ejections_total",
                "Targets that got no requests for a while, by the failure that was one too many.",
                &["upstream", "reason"],
            ),
            retries: counters(
                "lamina_upstream_retries_total",
                "Further attempts with another target, by the failure before and by what came of them: answered, failed, or refused where the budget had none left.",
                &["upstream", "reason", "outcome"],
            ),
            in_flight: gauges(
                "lamina_upstream_inflight",
                "Requests that a target is working on, to the last byte of the response.",
                &["upstream", "target"],
            ),
            usable: gauges(
                "lamina_upstream_usable_targets",
                "Targets that are neither ejected nor down by their active checks.",
                &["upstream"],
            ),
            panic: gauges(
                "lamina_upstream_panic",
                "1 while so few targets can be used that requests go to all of them, else 0.",
                &["upstream"],
            ),
            connections: gauges(
                "lamina_upstream_connections",
                "Connections to the targets: active (with a request or a tunnel) or idle.",
                &["upstream", "state"],
            ),
            checks: counters(
                "lamina_upstream_checks_total",
                "Active checks of a target, by what came of them: passed, status (one that is not good), connect, reset, timeout, or other.",
                &["upstream", "target", "outcome"],
            ),
            origins: Mutex::default(),
        }
    }
}

impl OriginFamilies {
    /// Creates the families and registers them.
    ///
    /// # Errors
    /// If the registry has families of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let families = Self::default();
        registry.register(Box::new(families.requests.clone()))?;
        registry.register(Box::new(families.head_seconds.clone()))?;
        registry.register(Box::new(families.ejections.clone()))?;
        registry.register(Box::new(families.retries.clone()))?;
        registry.register(Box::new(families.in_flight.clone()))?;
        registry.register(Box::new(families.usable.clone()))?;
        registry.register(Box::new(families.panic.clone()))?;
        registry.register(Box::new(families.connections.clone()))?;
        registry.register(Box::new(families.checks.clone()))?;
        Ok(Arc::new(families))
    }

    pub(super) fn of(self: &Arc<Self>, upstream: &str) -> UpstreamMetrics {
        UpstreamMetrics {
            families: Arc::clone(self),
            upstream: upstream.into(),
            head_seconds: Arc::default(),
            panics: Arc::default(),
        }
    }

    /// Knows an upstream as long as it is in use.
    pub(super) fn add(&self, origin: &Arc<Origin>) {
        self.origins.lock().push(Arc::downgrade(origin));
    }

    /// The upstream of this name that was made last, if it is still in use.
    pub(super) fn latest(&self, name: &str) -> Option<Arc<Origin>> {
        let origins = self.origins.lock();
        let mut known = origins.iter().rev().filter_map(Weak::upgrade);
        known.find(|origin| origin.name() == name)
    }

    /// Brings the gauges up to date, before a scrape.
    pub fn update(&self) {
        let mut origins = self.origins.lock();
        origins.retain(|origin| origin.strong_count() > 0);
        self.in_flight.reset();
        self.usable.reset();
        self.connections.reset();
        let now = Instant::now();
        for origin in origins.iter().filter_map(Weak::upgrade) {
            let usable = self.usable.with_label_values(&[origin.name()]);
            usable.add(origin.targets.usable(now) as i64);
            let connections = |state| {
                let labels = [origin.name(), state];
                self.connections.with_label_values(&labels)
            };
            let (active, idle) = (connections("active"), connections("idle"));
            for target in origin.targets.iter() {
                let standing = target.connections.counts();
                active.add(standing.active as i64);
                idle.add(standing.idle as i64);
                let gauge = self
                    .in_flight
                    .with_label_values(&[origin.name(), &target.name]);
                gauge.add(i64::from(target.in_flight()));
            }
        }
    }
}

impl UpstreamMetrics {
    pub(super) fn request(&self, target: &str, outcome: &str) {
        let labels = [&*self.upstream, target, outcome];
        self.families.requests.with_label_values(&labels).inc();
    }

    pub(super) fn head_after(&self, took: Duration) {
        let series = || {
            let family = &self.families.head_seconds;
            family.with_label_values(&[&*self.upstream])
        };
        let seconds = self.head_seconds.get_or_init(series);
        seconds.observe(took.as_secs_f64());
    }

    pub(super) fn ejected(&self, failure: FailureKind) {
        let labels = [&*self.upstream, &failure.word()];
        self.families.ejections.with_label_values(&labels).inc();
    }

    pub(super) fn retried(&self, failure: FailureKind, outcome: RetryOutcome) {
        let outcome = match outcome {
            RetryOutcome::Answered => "answered",
            RetryOutcome::Failed => "failed",
            RetryOutcome::Refused => "refused",
        };
        let labels = [&*self.upstream, &failure.word(), outcome];
        self.families.retries.with_label_values(&labels).inc();
    }

    pub(super) fn checked(&self, target: &str, outcome: &str) {
        let labels = [&*self.upstream, target, outcome];
        self.families.checks.with_label_values(&labels).inc();
    }

    pub(super) fn panic(&self, situation: ChoiceSituation) {
        let panics = situation == ChoiceSituation::Panic;
        // Each choice tells; the gauge is looked up when that changes.
        if self.panics.load(Relaxed) != panics {
            self.panics.store(panics, Relaxed);
            let gauge = self.families.panic.with_label_values(&[&*self.upstream]);
            gauge.set(i64::from(panics));
        }
    }
}
