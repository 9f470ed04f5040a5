//! What a request became, counted by route.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

use crate::telemetry::metrics::Registry;

/// What a request became. The words of the `result` label and of the access log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Served from the cache, fresh.
    Hit,
    /// Served from the cache, stale.
    Stale,
    /// Loaded, and stored or at least looked up before.
    Miss,
    /// The origin said that the stored response still holds.
    Revalidated,
    /// Followed another request's load.
    Coalesced,
    /// Went past the cache.
    Pass,
    /// Answered with an error of ours.
    Error,
}

const OUTCOMES: [Outcome; 7] = [
    Outcome::Hit,
    Outcome::Stale,
    Outcome::Miss,
    Outcome::Revalidated,
    Outcome::Coalesced,
    Outcome::Pass,
    Outcome::Error,
];

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Coalesced => "coalesced",
            Self::Pass => "pass",
            Self::Error => "error",
        }
    }
}

/// The metrics of all routes.
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    unkeyed: IntCounterVec,
}

/// One route's, resolved when it is built.
pub struct RouteMetrics {
    by_outcome: [(IntCounter, Histogram); OUTCOMES.len()],
}

/// From a hit's tens of microseconds to a slow origin's seconds.
const BUCKETS: [f64; 14] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0,
];

impl Metrics {
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new(
                "lamina_requests_total",
                "Requests by route and cache result.",
            ),
            &["route", "result"],
        )?;
        let seconds = HistogramOpts::new(
            "lamina_request_duration_seconds",
            "Time from the request's head to the response's head.",
        )
        .buckets(BUCKETS.to_vec());
        let seconds = HistogramVec::new(seconds, &["route", "result"])?;
        let unkeyed = IntCounterVec::new(
            Opts::new(
                "lamina_plugin_unkeyed_total",
                "Loads in which a plugin saw what the cache key does not cover.",
            ),
            &["route", "plugin"],
        )?;
        registry.register(Box::new(unkeyed.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            requests,
            seconds,
            unkeyed,
        })
    }

    /// Loads of this route whose plugin saw what its key does not cover.
    pub fn unkeyed(&self, route: &str, plugin: &str) -> IntCounter {
        self.unkeyed.with_label_values(&[route, plugin])
    }

    /// The metrics of the route called `name`.
    pub fn route(&self, name: &str) -> RouteMetrics {
        let by_outcome = OUTCOMES.map(|outcome| {
            let labels = [name, outcome.as_str()];
            (
                self.requests.with_label_values(&labels),
                self.seconds.with_label_values(&labels),
            )
        });
        RouteMetrics { by_outcome }
    }
}

impl RouteMetrics {
    /// Counts one request.
    pub fn count(&self, outcome: Outcome, took: std::time::Duration) {
        let (requests, seconds) = &self.by_outcome[outcome as usize];
        requests.inc();
        seconds.observe(took.as_secs_f64());
    }
}
