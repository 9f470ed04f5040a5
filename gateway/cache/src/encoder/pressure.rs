//! Whether the processors have better things to do than to encode: a job that got less than half of
//! a processor's time says so, since its thread gives way to all others.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long nothing is encoded after a job that had to wait.
const PAUSE: Duration = Duration::from_millis(250);
/// Shorter jobs say nothing: a single turn of another thread takes as long.
const LEAST_TOLD: Duration = Duration::from_millis(8);

/// When encoding may go on.
#[derive(Default)]
pub struct CpuPressure {
    /// In milliseconds since [`BEGAN`].
    until: AtomicU64,
}

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Measures the time of one job.
pub struct PressureWatch<'a> {
    pressure: &'a CpuPressure,
    began: Instant,
    used_before: Duration,
}

impl CpuPressure {
    /// Whether nothing should be encoded at this moment.
    pub fn is_high(&self, now: Instant) -> bool {
        since_beginning(now) < self.until.load(Relaxed)
    }

    /// Begins to measure a job on this thread.
    pub fn watch(&self) -> PressureWatch<'_> {
        PressureWatch {
            pressure: self,
            began: Instant::now(),
            used_before: used(),
        }
    }

    fn judge(&self, took: Duration, used: Duration, now: Instant) {
        if took > LEAST_TOLD && took > used * 2 {
            let until = since_beginning(now + PAUSE);
            self.until.store(until, Relaxed);
        }
    }
}

impl PressureWatch<'_> {
    /// Ends the measurement. Returns the processor's time that the job took.
    pub fn end(self, now: Instant) -> Duration {
        let used = used().saturating_sub(self.used_before);
        let took = now.saturating_duration_since(self.began);
        self.pressure.judge(took, used, now);
        used
    }
}

fn since_beginning(now: Instant) -> u64 {
    let passed = now.saturating_duration_since(*BEGAN);
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

/// The processor's time that this thread has used.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_had_to_wait_stops_encoding_for_a_while() {
        let now = Instant::now() + Duration::from_secs(1);
        let ms = Duration::from_millis;
        for (took, used, expected) in [
            (ms(20), ms(19), false),
            (ms(20), ms(9), true),
            // A short one may just have met another thread.
            (ms(7), ms(1), false),
        ] {
            let pressure = CpuPressure::default();
            pressure.judge(took, used, now);
            assert_eq!(pressure.is_high(now), expected, "{took:?} {used:?}");
            assert!(!pressure.is_high(now + PAUSE), "only for a while");
        }
    }
}
