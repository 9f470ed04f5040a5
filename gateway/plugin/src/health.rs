//! Whether a version of a plugin may be called. It serves; after too many failures it is set aside,
//! and from time to time one call is let through as a probe.
//!
//! A call of a serving plugin costs one relaxed load. A call that is refused because all instances
//! are busy, or because the plugin is set aside already, is not a failure of the plugin.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::config::Quarantine;
use super::error::CallError;

/// The states: it serves; it is set aside; it is set aside and a probe is running.
const SERVES: u8 = 0;
const ASIDE: u8 = 1;
const PROBED: u8 = 2;
/// The longest time between two probes.
const LONGEST: Duration = Duration::from_secs(600);

/// The successes and failures of a version of a plugin.
pub(super) struct VersionHealth {
    state: AtomicU8,
    record: Mutex<HealthRecord>,
    rules: Quarantine,
}

#[derive(Default)]
struct HealthRecord {
    /// Failed calls within the window.
    failures: VecDeque<Instant>,
    /// When the next probe may run; none if an operator set the plugin aside.
    probe_at: Option<Instant>,
    /// How many probes have failed.
    probes: u32,
    since: Option<Instant>,
    reason: String,
}

/// Whether a call is an ordinary one or a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallAdmission {
    Serve,
    Probe,
}

/// How the end of a call changed the state of the plugin, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum HealthChange {
    /// It failed too often and was set aside.
    Aside { reason: String },
    /// A probe succeeded, and the plugin serves again.
    Healed,
}

/// Why and since when a plugin is set aside.
#[derive(Clone, Debug)]
pub struct QuarantineStatus {
    pub since: Duration,
    /// The time until the next probe; none if an operator must resume the plugin.
    pub probe_in: Option<Duration>,
    pub reason: String,
}

impl VersionHealth {
    pub(super) fn new(rules: Quarantine) -> Self {
        Self {
            state: AtomicU8::new(SERVES),
            record: Mutex::default(),
            rules,
        }
    }

    /// Whether a call may be made now, and as what.
    pub(super) fn admit(&self, now: Instant) -> Option<CallAdmission> {
        if self.state.load(Ordering::Relaxed) == SERVES {
            return Some(CallAdmission::Serve);
        }
        let due = self.record.lock().probe_at.is_some_and(|at| now >= at);
        let probe = || {
            let (aside, probed) = (ASIDE, PROBED);
            self.state
                .compare_exchange(aside, probed, Ordering::AcqRel, Ordering::Relaxed)
        };
        (due && probe().is_ok()).then_some(CallAdmission::Probe)
    }

    /// Records the result of a call.
    pub(super) fn ended(
        &self,
        turn: CallAdmission,
        error: Option<&CallError>,
        now: Instant,
    ) -> Option<HealthChange> {
        match (turn, error) {
            (CallAdmission::Serve, None) => None,
            (CallAdmission::Serve, Some(error)) if error.is_its_fault() => self.failed(error, now),
            (CallAdmission::Serve, Some(_)) => None,
            (CallAdmission::Probe, None) => self.healed(),
            (CallAdmission::Probe, Some(error)) if error.is_its_fault() => {
                self.probe_failed(error, now);
                None
            }
            (CallAdmission::Probe, Some(_)) => {
                self.given_up(turn);
                None
            }
        }
    }

