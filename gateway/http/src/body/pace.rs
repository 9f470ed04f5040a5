//! The lowest rate at which a peer must move while it is waited for.
//!
//! Pure: time spans are arguments. Only the time of waiting counts, so that a peer is not slow
//! because we are. It is counted in windows, not as an average from the start: a peer that was
//! fast for a while may not stand still because of that.

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

#[cfg(test)]
mod tests {
    use super::{Duration, MinimumRate};

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
}
