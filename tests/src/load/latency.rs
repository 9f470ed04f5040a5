//! How long answers take: counts in buckets of a fixed number, whose width is about three percent of
//! what they hold, so that a long run needs no more memory than a short one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets between a power of two and the next one.
const WITHIN: u64 = 32;
/// The powers of two, in microseconds: up to 67 s.
const POWERS: u64 = 27;
const BUCKETS: usize = (WITHIN * POWERS) as usize;

/// Times of answers.
pub struct LatencyHistogram {
    counts: Box<[AtomicU64]>,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl LatencyHistogram {
    /// Counts an answer that took this long.
    pub fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)].fetch_add(1, Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The time within which so many of a thousand were answered; none if nothing was counted.
    pub fn within(&self, of_a_thousand: u64) -> Option<Duration> {
        let all = self.count();
        let wanted = (all * of_a_thousand).div_ceil(1_000).max(1);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count.load(Relaxed);
            seen >= wanted
        });
        reached.map(|bucket| Duration::from_micros(upper(bucket as u64)))
    }

    /// Its figures, as `1000 hits, p50 0.30 ms, p99 1.20 ms, p99.9 3.10 ms, max 4.00 ms`.
    pub fn text(&self) -> String {
        let millis = |of_a_thousand| {
            let within = self.within(of_a_thousand).unwrap_or_default();
            format!("{:.2} ms", within.as_secs_f64() * 1_000.0)
        };
        format!(
            "{} hits, p50 {}, p99 {}, p99.9 {}, max {}",
            self.count(),
            millis(500),
            millis(990),
            millis(999),
            millis(1_000)
        )
    }
}

/// The bucket of a time.
fn bucket(micros: u64) -> usize {
    if micros < WITHIN {
        return micros as usize;
    }
    // The position of the highest bit, and the five bits below it.
    let power = u64::from(micros.ilog2()) - u64::from(WITHIN.ilog2());
    let within = (micros >> power) - WITHIN;
    let bucket = (power + 1) * WITHIN + within;
    (bucket as usize).min(BUCKETS - 1)
}

/// The longest time of a bucket.
fn upper(bucket: u64) -> u64 {
    if bucket < WITHIN {
        return bucket;
    }
    let power = bucket / WITHIN - 1;
    ((bucket % WITHIN + WITHIN + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_a_bucket_that_is_not_much_wider() {
        for micros in (0..100_000).chain([1 << 20, (1 << 26) - 1, (1 << 25) + 12_345]) {
            let upper = upper(bucket(micros) as u64);
            assert!(upper >= micros, "{micros}");
            assert!(
                (upper - micros) * WITHIN <= micros.max(1),
                "{micros}: {upper}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn figures_are_those_of_the_times() {
        let times = LatencyHistogram::default();
        assert_eq!(times.within(500), None);
        for micros in 1..=1_000 {
            times.note(Duration::from_micros(micros));
        }
        let near = |of_a_thousand: u64, micros: u64| {
            let within = times.within(of_a_thousand).unwrap().as_micros() as u64;
            assert!(
                (micros..=micros + micros / 16).contains(&within),
                "{within}"
            );
        };
        near(500, 500);
        near(990, 990);
        near(999, 999);
        near(1_000, 1_000);
    }
}
