//! The health of one target, as the answers to requests and to checks show it.
//!
//! After some failures in a row a target is ejected: it gets no requests for a while, the longer
//! the more often. Who else is ejected is not known here: `targets` asks first whether one more may
//! be. Administrative states and what is observed are told apart.

use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;

use super::config::{ActiveHealthConfig, FailureKind, PassiveHealthConfig};

/// The result of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum CheckOutcome {
    Passed(StatusCode),
    /// The status is not among the good ones.
    WrongStatus(StatusCode),
    Failed {
        /// None: the check itself was at fault.
        kind: Option<FailureKind>,
        why: String,
    },
}

impl CheckOutcome {
    /// The word in metrics.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Passed(_) => "passed".to_owned(),
            Self::WrongStatus(_) => "status".to_owned(),
            Self::Failed { kind, .. } => kind.map_or("other".to_owned(), FailureKind::word),
        }
    }

    /// The result in words.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Passed(status) | Self::WrongStatus(status) => {
                format!("it answered {}", status.as_u16())
            }
            Self::Failed { why, .. } => why.clone(),
        }
    }
}

/// What was observed of a target.
pub(super) struct TargetHealth(Mutex<HealthState>);

#[derive(Default)]
struct HealthState {
    /// Failures since the last answer that was no failure.
    failures: u32,
    /// Ejections since it was well for `max_eject`.
    ejections: u32,
    ejected_until: Option<Instant>,
    /// The target has asked to be left alone until then (`Retry-After`).
    rests_until: Option<Instant>,
    /// It has come back then, and gets less than its share for a while.
    returned: Option<Instant>,
    checks: CheckRecord,
    last_failure: Option<(FailureKind, Instant)>,
}

/// What the active checks have shown.
#[derive(Default)]
struct CheckRecord {
    verdict: CheckVerdict,
    /// The last results in a row that speak against the verdict.
    against: u32,
    /// The last result in words.
    last: Option<(String, Instant)>,
}

/// Whether a target gets requests, as far as its active checks tell.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum CheckVerdict {
    /// Until checks have failed, requests tell.
    #[default]
    Up,
    Down,
}

/// Whether a target gets requests, as far as its answers tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObservedState {
    Usable,
    /// It can be used, but has asked for less.
    Rests,
    /// It has failed requests.
    Ejected,
    /// It has failed its active checks.
    Down,
}

impl ObservedState {
    /// The word for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Rests => "rests",
            Self::Ejected => "ejected",
            Self::Down => "down",
        }
    }
}

/// What was observed of a target, for operators.
#[derive(Clone, Debug)]
pub struct HealthStatus {
    pub observed: ObservedState,
    /// Failures since the last answer that was no failure.
    pub failures: u32,
    /// Ejections since it was well for `max_eject`.
    pub ejections: u32,
    /// For how long it is still ejected.
    pub ejected_for: Option<Duration>,
    /// For how long it has asked to be left alone.
    pub rests_for: Option<Duration>,
    /// The last failure of a request, and how long ago it was.
    pub last_failure: Option<(FailureKind, Duration)>,
    /// The last result of an active check in words, and how long ago it was.
    pub last_check: Option<(String, Duration)>,
}

/// What an active check changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CheckChange {
    Nothing,
    WentDown,
    CameBack,
}

/// What a failure leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FailureOutcome {
    Counted,
    /// It has failed often enough to be ejected.
    EjectionDue,
}

impl TargetHealth {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Whether the target gets requests now.
    pub(super) fn observed(&self, now: Instant) -> ObservedState {
        let mut state = self.0.lock();
        let is_ejected = state.is_ejected(now);
        match state.rests_until {
            _ if state.checks.verdict == CheckVerdict::Down => ObservedState::Down,
            _ if is_ejected => ObservedState::Ejected,
            Some(until) if now < until => ObservedState::Rests,
            _ => ObservedState::Usable,
        }
    }

