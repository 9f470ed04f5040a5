//! The outcomes of requests, counted by route.
//!
//! The series of a route are created when they are first counted: of thousands of routes, few have
//! traffic on one node. [`SeriesBudget`] limits how many series there may be.

use std::sync::{Arc, OnceLock};

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

use super::counted::AnsweringRule;
use crate::telemetry::config::SERIES_OF_A_ROUTE;
use crate::telemetry::metrics::Registry;
use crate::telemetry::series::SeriesBudget;

/// The outcome of a request. Its words are those of the `result` label and of the access log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestOutcome {
    /// Served from the cache, fresh.
    Hit,
    /// Served from the cache, stale.
    Stale,
    /// Loaded; the request was looked up in the cache, and its answer may have been stored.
    Miss,
    /// The origin said that the stored response still holds.
    Revalidated,
    /// Followed another request's load.
    Coalesced,
    /// Bypassed the cache.
    Pass,
    /// Answered with an error of ours.
    Error,
}

const OUTCOMES: [RequestOutcome; 7] = [
    RequestOutcome::Hit,
    RequestOutcome::Stale,
    RequestOutcome::Miss,
    RequestOutcome::Revalidated,
    RequestOutcome::Coalesced,
    RequestOutcome::Pass,
    RequestOutcome::Error,
];

impl RequestOutcome {
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

/// The metric families about requests, created once for the process.
#[derive(Clone)]
pub struct RequestFamilies(Arc<RequestMetricFamilies>);

struct RequestMetricFamilies {
    requests: IntCounterVec,
    seconds: HistogramVec,
    unkeyed: IntCounterVec,
    mirrored: IntCounterVec,
    auth: IntCounterVec,
    dropped: IntCounterVec,
    rules: IntCounterVec,
    purges: IntCounterVec,
    budget: SeriesBudget,
}

/// The series of one route.
pub struct RouteMetrics {
    families: RequestFamilies,
    route: Arc<str>,
    by_outcome: [OnceLock<(IntCounter, Histogram)>; OUTCOMES.len()],
    by_rule: [OnceLock<IntCounter>; AnsweringRule::ALL.len()],
}

/// What was said of a request that must show who sends it. Its words are those of the `outcome`
/// label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthOutcome {
    /// It was let in.
    Allowed,
    /// It shows nothing.
    Missing,
    /// It shows something wrong.
    Refused,
    /// The auth service has answered in place of the origin.
    Answered,
    /// Nobody could say, so it was not let in.
    Unable,
}

const AUTH_OUTCOMES: [AuthOutcome; 5] = [
    AuthOutcome::Allowed,
    AuthOutcome::Missing,
    AuthOutcome::Refused,
    AuthOutcome::Answered,
    AuthOutcome::Unable,
];

impl AuthOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Answered => "answered",
            Self::Unable => "unable",
        }
    }
}

/// Counts what was said of the requests of one route.
pub struct AuthCount {
    families: RequestFamilies,
    route: Arc<str>,
    by_outcome: [OnceLock<IntCounter>; AUTH_OUTCOMES.len()],
}

/// Counts the loads of one route in which a plugin saw something that the key does not cover.
pub struct UnkeyedCount {
    families: RequestFamilies,
    route: Arc<str>,
    plugin: Box<str>,
    count: OnceLock<IntCounter>,
}

/// Counts the copies of one route's requests.
pub struct MirrorCounts {
    families: RequestFamilies,
    route: Arc<str>,
}

/// Counts the values of one route that its rules made and no field can hold.
pub struct DroppedValueCount {
    families: RequestFamilies,
    route: Arc<str>,
}

/// The bounds of the buckets in seconds: from the tens of microseconds of a hit to the seconds of a
/// slow origin.
const BUCKETS: [f64; 14] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// The number of series for one route and result: a counter, and a histogram with its buckets, its
/// sum, its count and the bucket without a bound.
const OF_OUTCOME: u64 = 1 + BUCKETS.len() as u64 + 3;

/// `validate` computes with this number.
const _: () = assert!(OF_OUTCOME * OUTCOMES.len() as u64 == SERIES_OF_A_ROUTE);