    /// Ends a call whose result says nothing about the plugin, because the caller had gone. If it
    /// was a probe, the next call may be a probe in its place.
    pub(super) fn given_up(&self, turn: CallAdmission) {
        if turn == CallAdmission::Probe {
            let (probed, aside) = (PROBED, ASIDE);
            _ = self
                .state
                .compare_exchange(probed, aside, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Whether it was set aside because of its failures, and not by an operator.
    pub(super) fn gave_out(&self) -> bool {
        !self.serves() && self.record.lock().probe_at.is_some()
    }

    /// Since when it has been set aside by an operator; none if it is not.
    pub(super) fn kept_aside(&self) -> Option<Instant> {
        let record = self.record.lock();
        let by_operator = !self.serves() && record.probe_at.is_none();
        record.since.filter(|_| by_operator)
    }

    /// Whether the version serves calls.
    pub(super) fn serves(&self) -> bool {
        self.state.load(Ordering::Relaxed) == SERVES
    }

    /// Lets the plugin serve again, without a record of failures.
    pub(super) fn resume(&self) {
        self.serve(&mut self.record.lock());
    }

    /// A probe succeeded. If an operator changed the state after the probe began, that counts
    /// instead.
    fn healed(&self) -> Option<HealthChange> {
        let mut record = self.record.lock();
        self.is_probed().then(|| {
            self.serve(&mut record);
            HealthChange::Healed
        })
    }

    fn is_probed(&self) -> bool {
        self.state.load(Ordering::Acquire) == PROBED
    }

    fn serve(&self, record: &mut HealthRecord) {
        *record = HealthRecord::default();
        self.state.store(SERVES, Ordering::Release);
    }

    /// Sets it aside until an operator resumes it. `since` is when that began.
    pub(super) fn set_aside(&self, since: Instant) {
        let mut record = self.record.lock();
        record.since = Some(since);
        record.probe_at = None;
        record.reason = "an operator put it in quarantine".to_owned();
        self.state.store(ASIDE, Ordering::Release);
    }

    /// Why and since when it is set aside; none if it serves.
    pub(super) fn aside(&self, now: Instant) -> Option<QuarantineStatus> {
        let record = self.record.lock();
        let since = record.since.filter(|_| !self.serves())?;
        Some(QuarantineStatus {
            since: now.saturating_duration_since(since),
            probe_in: record.probe_at.map(|at| at.saturating_duration_since(now)),
            reason: record.reason.clone(),
        })
    }

    fn failed(&self, error: &CallError, now: Instant) -> Option<HealthChange> {
        let Quarantine {
            failures: most,
            window,
            probe_after,
        } = self.rules;
        let mut record = self.record.lock();
        let recent = |at: &Instant| now.saturating_duration_since(*at) <= window.0;
        record.failures.retain(recent);
        record.failures.push_back(now);
        if most == 0 || record.failures.len() < most || !self.serves() {
            return None;
        }
        record.failures.clear();
        record.since = Some(now);
        record.probe_at = Some(now + probe_after.0);
        record.reason = format!("{most} calls failed within {window}; the last error: {error}");
        self.state.store(ASIDE, Ordering::Release);
        let reason = record.reason.clone();
        Some(HealthChange::Aside { reason })
    }

    fn probe_failed(&self, error: &CallError, now: Instant) {
        let mut record = self.record.lock();
        if !self.is_probed() {
            return;
        }
        record.probes += 1;
        let pause = self.rules.probe_after.0;
        let pause = pause
            .saturating_mul(1 << record.probes.min(16))
            .min(LONGEST);
        record.probe_at = Some(now + pause);
        record.reason = format!("the last probe failed: {error}");
        self.state.store(ASIDE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units;

    fn health(failures: usize) -> VersionHealth {
        VersionHealth::new(Quarantine {
            failures,
            window: units::ConfigDuration::secs(10),
            probe_after: units::ConfigDuration::secs(5),
        })
    }

    fn after(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    const TRAP: CallError = CallError::Timeout(None);

    #[test]
    fn failures_within_the_window_set_it_aside_and_a_good_probe_brings_it_back() {
        let (health, start) = (health(3), Instant::now());
        for second in [0, 11, 12] {
            health.ended(CallAdmission::Serve, Some(&TRAP), after(second, start));
            assert_eq!(
                health.admit(after(second, start)),
                Some(CallAdmission::Serve)
            );
        }
        health.ended(CallAdmission::Serve, Some(&TRAP), after(13, start));
        assert_eq!(health.admit(after(17, start)), None);
        assert_eq!(health.admit(after(18, start)), Some(CallAdmission::Probe));
        assert_eq!(health.admit(after(18, start)), None, "one probe at a time");
        health.ended(CallAdmission::Probe, None, after(18, start));
        assert_eq!(health.admit(after(18, start)), Some(CallAdmission::Serve));
    }

    #[test]
    fn a_probe_that_fails_makes_the_next_one_wait_longer() {
        let (health, start) = (health(1), Instant::now());
        health.ended(CallAdmission::Serve, Some(&TRAP), start);
        assert_eq!(health.admit(after(5, start)), Some(CallAdmission::Probe));
        health.ended(CallAdmission::Probe, Some(&TRAP), after(5, start));
        assert_eq!(health.admit(after(14, start)), None);
        assert_eq!(health.admit(after(15, start)), Some(CallAdmission::Probe));
    }

    #[test]
    fn being_busy_is_no_failure_and_zero_means_never() {
        let (busy, never, now) = (health(1), health(0), Instant::now());
        busy.ended(CallAdmission::Serve, Some(&CallError::Overloaded), now);
        assert!(busy.serves());
        never.ended(CallAdmission::Serve, Some(&TRAP), now);
        assert!(never.serves());
    }

    #[test]
    fn what_an_operator_set_aside_waits_for_an_operator() {
        let (health, start) = (health(1), Instant::now());
        health.set_aside(start);
        assert_eq!(health.admit(after(100_000, start)), None);
        assert!(health.aside(start).is_some());
        health.resume();
        assert_eq!(health.admit(start), Some(CallAdmission::Serve));
        assert!(health.aside(start).is_none());
    }

    #[test]
    fn a_probe_that_nobody_waits_for_any_more_lets_the_next_call_be_one() {
        let (health, start) = (health(1), Instant::now());
        health.ended(CallAdmission::Serve, Some(&TRAP), start);
        assert_eq!(health.admit(after(5, start)), Some(CallAdmission::Probe));
        health.given_up(CallAdmission::Probe);
        assert_eq!(health.admit(after(5, start)), Some(CallAdmission::Probe));
        health.ended(
            CallAdmission::Probe,
            Some(&CallError::Overloaded),
            after(5, start),
        );
        assert_eq!(health.admit(after(5, start)), Some(CallAdmission::Probe));
    }

    #[test]
    fn an_operators_word_counts_more_than_a_probe_under_way() {
        for error in [None, Some(&TRAP)] {
            let (health, start) = (health(1), Instant::now());
            health.ended(CallAdmission::Serve, Some(&TRAP), start);
            assert!(health.gave_out());
            assert_eq!(health.admit(after(5, start)), Some(CallAdmission::Probe));
            health.set_aside(after(5, start));
            health.ended(CallAdmission::Probe, error, after(6, start));
            assert_eq!(health.admit(after(600, start)), None, "{error:?}");
            assert!(!health.gave_out());
        }
    }
}
