//! How long targets take to the heads of their responses.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The estimate for one target: a moving average that goes up at once and sinks slowly ("peak
/// EWMA"), so that a target which begins to be slow is avoided from its first slow answer on.
pub(super) struct LatencyEstimate(Mutex<LatencyState>);

#[derive(Clone, Copy)]
struct LatencyState {
    seconds: f64,
    at: Instant,
}

/// After this time a third of an estimate is left if nothing is observed.
const DECAY: Duration = Duration::from_secs(10);

/// Times of all targets of an upstream by powers of two, over the last half to whole minute.
pub(super) struct LatencyHistogram {
    halves: [[AtomicU32; BUCKETS]; 2],
    turned: Mutex<HistogramTurn>,
}

struct HistogramTurn {
    at: Instant,
    current: usize,
}

/// Bucket n counts times below 2^n microseconds; the last one everything above.
const BUCKETS: usize = 32;
const HALF: Duration = Duration::from_secs(30);

impl LatencyEstimate {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(LatencyState {
            seconds: 0.0,
            at: now,
        }))
    }

    /// The estimate in seconds; it sinks while nothing is observed, so that a target that was slow
    /// is tried again some time.
    pub(super) fn seconds(&self, now: Instant) -> f64 {
        self.0.lock().decayed(now)
    }

    pub(super) fn observe(&self, sample: Duration, now: Instant) {
        let mut state = self.0.lock();
        let sample = sample.as_secs_f64();
        let kept = state.kept(now);
        state.seconds = match sample > state.seconds * kept {
            true => sample,
            false => state.seconds * kept + sample * (1.0 - kept),
        };
        // After a restart of the estimate this may be a moment to come.
        state.at = state.at.max(now);
    }

    /// Notes that an answer would have taken longer than this. It never lowers the estimate.
    pub(super) fn at_least(&self, time: Duration, now: Instant) {
        let mut state = self.0.lock();
        let time = time.as_secs_f64();
        if time > state.decayed(now) {
            *state = LatencyState {
                seconds: time,
                at: now,
            };
        }
    }

    /// Begins anew with `time` when the target comes back, which may be later.
    pub(super) fn restart(&self, time: Duration, at: Instant) {
        *self.0.lock() = LatencyState {
            seconds: time.as_secs_f64(),
            at,
        };
    }
}

impl LatencyState {
    fn kept(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (-elapsed / DECAY.as_secs_f64()).exp()
    }

    fn decayed(&self, now: Instant) -> f64 {
        self.seconds * self.kept(now)
    }
}

impl LatencyHistogram {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            halves: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU32::new(0))),
            turned: Mutex::new(HistogramTurn {
                at: now,
                current: 0,
            }),
        }
    }

    pub(super) fn observe(&self, sample: Duration, now: Instant) {
        let micros = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.halves[self.current(now)][bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    /// The time below which this share of the responses came, rounded up to a power of two.
    pub(super) fn quantile(&self, share: f64, now: Instant) -> Option<Duration> {
        self.current(now);
        let count = |bucket: usize| -> u64 {
            let halves = self.halves.iter();
            halves
                .map(|half| u64::from(half[bucket].load(Relaxed)))
                .sum()
        };
        let all: u64 = (0..BUCKETS).map(count).sum();
        let wanted = (all as f64 * share).ceil() as u64;
        let mut below = 0;
        let bucket = (0..BUCKETS).find(|bucket| {
            below += count(*bucket);
            below >= wanted
        });
        let bucket = bucket.filter(|_| all > 0)?;
        Some(Duration::from_micros(1 << bucket))
    }

    /// The half that counts now. The older one is emptied when its time is over.
    fn current(&self, now: Instant) -> usize {
        let mut turned = self.turned.lock();
        let elapsed = now.saturating_duration_since(turned.at);
        if elapsed >= HALF {
            turned.at = now;
            turned.current ^= 1;
            let empty = |half: &[AtomicU32; BUCKETS]| {
                half.iter().for_each(|count| count.store(0, Relaxed));
            };
            empty(&self.halves[turned.current]);
            if elapsed >= 2 * HALF {
                empty(&self.halves[turned.current ^ 1]);
            }
        }
        turned.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn an_estimate_jumps_up_and_sinks_slowly() {
        let began = Instant::now();
        let estimate = LatencyEstimate::new(began);
        estimate.observe(millis(10), began);
        estimate.observe(millis(500), began);
        assert_eq!(estimate.seconds(began), 0.5);
        let later = began + Duration::from_secs(1);
        estimate.observe(millis(10), later);
        let after = estimate.seconds(later);
        assert!((0.4..0.5).contains(&after), "{after}");
        let much_later = later + Duration::from_secs(60);
        assert!(estimate.seconds(much_later) < 0.002);
    }

    #[test]
    fn what_was_cancelled_raises_an_estimate_and_never_lowers_it() {
        let began = Instant::now();
        let estimate = LatencyEstimate::new(began);
        estimate.observe(millis(100), began);
        for nth in 0..1_000 {
            estimate.at_least(millis(1), began + millis(nth / 100));
        }
        assert!(estimate.seconds(began) > 0.099);
        estimate.at_least(millis(300), began);
        assert_eq!(estimate.seconds(began), 0.3);
        let later = began + Duration::from_secs(1);
        let before = estimate.seconds(later);
        estimate.at_least(millis(20), later);
        assert_eq!(estimate.seconds(later), before);
    }

    #[test]
    fn quantiles_are_of_the_last_minute() {
        let began = Instant::now();
        let times = LatencyHistogram::new(began);
        assert_eq!(times.quantile(0.9, began), None);
        for _ in 0..90 {
            times.observe(millis(1), began);
        }
        for _ in 0..10 {
            times.observe(millis(900), began);
        }
        assert_eq!(
            times.quantile(0.5, began),
            Some(Duration::from_micros(1_024))
        );
        assert_eq!(
            times.quantile(0.95, began),
            Some(Duration::from_micros(1 << 20))
        );
        assert!(times.quantile(0.5, began + HALF).is_some());
        assert_eq!(times.quantile(0.5, began + 3 * HALF), None);
    }
}
