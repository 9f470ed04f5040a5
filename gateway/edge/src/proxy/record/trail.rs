//! The trail of a request: the events on the way to its answer, in their order.
//!
//! The request's own task and the load's task add events. A request that follows another one's load
//! has only its own events, and the number of the leading request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lamina_base::turn_clock;
use parking_lot::Mutex;

use crate::cache::event::{StaleReason, UncoalescedReason};
use crate::cache::key::KeyId;
use crate::http::cache_status::ForwardReason;
use crate::origin::Attempt;
use crate::rate_limit::LimitVerdict;

/// The events of one request.
#[derive(Debug)]
pub struct RequestTrail {
    /// The number of the request.
    pub request: u64,
    started: Instant,
    waypoints: Mutex<TrailEvents>,
}

#[derive(Debug)]
struct TrailEvents {
    noted: Vec<TimedTrailEvent>,
    dropped: u32,
}

/// An event and its time.
#[derive(Clone, Debug)]
pub struct TimedTrailEvent {
    /// The time since the request's head.
    pub after: Duration,
    pub waypoint: TrailEvent,
}

/// One event.
#[derive(Clone, Debug)]
pub enum TrailEvent {
    /// A plugin was called.
    PluginCall(PluginCall),
    /// The key was derived.
    Keyed(KeyId),
    /// The request bypasses the cache, with the detail for `Cache-Status`.
    Passes(ForwardReason, Option<&'static str>),
    /// L1 could not answer it, for this reason.
    NotInL1(ForwardReason),
    /// What the second tier held.
    SecondTier(SecondTierAnswer),
    /// It leads a load that others may follow.
    Leads,
    /// It follows the load of the request with this number.
    Follows(u64),
    /// It loads beside others.
    SideBySide(UncoalescedReason),
    /// It waited for a load of another node.
    WaitedForNode,
    /// A target of an upstream was tried.
    Attempt(Attempt),
    /// The load failed: the error type of RFC 9209, and the cause.
    Failed(&'static str, Box<str>),
    /// The answer is not stored, for this reason.
    NotStored(&'static str),
    /// The answer is stored, with this lifetime.
    Stored(Duration),
    /// A stale copy was served.
    Stale(StaleReason),
    /// It is above the rate limit with this name.
    Limited(Arc<str>, LimitVerdict),
}

/// One call of a plugin.
#[derive(Clone, Debug)]
pub struct PluginCall {
    pub hook: &'static str,
    pub plugin: Arc<str>,
    pub took: Duration,
    /// The error of the call. None if it succeeded.
    pub error: Option<Box<str>>,
}

/// The answer of the second tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecondTierAnswer {
    Fresh,
    Stale,
    Nothing,
    Unknown,
}

/// The most events that are kept of one request. If there are more, the trail says how many were
/// left out.
const MOST_WAYPOINTS: usize = 48;

/// Room for the events of a miss that is loaded and stored, so that the list need not grow.
const USUAL_WAYPOINTS: usize = 5;

/// The most octets of an error text that are kept.
const MOST_ERROR: usize = 512;

impl RequestTrail {
    pub(super) fn new(request: u64, started: Instant) -> Self {
        Self {
            request,
            started,
            waypoints: Mutex::new(TrailEvents {
                noted: Vec::with_capacity(USUAL_WAYPOINTS),
                dropped: 0,
            }),
        }
    }

    /// Adds an event that has just happened.
    pub fn note(&self, waypoint: TrailEvent) {
        let after = turn_clock::now().saturating_duration_since(self.started);
        let mut waypoints = self.waypoints.lock();
        match waypoints.noted.len() < MOST_WAYPOINTS {
            true => waypoints.noted.push(TimedTrailEvent { after, waypoint }),
            false => waypoints.dropped += 1,
        }
    }

    /// Whether the request was sent to an upstream more than once.
    pub fn was_retried(&self) -> bool {
        let waypoints = self.waypoints.lock();
        let is_attempt =
            |event: &&TimedTrailEvent| matches!(event.waypoint, TrailEvent::Attempt(_));
        waypoints.noted.iter().filter(is_attempt).count() > 1
    }

    /// The events up to now, and how many more there were than are kept.
    pub fn noted(&self) -> (Vec<TimedTrailEvent>, u32) {
        let waypoints = self.waypoints.lock();
        (waypoints.noted.clone(), waypoints.dropped)
    }
}

/// Notes on the trail, if there is one, that a plugin was called for `hook` and with what result.
pub fn note_call<T, E: std::fmt::Display>(
    trail: Option<&RequestTrail>,
    hook: &'static str,
    plugin: &str,
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let Some(trail) = trail else {
        return call();
    };
    let began = Instant::now();
    let outcome = call();
    trail.called(hook, plugin, began.elapsed(), outcome.as_ref().err());
    outcome
}

impl RequestTrail {
    /// Notes that a plugin was called for `hook`.
    pub fn called(
        &self,
        hook: &'static str,
        plugin: &str,
        took: Duration,
        error: Option<&impl std::fmt::Display>,
    ) {
        self.note(TrailEvent::PluginCall(PluginCall {
            hook,
            plugin: plugin.into(),
            took,
            error: error.map(|error| super::cut(&error.to_string(), MOST_ERROR)),
        }));
    }

    /// Notes that the load failed.
    pub fn failed(&self, error: &'static str, detail: &str) {
        self.note(TrailEvent::Failed(error, super::cut(detail, MOST_ERROR)));
    }
}