impl RequestFamilies {
    /// # Errors
    /// If the registry has these families already.
    pub fn new(registry: &Registry, max_series: u64) -> prometheus::Result<Self> {
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
                "Loads in which a plugin saw something that the cache key does not cover.",
            ),
            &["route", "plugin"],
        )?;
        let mirrored = IntCounterVec::new(
            Opts::new(
                "lamina_mirror_total",
                "Copies of requests for a second upstream, by outcome.",
            ),
            &["route", "outcome"],
        )?;
        registry.register(Box::new(mirrored.clone()))?;
        let dropped = IntCounterVec::new(
            Opts::new(
                "lamina_rule_values_dropped_total",
                "Values for header fields that the rules of a route made and no field can hold.",
            ),
            &["route"],
        )?;
        let rules = IntCounterVec::new(
            Opts::new(
                "lamina_rule_answers_total",
                "Answers that a rule of a route has made in place of the cache and the origin.",
            ),
            &["route", "step"],
        )?;
        registry.register(Box::new(rules.clone()))?;
        let purges = IntCounterVec::new(
            Opts::new(
                "lamina_purge_requests_total",
                "Requests to purge on the listeners, by result.",
            ),
            &["result"],
        )?;
        let auth = IntCounterVec::new(
            Opts::new(
                "lamina_auth_total",
                "Requests to routes with `auth`, by what was said of them.",
            ),
            &["route", "outcome"],
        )?;
        registry.register(Box::new(auth.clone()))?;
        registry.register(Box::new(purges.clone()))?;
        registry.register(Box::new(unkeyed.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        let budget = SeriesBudget::new(max_series, registry)?;
        Ok(Self(Arc::new(RequestMetricFamilies {
            requests,
            seconds,
            unkeyed,
            mirrored,
            auth,
            dropped,
            rules,
            purges,
            budget,
        })))
    }

    /// The counter of purge requests, by their outcome.
    pub fn purges(&self) -> IntCounterVec {
        self.0.purges.clone()
    }

    /// The counter for one plugin of a route.
    pub fn unkeyed(&self, route: &Arc<str>, plugin: &str) -> UnkeyedCount {
        UnkeyedCount {
            families: self.clone(),
            route: Arc::clone(route),
            plugin: plugin.into(),
            count: OnceLock::new(),
        }
    }

    /// The counters of the copies of a route's requests.
    pub fn mirror(&self, route: &Arc<str>) -> MirrorCounts {
        MirrorCounts {
            families: self.clone(),
            route: Arc::clone(route),
        }
    }

    /// The counter of values that the rules of a route made in vain.
    pub fn dropped_values(&self, route: &Arc<str>) -> DroppedValueCount {
        DroppedValueCount {
            families: self.clone(),
            route: Arc::clone(route),
        }
    }

    /// The counters for what is said of a route's requests.
    pub fn auth(&self, route: &Arc<str>) -> AuthCount {
        AuthCount {
            families: self.clone(),
            route: Arc::clone(route),
            by_outcome: Default::default(),
        }
    }

    /// The metrics of the route called `name`.
    pub fn route(&self, name: &Arc<str>) -> RouteMetrics {
        RouteMetrics {
            families: self.clone(),
            route: Arc::clone(name),
            by_outcome: Default::default(),
            by_rule: Default::default(),
        }
    }
}

impl RouteMetrics {
    /// Counts one request.
    pub fn count(&self, outcome: RequestOutcome, took: std::time::Duration) {
        let made = &self.by_outcome[outcome as usize];
        let (requests, seconds) = made.get_or_init(|| self.series(outcome));
        requests.inc();
        seconds.observe(took.as_secs_f64());
    }

    /// Counts an answer that a rule of the route has made.
    pub fn answered_by(&self, rule: AnsweringRule) {
        let count = self.by_rule[rule as usize].get_or_init(|| {
            let RequestMetricFamilies { rules, budget, .. } = &*self.families.0;
            let route = budget.label(&self.route, rule.as_str(), 1);
            rules.with_label_values(&[route, rule.as_str()])
        });
        count.inc();
    }

    #[cold]
    fn series(&self, outcome: RequestOutcome) -> (IntCounter, Histogram) {
        let RequestMetricFamilies {
            requests,
            seconds,
            budget,
            ..
        } = &*self.families.0;
        let route = budget.label(&self.route, outcome.as_str(), OF_OUTCOME);
        let labels = [route, outcome.as_str()];
        (
            requests.with_label_values(&labels),
            seconds.with_label_values(&labels),
        )
    }
}

impl MirrorCounts {
    /// Counts a copy that was answered.
    pub fn sent(&self) {
        self.count("sent");
    }

    /// Counts a copy that was not sent, since too many were under way or its body was too large.
    pub fn dropped(&self) {
        self.count("dropped");
    }

    /// Counts a copy that was not answered.
    pub fn failed(&self) {
        self.count("failed");
    }

    fn count(&self, outcome: &'static str) {
        let RequestMetricFamilies {
            mirrored, budget, ..
        } = &*self.families.0;
        let route = budget.label(&self.route, outcome, 1);
        mirrored.with_label_values(&[route, outcome]).inc();
    }
}

impl AuthCount {
    /// Counts one request.
    pub fn inc(&self, outcome: AuthOutcome) {
        let RequestMetricFamilies { auth, budget, .. } = &*self.families.0;
        let count = self.by_outcome[outcome as usize].get_or_init(|| {
            let route = budget.label(&self.route, outcome.as_str(), 1);
            auth.with_label_values(&[route, outcome.as_str()])
        });
        count.inc();
    }
}

impl DroppedValueCount {
    /// Counts one value.
    pub fn inc(&self) {
        let families = &*self.families.0;
        let route = families.budget.label(&self.route, "dropped", 1);
        families.dropped.with_label_values(&[route]).inc();
    }
}

impl UnkeyedCount {
    /// Counts one load.
    pub fn inc(&self) {
        let RequestMetricFamilies {
            unkeyed, budget, ..
        } = &*self.families.0;
        let count = self.count.get_or_init(|| {
            let route = budget.label(&self.route, &self.plugin, 1);
            unkeyed.with_label_values(&[route, &self.plugin])
        });
        count.inc();
    }
}
