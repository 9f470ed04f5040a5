//! A bound on log lines from one source: many failures at once must neither fill a disk nor slow
//! down the requests that succeed.
//!
//! A token bucket: a burst, then a fixed rate. Lines that are dropped are counted, and the next
//! line that passes says how many there were.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// Lines that may be written at once.
const BURST: f64 = 20.0;
/// Lines a second that may be written in the long run.
const PER_SECOND: f64 = 10.0;

/// The bucket of one source: every line takes a token, and tokens come back with time.
pub struct LineLimiter {
    bucket: Mutex<LineTokenBucket>,
    dropped: AtomicU64,
    written: AtomicU64,
}

struct LineTokenBucket {
    tokens: f64,
    filled: Instant,
}

impl LineLimiter {
    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        let bucket = Mutex::new(LineTokenBucket {
            tokens: BURST,
            filled: now,
        });
        Self {
            bucket,
            dropped: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// How many lines were written to the log, and how many were dropped.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.written.load(Ordering::Relaxed),
            self.dropped.load(Ordering::Relaxed),
        )
    }

    /// Asks to write a line. Returns the number of lines dropped since the last one; `None` if this
    /// line must be dropped, too.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.bucket.lock();
        let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * PER_SECOND).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        bucket.tokens -= 1.0;
        self.written.fetch_add(1, Ordering::Relaxed);
        Some(self.dropped.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_storm_is_cut_to_a_burst_and_comes_back_with_time() {
        let start = Instant::now();
        let log = LineLimiter::new(start);
        let written = (0..100_000).filter(|_| log.admit(start).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(
            log.admit(start + Duration::from_secs(1)),
            Some(100_000 - 20)
        );
    }
}
