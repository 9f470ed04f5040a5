//! How long to wait between attempts to reach something that fails: a leaf for whoever
//! keeps connections up.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// After this many failures in a row: `min` doubled with each, up to `max`, of which 50 to
/// 100 % by the dice, so that many nodes don't come back at once.
pub fn pause(failures: u32, min: Duration, max: Duration) -> Duration {
    diced(failures, (min, max), dice())
}

/// Times without a connection, each told when it begins and when it ends, and not with every
/// attempt.
#[derive(Default)]
pub struct OutageTracker {
    began: Option<Instant>,
    was_told: bool,
}

/// What is logged about a connection that has been made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionNotice {
    /// For the first time.
    First,
    /// After a time without that was told.
    After(Duration),
    /// Again so soon that nothing was said of it.
    Unsaid,
}

impl OutageTracker {
    /// There is no connection; `is_news`: that is being told.
    pub fn fails(&mut self, is_news: bool) {
        self.began.get_or_insert_with(Instant::now);
        self.was_told |= is_news;
    }

    /// There is one.
    pub fn end(&mut self) -> ConnectionNotice {
        let began = self.began.take();
        match (began, std::mem::take(&mut self.was_told)) {
            (None, _) => ConnectionNotice::First,
            (Some(began), true) => ConnectionNotice::After(began.elapsed()),
            (Some(_), false) => ConnectionNotice::Unsaid,
        }
    }
}

impl ConnectionNotice {
    /// Seconds without a connection, for the line of the log that is due; none: none is.
    pub fn line(self) -> Option<f64> {
        match self {
            Self::First => Some(0.0),
            Self::After(time) => Some((time.as_secs_f64() * 10.0).round() / 10.0),
            Self::Unsaid => None,
        }
    }
}

/// A number that nobody foresees; not for secrets.
pub fn dice() -> u32 {
    RandomState::new().hash_one(0) as u32
}

fn diced(failures: u32, (min, max): (Duration, Duration), dice: u32) -> Duration {
    let full = min
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(max.max(min));
    full.mul_f64(0.5 + 0.5 * f64::from(dice) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_ends_with_a_line_where_it_began_with_one() {
        let mut outages = OutageTracker::default();
        assert_eq!(outages.end(), ConnectionNotice::First);
        outages.fails(true);
        outages.fails(false);
        assert!(matches!(outages.end(), ConnectionNotice::After(_)));
        outages.fails(false);
        assert_eq!(outages.end().line(), None);
    }

    #[test]
    fn pauses_between_attempts_grow_to_their_bound() {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(30));
        let bounds = (min, max);
        assert_eq!(diced(1, bounds, u32::MAX), min);
        assert_eq!(diced(2, bounds, u32::MAX), min * 2);
        assert_eq!(diced(1_000, bounds, u32::MAX), max);
        assert_eq!(diced(1_000, bounds, 0), max / 2);
        assert_eq!(diced(1_000, (min, Duration::ZERO), u32::MAX), min);
    }
}
