//! How long to wait between attempts to reach something that fails. Everything that keeps a
//! connection up uses it.

use std::time::{Duration, Instant};

use crate::random;

/// The pause after so many failures in a row: `min`, doubled with each further failure, up to
/// `max`. A random 50 to 100 % of it is taken, so that many nodes do not retry at once.
pub fn pause(failures: u32, min: Duration, max: Duration) -> Duration {
    with_jitter(failures, (min, max), random::number())
}

/// Tracks outages, so that each is reported once when it begins and once when it ends, and not
/// with every attempt. An outage that follows closely on another one is reported when it lasts, so
/// that a connection which comes and goes fills no log.
#[derive(Default)]
pub struct OutageTracker {
    began: Option<Instant>,
    was_told: bool,
}

/// What to log about a connection that has just been made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionNotice {
    /// The first connection.
    First,
    /// The connection is back after an outage of this length, which was reported.
    After(Duration),
    /// The connection is back so soon that the outage was never reported.
    Unsaid,
}

/// From when on an outage is reported in any case.
const LASTS: Duration = Duration::from_secs(2);

impl OutageTracker {
    /// Notes that there is no connection. `was_up_long` says that it had been up for a good while before.
    /// Returns whether to report the outage now.
    pub fn fails(&mut self, was_up_long: bool) -> bool {
        let began = *self.began.get_or_insert_with(Instant::now);
        let tells = !self.was_told && (was_up_long || began.elapsed() >= LASTS);
        self.was_told |= tells;
        tells
    }

    /// Notes that the connection is up. Returns what to log about it.
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
    /// The seconds without a connection, for the log line to write; `None` if there is none to
    /// write.
    pub fn line(self) -> Option<f64> {
        match self {
            Self::First => Some(0.0),
            Self::After(time) => Some((time.as_secs_f64() * 10.0).round() / 10.0),
            Self::Unsaid => None,
        }
    }
}

fn with_jitter(failures: u32, (min, max): (Duration, Duration), random: u32) -> Duration {
    let full = min
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(max.max(min));
    full.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_ends_with_a_line_where_it_began_with_one() {
        let mut outages = OutageTracker::default();
        assert_eq!(outages.end(), ConnectionNotice::First);
        assert!(outages.fails(true));
        assert!(!outages.fails(false) && !outages.fails(true), "it was told");
        assert!(matches!(outages.end(), ConnectionNotice::After(_)));
        assert!(!outages.fails(false));
        assert_eq!(outages.end().line(), None);
    }

    #[test]
    fn an_outage_that_follows_another_one_is_told_when_it_lasts() {
        let mut outages = OutageTracker::default();
        assert!(!outages.fails(false));
        outages.began = Instant::now().checked_sub(LASTS);
        assert!(outages.fails(false));
        assert!(!outages.fails(false));
        assert!(outages.end().line() >= Some(2.0));
    }

    #[test]
    fn pauses_between_attempts_grow_to_their_bound() {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(30));
        let bounds = (min, max);
        assert_eq!(with_jitter(1, bounds, u32::MAX), min);
        assert_eq!(with_jitter(2, bounds, u32::MAX), min * 2);
        assert_eq!(with_jitter(1_000, bounds, u32::MAX), max);
        assert_eq!(with_jitter(1_000, bounds, 0), max / 2);
        assert_eq!(with_jitter(1_000, (min, Duration::ZERO), u32::MAX), min);
    }
}