    /// Whether it is ejected, whatever its checks say.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.0.lock().is_ejected(now)
    }

    /// Which part of its share the target gets: from a tenth to all of it within `slow_start` after
    /// it came back.
    pub(super) fn share(&self, slow_start: Duration, now: Instant) -> f64 {
        let returned = self.0.lock().returned;
        let since = returned.map(|at| now.saturating_duration_since(at));
        match since.filter(|since| *since < slow_start) {
            Some(since) => 0.1 + 0.9 * since.as_secs_f64() / slow_start.as_secs_f64(),
            None => 1.0,
        }
    }

    pub(super) fn succeeded(&self, rules: &PassiveHealthConfig, now: Instant) {
        let mut state = self.0.lock();
        state.failures = 0;
        let well_since = state.returned;
        if well_since.is_some_and(|at| now.saturating_duration_since(at) >= rules.max_eject.0) {
            state.ejections = 0;
            state.returned = None;
        }
    }

    /// Notes an error that counts for no ejection, which interrupts a row of failures.
    pub(super) fn answered(&self) {
        self.0.lock().failures = 0;
    }

    /// Whether its last answer was good, as far as failures are counted.
    pub(super) fn is_well(&self) -> bool {
        self.0.lock().failures == 0
    }

    pub(super) fn failed(&self, rules: &PassiveHealthConfig) -> FailureOutcome {
        let mut state = self.0.lock();
        state.failures = state.failures.saturating_add(1);
        match rules.failures > 0
            && state.failures >= rules.failures
            && state.ejected_until.is_none()
        {
            true => FailureOutcome::EjectionDue,
            false => FailureOutcome::Counted,
        }
    }

    /// Ejects the target. `jitter` is between -1 and 1, of which a tenth counts. Returns for how
    /// long.
    pub(super) fn eject(&self, rules: &PassiveHealthConfig, jitter: f64, now: Instant) -> Duration {
        let mut state = self.0.lock();
        state.ejections = state.ejections.saturating_add(1);
        let times = rules.eject.0.saturating_mul(state.ejections);
        let length = times.min(rules.max_eject.0).mul_f64(1.0 + 0.1 * jitter);
        state.ejected_until = Some(now + length);
        length
    }

    /// Notes the result of an active check.
    pub(super) fn checked(
        &self,
        outcome: &CheckOutcome,
        rules: &ActiveHealthConfig,
        now: Instant,
    ) -> CheckChange {
        let mut state = self.0.lock();
        let checks = &mut state.checks;
        checks.last = Some((outcome.reason(), now));
        let speaks_for = match outcome {
            CheckOutcome::Passed(_) => CheckVerdict::Up,
            CheckOutcome::WrongStatus(_) | CheckOutcome::Failed { .. } => CheckVerdict::Down,
        };
        if speaks_for == checks.verdict {
            checks.against = 0;
            return CheckChange::Nothing;
        }
        checks.against = checks.against.saturating_add(1);
        let needed = match speaks_for {
            CheckVerdict::Up => rules.rise,
            CheckVerdict::Down => rules.fall,
        };
        if checks.against < needed {
            return CheckChange::Nothing;
        }
        checks.verdict = speaks_for;
        checks.against = 0;
        match speaks_for {
            CheckVerdict::Up => {
                state.come_back(now);
                CheckChange::CameBack
            }
            CheckVerdict::Down => CheckChange::WentDown,
        }
    }

    /// Notes that it gets requests again.
    pub(super) fn came_back(&self, now: Instant) {
        self.0.lock().come_back(now);
    }

    /// Notes a failure of a request, whether it counts or not.
    pub(super) fn note_failure(&self, failure: FailureKind, now: Instant) {
        self.0.lock().last_failure = Some((failure, now));
    }

    pub(super) fn status(&self, now: Instant) -> HealthStatus {
        let observed = self.observed(now);
        let state = self.0.lock();
        let left = |until: Option<Instant>| {
            let left = until?.saturating_duration_since(now);
            (!left.is_zero()).then_some(left)
        };
        let ago = |at: Instant| now.saturating_duration_since(at);
        let check = state.checks.last.as_ref();
        HealthStatus {
            observed,
            failures: state.failures,
            ejections: state.ejections,
            ejected_for: left(state.ejected_until),
            rests_for: left(state.rests_until),
            last_failure: state.last_failure.map(|(kind, at)| (kind, ago(at))),
            last_check: check.map(|(result, at)| (result.clone(), ago(*at))),
        }
    }

    /// Leaves the target alone for this long.
    pub(super) fn rest(&self, length: Duration, now: Instant) {
        self.0.lock().rests_until = Some(now + length);
    }
}

