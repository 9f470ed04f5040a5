//! The metrics of upstreams.
//!
//! Labels are names of the configuration. Gauges are brought up to date before a scrape.

use std::collections::HashMap;
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
    hedges: IntCounterVec,
    in_flight: IntGaugeVec,
    usable: IntGaugeVec,
    panic: IntGaugeVec,
    concurrency_limit: IntGaugeVec,
    connections: IntGaugeVec,
    checks: IntCounterVec,
    file_failing: IntGaugeVec,
    origins: Mutex<Vec<Weak<Origin>>>,
    /// The labels of targets that names lead to, with how many targets have each.
    discovered: Mutex<HashMap<TargetSeries, u32>>,
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

/// The name of a target in metrics. What a name leads to comes and goes: the series of a target end
/// with it, and beyond [`MOST_DISCOVERED`] at a time they are of [`OTHER_TARGETS`].
pub(super) struct TargetLabel {
    label: Arc<str>,
    /// None: it is listed.
    _discovered: Option<DiscoveredLabel>,
}

/// A place among the labels of targets that names lead to. Dropping it ends its series.
struct DiscoveredLabel {
    families: Arc<OriginFamilies>,
    series: TargetSeries,
}

/// Whose series they are.
#[derive(Clone, PartialEq, Eq, Hash)]
struct TargetSeries {
    upstream: Arc<str>,
    target: Arc<str>,
}

/// The most targets of one upstream that names lead to and that have series of their own.
const MOST_DISCOVERED: usize = 64;
/// The label of all further ones.
const OTHER_TARGETS: &str = "other";
/// The values of the label `outcome` of a target's series.
const OUTCOMES: [&str; 11] = [
    "1xx", "2xx", "3xx", "4xx", "5xx", "connect", "reset", "timeout", "other", "passed", "status",
];

/// What came of a further attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RetryOutcome {
    Answered,
    Failed,
    /// The budget had none left.
    Refused,
}

/// What came of a second request beside one that had no answer yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HedgeOutcome {
    /// Its answer was the first good one.
    Won,
    Lost,
    /// The budget, or the limit of requests at once, had none left.
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
            hedges: counters(
                "lamina_upstream_hedges_total",
                "Second requests beside a load without an answer yet, by what came of them: won, lost, or refused where the budget of retries or `load.max_concurrent` had none left.",
                &["upstream", "outcome"],
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
            concurrency_limit: gauges(
                "lamina_upstream_concurrency_limit",
                "The most requests at once that an upstream gets: `load.max_concurrent`, or what `load.adaptive` has found out.",
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
            file_failing: gauges(
                "lamina_upstream_targets_file_failing",
                "1 while the file of targets can't be used as it is (targets_file), else 0.",
                &["upstream"],
            ),
            origins: Mutex::default(),
            discovered: Mutex::default(),
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
        registry.register(Box::new(families.hedges.clone()))?;
        registry.register(Box::new(families.in_flight.clone()))?;
        registry.register(Box::new(families.usable.clone()))?;
        registry.register(Box::new(families.panic.clone()))?;
        registry.register(Box::new(families.concurrency_limit.clone()))?;
        registry.register(Box::new(families.connections.clone()))?;
        registry.register(Box::new(families.checks.clone()))?;
        registry.register(Box::new(families.file_failing.clone()))?;
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
        self.file_failing.reset();
        self.concurrency_limit.reset();
        self.connections.reset();
        let now = Instant::now();
        for origin in origins.iter().filter_map(Weak::upgrade) {
            let usable = self.usable.with_label_values(&[origin.name()]);
            // Of an upstream that was changed, the one that was made last counts.
            usable.set(origin.targets.usable(now) as i64);
            let limit = self.concurrency_limit.with_label_values(&[origin.name()]);
            limit.set(origin.admission.limit() as i64);
            if let Some(failing) = origin.targets.discovery().file_failing() {
                let gauge = self.file_failing.with_label_values(&[origin.name()]);
                gauge.set(i64::from(failing));
            }
            let connections = |state| {
                let labels = [origin.name(), state];
                self.connections.with_label_values(&labels)
            };
            let (active, idle) = (connections("active"), connections("idle"));
            for target in origin.targets.all().iter() {
                let standing = target.connections.counts();
                active.add(standing.active as i64);
                idle.add(standing.idle as i64);
                let gauge = self
                    .in_flight
                    .with_label_values(&[origin.name(), target.label.as_str()]);
                gauge.add(i64::from(target.in_flight()));
            }
        }
    }
}

impl UpstreamMetrics {
    /// The label of a target that a name has led to.
    pub(super) fn discovered(&self, target: &Arc<str>) -> TargetLabel {
        let series = TargetSeries {
            upstream: Arc::clone(&self.upstream),
            target: Arc::clone(target),
        };
        let mut known = self.families.discovered.lock();
        let of_upstream = known.keys().filter(|one| one.upstream == self.upstream);
        if !known.contains_key(&series) && of_upstream.count() >= MOST_DISCOVERED {
            return TargetLabel::configured(&OTHER_TARGETS.into());
        }
        *known.entry(series.clone()).or_default() += 1;
        TargetLabel {
            label: Arc::clone(target),
            _discovered: Some(DiscoveredLabel {
                families: Arc::clone(&self.families),
                series,
            }),
        }
    }

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

    pub(super) fn hedged(&self, outcome: HedgeOutcome) {
        let outcome = match outcome {
            HedgeOutcome::Won => "won",
            HedgeOutcome::Lost => "lost",
            HedgeOutcome::Refused => "refused",
        };
        let labels = [&*self.upstream, outcome];
        self.families.hedges.with_label_values(&labels).inc();
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

impl TargetLabel {
    /// The label of a target that is listed.
    pub(super) fn configured(name: &Arc<str>) -> Self {
        Self {
            label: Arc::clone(name),
            _discovered: None,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.label
    }
}

impl Drop for DiscoveredLabel {
    fn drop(&mut self) {
        let mut known = self.families.discovered.lock();
        let Some(targets) = known.get_mut(&self.series) else {
            return;
        };
        *targets -= 1;
        if *targets > 0 {
            return;
        }
        known.remove(&self.series);
        let TargetSeries { upstream, target } = &self.series;
        for outcome in OUTCOMES {
            let labels = [&**upstream, &**target, outcome];
            // Most of these series were never made.
            let _ = self.families.requests.remove_label_values(&labels);
            let _ = self.families.checks.remove_label_values(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(families: &OriginFamilies) -> usize {
        let collected = prometheus::core::Collector::collect(&families.requests);
        collected
            .iter()
            .map(|family| family.get_metric().len())
            .sum()
    }

    #[test]
    fn series_of_found_targets_end_with_them_and_are_bounded() {
        let families = Arc::new(OriginFamilies::default());
        let metrics = families.of("shop");
        let name = |n: usize| Arc::from(format!("10.0.0.{n}:80"));
        let labels: Vec<_> = (0..70).map(|n| metrics.discovered(&name(n))).collect();
        for label in &labels {
            metrics.request(label.as_str(), "2xx");
        }
        assert_eq!(requests(&families), MOST_DISCOVERED + 1);
        let again = metrics.discovered(&name(3));
        assert_eq!(again.as_str(), "10.0.0.3:80");
        drop(labels);
        assert_eq!(requests(&families), 2, "what is in use, and the others");
        assert_eq!(metrics.discovered(&name(69)).as_str(), "10.0.0.69:80");
    }
}
