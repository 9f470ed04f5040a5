//! What a run costs: failed and slow requests, and those that reached the origins twice.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::arrivals::ArrivalCounts;
use crate::client::{ExchangeOutcome, TimedExchange};
use crate::rounds::ClientLateness;

/// From here on a request is slow, whether it fails or not.
pub const SLOW: Duration = Duration::from_millis(500);

/// The counts of one run.
#[derive(Clone, Default, Debug)]
pub struct ExchangeTally {
    pub requests: u64,
    /// Not answered by 200 with the right body.
    pub failed: u64,
    pub slow: u64,
    /// Reached the origins more than once.
    pub twice: u64,
    /// Of those due before the fault, the ones that were slow or failed: what the machine
    /// does by itself.
    pub noise: u64,
    /// The most by which the client was late.
    pub late: Duration,
    /// What failed, by what was seen instead of the answer.
    pub failures: BTreeMap<String, u64>,
}

impl ExchangeTally {
    /// Counts a run whose fault began `fault_at` after its start.
    pub fn of(exchanges: &[TimedExchange], arrivals: &ArrivalCounts, fault_at: Duration) -> Self {
        let mut tally = Self {
            requests: exchanges.len() as u64,
            twice: arrivals.duplicates(),
            ..Self::default()
        };
        for exchange in exchanges {
            let (failed, slow) = (
                exchange.outcome != ExchangeOutcome::Right,
                exchange.took >= SLOW,
            );
            tally.failed += u64::from(failed);
            tally.slow += u64::from(slow);
            // A request that was under way when the fault began may have met it.
            let before = exchange.due + SLOW < fault_at;
            tally.noise += u64::from(before && (failed || slow));
            tally.late = tally.late.max(exchange.late);
            if let ExchangeOutcome::Wrong(seen) | ExchangeOutcome::Broken(seen) = &exchange.outcome
            {
                *tally.failures.entry(seen.clone()).or_default() += 1;
            }
        }
        tally
    }
}

impl ClientLateness for ExchangeTally {
    fn late(&self) -> Duration {
        self.late
    }
}

impl fmt::Display for ExchangeTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} failed, {} slow, {} twice; client {} ms late {:?}",
            self.failed,
            self.slow,
            self.twice,
            self.late.as_millis(),
            self.failures
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(due_ms: u64, took_ms: u64, outcome: ExchangeOutcome) -> TimedExchange {
        TimedExchange {
            path: String::new(),
            due: Duration::from_millis(due_ms),
            late: Duration::from_millis(due_ms / 100),
            took: Duration::from_millis(took_ms),
            outcome,
        }
    }

    #[test]
    fn failed_and_slow_are_counted_apart_and_both_at_once() {
        let broken = || ExchangeOutcome::Broken("reset".to_owned());
        let wrong = || ExchangeOutcome::Wrong("502 Bad Gateway".to_owned());
        let exchanges = [
            exchange(0, 499, ExchangeOutcome::Right),
            exchange(100, 500, ExchangeOutcome::Right),
            exchange(2_000, 1, broken()),
            exchange(2_100, 600, wrong()),
            exchange(2_200, 1, wrong()),
        ];
        let arrivals = ArrivalCounts::default();
        for path in ["/0", "/1", "/2", "/2", "/3"] {
            arrivals.note(path);
        }
        let tally = ExchangeTally::of(&exchanges, &arrivals, Duration::from_secs(2));
        assert_eq!((tally.requests, tally.failed, tally.slow), (5, 3, 2));
        assert_eq!(tally.twice, 1);
        assert_eq!(tally.noise, 1, "slow before the fault");
        assert_eq!(tally.late, Duration::from_millis(22));
        assert_eq!(tally.failures.values().sum::<u64>(), 3);
        assert_eq!(tally.failures["502 Bad Gateway"], 2);
    }
}