impl HealthState {
    fn come_back(&mut self, now: Instant) {
        self.failures = 0;
        self.returned = Some(now);
    }

    fn is_ejected(&mut self, now: Instant) -> bool {
        let Some(until) = self.ejected_until else {
            return false;
        };
        if now < until {
            return true;
        }
        self.ejected_until = None;
        self.returned = Some(until);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::spread::SeededNumbers;
    use crate::units::ConfigDuration;

    fn rules() -> PassiveHealthConfig {
        PassiveHealthConfig {
            failures: 3,
            eject: ConfigDuration::secs(10),
            max_eject: ConfigDuration::secs(25),
            ..PassiveHealthConfig::default()
        }
    }

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time_and_good_answers_forgive() {
        let (rules, began) = (rules(), Instant::now());
        let health = TargetHealth::new();
        let failures =
            |count: usize| -> Vec<_> { (0..count).map(|_| health.failed(&rules)).collect() };
        use FailureOutcome::{Counted, EjectionDue};
        assert_eq!(failures(2), [Counted, Counted]);
        health.succeeded(&rules, began);
        assert_eq!(failures(3), [Counted, Counted, EjectionDue], "in a row");
        assert_eq!(health.eject(&rules, 0.0, began), Duration::from_secs(10));
        assert_eq!(health.observed(after(began, 9)), ObservedState::Ejected);
        assert_eq!(health.observed(after(began, 10)), ObservedState::Usable);
        assert_eq!(failures(1), [EjectionDue], "it has not been well since");
        assert_eq!(
            health.eject(&rules, 0.0, after(began, 10)),
            Duration::from_secs(20)
        );
        assert_eq!(health.observed(after(began, 30)), ObservedState::Usable);
        assert_eq!(
            health.eject(&rules, 1.0, after(began, 30)),
            Duration::from_millis(27_500),
            "at most, with jitter"
        );
        assert_eq!(health.observed(after(began, 60)), ObservedState::Usable);
        health.succeeded(&rules, after(began, 90));
        assert_eq!(
            health.eject(&rules, 0.0, after(began, 90)),
            Duration::from_secs(10),
            "forgotten"
        );
    }

    #[test]
    fn a_target_that_comes_back_gets_a_growing_share() {
        let (rules, began) = (rules(), Instant::now());
        let (health, slow_start) = (TargetHealth::new(), Duration::from_secs(10));
        assert_eq!(health.share(slow_start, began), 1.0);
        health.eject(&rules, 0.0, began);
        assert_eq!(health.observed(after(began, 10)), ObservedState::Usable);
        assert_eq!(health.share(slow_start, after(began, 10)), 0.1);
        assert_eq!(health.share(slow_start, after(began, 15)), 0.55);
        assert_eq!(health.share(slow_start, after(began, 20)), 1.0);
    }

    #[test]
    fn retry_after_is_a_rest_and_no_ejection() {
        let began = Instant::now();
        let health = TargetHealth::new();
        health.rest(Duration::from_secs(5), began);
        assert_eq!(health.observed(after(began, 4)), ObservedState::Rests);
        assert_eq!(health.observed(after(began, 5)), ObservedState::Usable);
    }

    #[test]
    fn results_of_checks_count_in_a_row_and_a_return_begins_slowly() {
        let rules: ActiveHealthConfig =
            serde_yaml::from_str("{path: /, fall: 3, rise: 2}").unwrap();
        let (began, health) = (Instant::now(), TargetHealth::new());
        let checks = |outcomes: &str| -> Vec<CheckChange> {
            let outcome = |letter| match letter {
                '+' => CheckOutcome::Passed(StatusCode::OK),
                _ => CheckOutcome::WrongStatus(StatusCode::INTERNAL_SERVER_ERROR),
            };
            let outcomes = outcomes.chars().map(outcome);
            outcomes
                .map(|outcome| health.checked(&outcome, &rules, began))
                .collect()
        };
        use CheckChange::{CameBack, Nothing, WentDown};
        assert_eq!(checks("--+--+-"), [Nothing; 7], "never three in a row");
        assert_eq!(checks("-"), [Nothing]);
        assert_eq!(checks("-"), [WentDown]);
        assert_eq!(health.observed(began), ObservedState::Down);
        assert!(!health.is_ejected(began));
        assert_eq!(checks("-+-+"), [Nothing; 4], "never two in a row");
        assert_eq!(checks("+"), [CameBack]);
        assert_eq!(health.observed(began), ObservedState::Usable);
        assert_eq!(health.share(Duration::from_secs(10), began), 0.1);
    }

    /// Random sequences of answers and checks at given instants.
    #[test]
    fn no_sequence_of_events_breaks_the_rules_of_health() {
        let checks: ActiveHealthConfig =
            serde_yaml::from_str("{path: /, fall: 3, rise: 2}").unwrap();
        let (rules, slow_start) = (rules(), Duration::from_secs(10));
        for seed in 0..300 {
            let mut numbers = SeededNumbers(seed);
            let (health, mut now) = (TargetHealth::new(), Instant::now());
            let (mut failures, mut ejections, mut until) = (0, 0, None);
            let (mut is_down, mut results) = (false, String::new());
            for step in 0..150 {
                now += Duration::from_millis(numbers.below(3_000) as u64);
                let told = format!("seed {seed}, step {step}");
                let is_ejected = until.is_some_and(|until| now < until);
                assert_eq!(health.is_ejected(now), is_ejected, "{told}");
                match numbers.below(4) {
                    0 => {
                        health.succeeded(&rules, now);
                        failures = 0;
                    }
                    1 => {
                        let result = ['+', '-'][numbers.below(2)];
                        results.push(result);
                        let outcome = match result {
                            '+' => CheckOutcome::Passed(StatusCode::OK),
                            _ => CheckOutcome::WrongStatus(StatusCode::BAD_GATEWAY),
                        };
                        let decisive = if is_down { "++" } else { "---" };
                        let change = match (results.ends_with(decisive), is_down) {
                            (false, _) => CheckChange::Nothing,
                            (true, true) => CheckChange::CameBack,
                            (true, false) => CheckChange::WentDown,
                        };
                        assert_eq!(health.checked(&outcome, &checks, now), change, "{told}");
                        match change {
                            CheckChange::Nothing => {}
                            CheckChange::CameBack => {
                                (is_down, failures) = (false, 0);
                                assert_eq!(health.share(slow_start, now), 0.1, "{told}");
                            }
                            CheckChange::WentDown => is_down = true,
                        }
                    }
                    _ => {
                        failures += 1;
                        let due = failures >= rules.failures && !is_ejected;
                        let is_due = health.failed(&rules) == FailureOutcome::EjectionDue;
                        assert_eq!(is_due, due, "{told}");
                        if due {
                            let jitter = numbers.below(3) as f64 - 1.0;
                            let length = health.eject(&rules, jitter, now);
                            let counted = health.status(now).ejections;
                            assert!(counted == ejections + 1 || counted == 1, "{told}");
                            let times = rules.eject.0 * counted;
                            let usual = times.min(rules.max_eject.0).mul_f64(1.0 + 0.1 * jitter);
                            assert_eq!(length, usual, "{told}");
                            (ejections, until) = (counted, Some(now + length));
                        }
                    }
                }
                let ejected = until.is_some_and(|until| now < until);
                let expected = match (is_down, ejected) {
                    (true, _) => ObservedState::Down,
                    (false, true) => ObservedState::Ejected,
                    (false, false) => ObservedState::Usable,
                };
                assert_eq!(health.observed(now), expected, "{told}");
                let share = health.share(slow_start, now);
                assert!((0.1..=1.0).contains(&share), "{told}: {share}");
            }
        }
    }
}
