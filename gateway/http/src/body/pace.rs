//! The lowest rate at which a peer must move while it is waited for.
//!
//! Pure: time spans are arguments. Only the time of waiting counts, so that a peer is not slow
//! because we are. What a peer sends is counted in windows ([`MinimumRate`]), not as an average
//! from the start: one that was fast for a while may not stand still because of that.
//!
//! What a peer takes comes in steps, however steadily it reads: it opens its window again when a
//! part of it is read, often half, and nothing moves until then. How large the step is, nobody
//! says. So what was taken counts for the time that follows ([`TakenAhead`]), within a bound.

use std::time::Duration;

use crate::config::ListenerLimits;

/// Bytes that must move in each window of waiting.
#[derive(Clone, Copy, Debug)]
pub struct MinimumRate {
    least: u64,
    window: Duration,
    moved: u64,
    waited: Duration,
}

impl MinimumRate {
    /// `rate` is in bytes a second. Each window lasts for `grace`; nothing is missed before the
    /// first one has passed. `None` when either is zero: then no rate is required.
    pub fn new(rate: u64, grace: Duration) -> Option<Self> {
        let least = rate.saturating_mul(grace.as_millis().try_into().unwrap_or(u64::MAX)) / 1_000;
        (rate > 0 && !grace.is_zero()).then_some(Self {
            least,
            window: grace,
            moved: 0,
            waited: Duration::ZERO,
        })
    }

    /// The rate that a client of a listener with these limits must keep.
    pub fn of_client(limits: &ListenerLimits) -> Option<Self> {
        Self::new(limits.min_rate.0, limits.min_rate_grace.0)
    }

    /// Notes bytes that moved.
    pub fn moved(&mut self, bytes: u64) {
        self.moved = self.moved.saturating_add(bytes);
    }

    /// How much more waiting ends the window.
    pub fn left(&self) -> Duration {
        self.window.saturating_sub(self.waited)
    }

    /// Notes that we waited for `span` (more). Returns true when a window has ended in which too
    /// little moved.
    pub fn waited(&mut self, span: Duration) -> bool {
        self.waited = self.waited.saturating_add(span);
        if self.waited < self.window {
            return false;
        }
        self.waited = Duration::ZERO;
        std::mem::take(&mut self.moved) < self.least
    }
}

/// How long a peer that takes an answer may still stand still.
#[derive(Clone, Copy, Debug)]
pub struct TakenAhead {
    rate: u64,
    grace: Duration,
    most: Duration,
    left: Duration,
}

impl TakenAhead {
    /// For what a client of a listener with these limits takes of an answer.
    pub fn of_client(limits: &ListenerLimits) -> Option<Self> {
        let (rate, grace) = (limits.min_rate.0, limits.min_rate_grace.0);
        Self::new(rate, grace, limits.body_timeout.0)
    }

    /// A peer may begin with `grace`. Each byte that it takes gives it the time that the byte
    /// needs at `rate`, in bytes a second, but it has never more than `most` ahead, or `grace` if
    /// that is longer. `None` when the rate or the grace is zero: then no rate is required.
    pub fn new(rate: u64, grace: Duration, most: Duration) -> Option<Self> {
        (rate > 0 && !grace.is_zero()).then_some(Self {
            rate,
            grace,
            most: most.max(grace),
            left: grace,
        })
    }

    /// Notes bytes that were taken, also while nobody waited for it.
    pub fn moved(&mut self, bytes: u64) {
        let millis = bytes.saturating_mul(1_000) / self.rate;
        let gained = Duration::from_millis(millis);
        self.left = self.left.saturating_add(gained).min(self.most);
    }

    /// How much more waiting is too long, if nothing is taken.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// Whether it has no less than it began with.
    pub fn is_ahead(&self) -> bool {
        self.left >= self.grace
    }

    /// Notes that we waited for `span` (more). Returns true when that was too long; then it begins
    /// again.
    pub fn waited(&mut self, span: Duration) -> bool {
        self.left = self.left.saturating_sub(span);
        let over = self.left.is_zero();
        if over {
            self.left = self.grace;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, MinimumRate, TakenAhead};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_a_whole_window_of_waiting_can_be_too_slow() {
        let mut pace = MinimumRate::new(10, 5 * SECOND).unwrap();
        for _ in 0..4 {
            pace.moved(9);
            assert!(!pace.waited(SECOND));
        }
        assert_eq!(pace.left(), SECOND);
        assert!(pace.waited(SECOND), "36 bytes in 5 s");
        pace.moved(50);
        assert!(!pace.waited(9 * SECOND), "50 in a window");
        assert!(pace.waited(5 * SECOND), "earlier bytes are no credit");
    }

    #[test]
    fn without_a_rate_or_a_window_nothing_is_asked() {
        assert!(MinimumRate::new(0, SECOND).is_none());
        assert!(MinimumRate::new(1, Duration::ZERO).is_none());
        assert!(MinimumRate::new(u64::MAX, Duration::MAX).is_some());
    }

    #[test]
    fn what_is_taken_in_large_steps_is_no_slower_than_the_same_in_small_ones() {
        const STEP: u64 = 32 << 10;
        let mut taken = TakenAhead::new(240, 10 * SECOND, 60 * SECOND).unwrap();
        for _ in 0..100 {
            taken.moved(STEP);
            assert!(!taken.waited(32 * SECOND), "1 KiB a second");
        }
        assert_eq!(taken.left(), 28 * SECOND);
        assert!(!taken.waited(27 * SECOND));
        assert!(!taken.is_ahead());
        assert!(taken.waited(SECOND), "at most a minute ahead");
        assert_eq!(taken.left(), 10 * SECOND, "it begins again");
    }

    #[test]
    fn who_takes_nothing_has_the_grace_alone_and_who_takes_too_little_soon_ends() {
        let mut nothing = TakenAhead::new(240, 10 * SECOND, 60 * SECOND).unwrap();
        assert!(!nothing.waited(9 * SECOND));
        assert!(nothing.waited(SECOND));
        let mut creeping = TakenAhead::new(240, 10 * SECOND, 60 * SECOND).unwrap();
        let lasted = (1..).find(|_| {
            creeping.moved(120);
            creeping.waited(SECOND)
        });
        assert_eq!(lasted, Some(20), "half the rate lasts for twice the grace");
        let grace = TakenAhead::new(240, 10 * SECOND, SECOND).unwrap();
        assert_eq!(grace.left(), 10 * SECOND, "no less than the grace");
        assert!(TakenAhead::new(0, SECOND, SECOND).is_none());
        assert!(TakenAhead::new(1, Duration::ZERO, SECOND).is_none());
    }
}
