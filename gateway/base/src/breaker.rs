//! A circuit breaker: after several failures in a row no call is made for a while; then one
//! call is let through as a probe, and its outcome decides for all.
//!
//! Pure: `now` is an argument, and monotonic. Invariant: an outcome counts only in the epoch in
//! which its call was admitted, so that a late answer from before a transition changes nothing.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The circuit breaker of one subject. All of its callers share it.
pub struct Breaker {
    state: Mutex<BreakerState>,
    threshold: u32,
    cooldown: Duration,
}

struct BreakerState {
    position: BreakerPhase,
    /// Grows with every transition.
    epoch: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BreakerPhase {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One call probes.
    Probing {
        since: Instant,
    },
}

/// Permission to make one call, whose outcome must be reported to the breaker.
#[must_use = "the breaker waits for the outcome"]
#[derive(Debug)]
pub struct Permit {
    epoch: u64,
}

/// The state of a breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CircuitState {
    Closed,
    HalfOpen,
    Open,
}

impl CircuitState {
    /// The name used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

impl Breaker {
    /// Opens after `threshold` failures in a row (0: never), for `cooldown`.
    pub fn new(threshold: u32, cooldown: Duration) -> Self {
        let state = BreakerState {
            position: BreakerPhase::Closed { failures: 0 },
            epoch: 0,
        };
        Self {
            state: Mutex::new(state),
            threshold,
            cooldown,
        }
    }

    /// Permission for a call, or `None` while the breaker is open.
    pub fn admit(&self, now: Instant) -> Option<Permit> {
        let mut state = self.state.lock();
        let probe = match state.position {
            BreakerPhase::Closed { .. } => false,
            BreakerPhase::Open { until } => now >= until,
            // A probe whose outcome was never reported must not keep the breaker open for ever.
            BreakerPhase::Probing { since } => {
                now.saturating_duration_since(since) >= self.cooldown
            }
        };
        match (probe, state.position) {
            (true, _) => state.go(BreakerPhase::Probing { since: now }),
            (false, BreakerPhase::Closed { .. }) => {}
            (false, _) => return None,
        }
        Some(Permit { epoch: state.epoch })
    }

    /// The call succeeded.
    pub fn succeeded(&self, permit: &Permit) {
        let mut state = self.state.lock();
        if state.epoch != permit.epoch {
            return;
        }
        match state.position {
            BreakerPhase::Closed { ref mut failures } => *failures = 0,
            BreakerPhase::Probing { .. } | BreakerPhase::Open { .. } => {
                state.go(BreakerPhase::Closed { failures: 0 });
            }
        }
    }

    /// The call failed. Returns true if this opened the breaker.
    pub fn failed(&self, permit: &Permit, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.epoch != permit.epoch {
            return false;
        }
        let opens = match state.position {
            BreakerPhase::Closed { ref mut failures } => {
                *failures += 1;
                self.threshold > 0 && *failures >= self.threshold
            }
            BreakerPhase::Probing { .. } => true,
            BreakerPhase::Open { .. } => false,
        };
        if opens {
            state.go(BreakerPhase::Open {
                until: now + self.cooldown,
            });
        }
        opens
    }

    /// Closes the breaker, because its subject is known to work again.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if !matches!(state.position, BreakerPhase::Closed { .. }) {
            state.go(BreakerPhase::Closed { failures: 0 });
        }
    }

    /// The present state.
    pub fn passage(&self) -> CircuitState {
        match self.state.lock().position {
            BreakerPhase::Closed { .. } => CircuitState::Closed,
            BreakerPhase::Probing { .. } => CircuitState::HalfOpen,
            BreakerPhase::Open { .. } => CircuitState::Open,
        }
    }
}

impl BreakerState {
    fn go(&mut self, position: BreakerPhase) {
        self.position = position;
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(30);

    fn open(now: Instant) -> Breaker {
        let breaker = Breaker::new(3, COOLDOWN);
        for n in 1..=3 {
            let permit = breaker.admit(now).unwrap();
            assert_eq!(breaker.failed(&permit, now), n == 3);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let breaker = Breaker::new(3, COOLDOWN);
        for _ in 0..10 {
            for _ in 0..2 {
                let permit = breaker.admit(now).unwrap();
                breaker.failed(&permit, now);
            }
            breaker.succeeded(&breaker.admit(now).unwrap());
        }
        assert_eq!(breaker.passage(), CircuitState::Closed);
        assert!(open(now).admit(now).is_none());
    }

    /// Guards against a half-open breaker that lets all waiting calls through.
    #[test]
    fn after_the_cooldown_one_call_tries_and_decides() {
        let now = Instant::now();
        let later = now + COOLDOWN;
        for well in [true, false] {
            let breaker = open(now);
            let probe = breaker.admit(later).unwrap();
            assert!((0..100).all(|_| breaker.admit(later).is_none()));
            match well {
                true => breaker.succeeded(&probe),
                false => assert!(breaker.failed(&probe, later)),
            }
            assert_eq!(breaker.admit(later).is_some(), well);
        }
    }

    #[test]
    fn an_answer_from_before_a_transition_counts_for_nothing() {
        let now = Instant::now();
        let breaker = Breaker::new(3, COOLDOWN);
        let late = breaker.admit(now).unwrap();
        for _ in 0..3 {
            let permit = breaker.admit(now).unwrap();
            breaker.failed(&permit, now);
        }
        breaker.succeeded(&late);
        assert_eq!(breaker.passage(), CircuitState::Open);
    }

    #[test]
    fn a_lost_probe_does_not_shut_the_door_for_ever() {
        let now = Instant::now();
        let breaker = open(now);
        let _lost = breaker.admit(now + COOLDOWN).unwrap();
        assert!(breaker.admit(now + COOLDOWN * 2).is_some());
    }
}
