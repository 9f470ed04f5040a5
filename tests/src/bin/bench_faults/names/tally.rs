//! What a run with a name that changes has cost.
//!
//! Times are those at which requests were due, 10 ms from one to the next.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::origins::AskedAddress;
use crate::client::{ExchangeOutcome, TimedExchange};
use crate::rounds::ClientLateness;

/// What never happened, in the place of the time until it did.
pub const NEVER: Duration = Duration::MAX;

/// When the name was changed, from the start of the run.
pub struct NameChanges {
    /// It leads to the new address.
    pub moved: Duration,
    /// It does not exist.
    pub vanished: Duration,
    /// It leads to the old address again.
    pub returned: Duration,
}

/// The figures of one run.
#[derive(Clone, Default, Debug)]
pub struct NameTally {
    /// From the move to the first request at the new address.
    pub new_used: Duration,
    /// From the move to the last one at the old address, of those before the name vanished.
    pub old_last_used: Duration,
    /// Of the requests before the name vanished, while it was gone, and afterwards.
    pub failed: [u64; 3],
    /// How many requests were due while it was gone.
    pub gone: u64,
    /// From its return to the first request from which on all are answered by the old address.
    pub normal: Duration,
    /// The most by which the client was late.
    pub late: Duration,
    /// What failed, by what was seen instead of the answer.
    pub failures: BTreeMap<String, u64>,
}

impl NameTally {
    /// Counts a run; `asked` knows which address has read the request for a path.
    pub fn of(
        mut exchanges: Vec<TimedExchange>,
        asked: impl Fn(&str) -> AskedAddress,
        changes: &NameChanges,
    ) -> Self {
        exchanges.sort_by_key(|exchange| exchange.due);
        let moved: Vec<_> = due(&exchanges, changes.moved, changes.vanished).collect();
        let gone: Vec<_> = due(&exchanges, changes.vanished, changes.returned).collect();
        let after: Vec<_> = due(&exchanges, changes.returned, NEVER).collect();
        let at = |exchange: &TimedExchange, address| asked(&exchange.path) == address;
        let new_used = moved.iter().find(|one| at(one, AskedAddress::New));
        let old_last = moved.iter().rfind(|one| at(one, AskedAddress::Old));
        let normal = |one: &&TimedExchange| !failed(one) && at(one, AskedAddress::Old);
        let before = due(&exchanges, Duration::ZERO, changes.vanished);
        Self {
            new_used: new_used.map_or(NEVER, |one| one.due - changes.moved),
            old_last_used: old_last.map_or(Duration::ZERO, |one| one.due - changes.moved),
            failed: [
                count_failed(before),
                count_failed(gone.iter().copied()),
                count_failed(after.iter().copied()),
            ],
            gone: gone.len() as u64,
            normal: match after.iter().rposition(|one| !normal(one)) {
                None => Duration::ZERO,
                Some(last) => after
                    .get(last + 1)
                    .map_or(NEVER, |one| one.due - changes.returned),
            },
            late: exchanges
                .iter()
                .map(|one| one.late)
                .max()
                .unwrap_or_default(),
            failures: failures(&exchanges),
        }
    }
}

/// The exchanges that were due from the one time until the other.
fn due(
    exchanges: &[TimedExchange],
    from: Duration,
    until: Duration,
) -> impl Iterator<Item = &TimedExchange> {
    let within = move |exchange: &&TimedExchange| (from..until).contains(&exchange.due);
    exchanges.iter().filter(within)
}

fn failed(exchange: &TimedExchange) -> bool {
    exchange.outcome != ExchangeOutcome::Right
}

fn count_failed<'a>(exchanges: impl Iterator<Item = &'a TimedExchange>) -> u64 {
    exchanges.filter(|exchange| failed(exchange)).count() as u64
}

/// What was seen instead of right answers, and how often.
pub fn failures(exchanges: &[TimedExchange]) -> BTreeMap<String, u64> {
    let mut failures = BTreeMap::new();
    for exchange in exchanges {
        if let ExchangeOutcome::Wrong(seen) | ExchangeOutcome::Broken(seen) = &exchange.outcome {
            *failures.entry(seen.clone()).or_default() += 1;
        }
    }
    failures
}

/// A time as tables have it.
pub fn milliseconds(time: Duration) -> String {
    match time {
        NEVER => "never".to_owned(),
        time => format!("{} ms", time.as_millis()),
    }
}

impl ClientLateness for NameTally {
    fn late(&self) -> Duration {
        self.late
    }
}

impl fmt::Display for NameTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, gone, after] = self.failed;
        write!(
            f,
            "new address after {}, old until {}, {before} + {gone} + {after} failed, normal after {}; client {} ms late {:?}",
            milliseconds(self.new_used),
            milliseconds(self.old_last_used),
            milliseconds(self.normal),
            self.late.as_millis(),
            self.failures
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGES: NameChanges = NameChanges {
        moved: Duration::from_millis(100),
        vanished: Duration::from_millis(200),
        returned: Duration::from_millis(300),
    };

    /// Requests 10 ms apart, each by its address: `o`ld, `n`ew, `x` failed at none.
    fn tally(asked: &str) -> NameTally {
        let numbered = (0..).zip(asked.chars());
        let exchanges = numbered.map(|(number, asked)| TimedExchange {
            path: asked.to_string(),
            due: Duration::from_millis(10 * number),
            late: Duration::from_millis(number),
            took: Duration::ZERO,
            outcome: match asked {
                'x' => ExchangeOutcome::Wrong("503".to_owned()),
                _ => ExchangeOutcome::Right,
            },
        });
        let asked = |path: &str| match path {
            "o" => AskedAddress::Old,
            "n" => AskedAddress::New,
            _ => AskedAddress::Neither,
        };
        let mut exchanges: Vec<_> = exchanges.collect();
        exchanges.reverse();
        NameTally::of(exchanges, asked, &CHANGES)
    }

    #[test]
    fn times_count_from_the_changes() {
        let tally = tally("oooooxoooooononnnnnnnnxxnnnnnnxnooooooo");
        let ms = Duration::from_millis;
        assert_eq!((tally.new_used, tally.old_last_used), (ms(20), ms(30)));
        assert_eq!((tally.failed, tally.gone), ([1, 2, 1], 10));
        assert_eq!(tally.normal, ms(20));
        assert_eq!(tally.late, ms(38));
        assert_eq!(tally.failures["503"], 4);
    }

    #[test]
    fn what_never_happens_is_never() {
        let old = tally("oooooooooooooooooooooooooooooooooooo");
        assert_eq!((old.new_used, old.normal), (NEVER, Duration::ZERO));
        assert_eq!(old.old_last_used, Duration::from_millis(90));
        let new = tally("oooooooooonnnnnnnnnnnnnnnnnnnnnnnnnn");
        assert_eq!((new.old_last_used, new.normal), (Duration::ZERO, NEVER));
    }
}
