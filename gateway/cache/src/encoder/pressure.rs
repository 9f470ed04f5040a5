//! Tells whether the processors have better things to do than to encode: jobs that got less than
//! half of a processor's time say so, since their threads give way to all others.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long nothing is encoded after jobs that had to wait.
const PAUSE: Duration = Duration::from_millis(250);
/// What jobs took together before it is judged: in less, a single turn of another thread would
/// decide.
const JUDGED: Duration = Duration::from_millis(20);

/// When encoding may go on.
#[derive(Default)]
pub struct CpuPressure {
    /// In milliseconds since [`BEGAN`].
    until: AtomicU64,
    /// What the jobs since the last judgement took, and what they used of a processor, in
    /// microseconds.
    took: AtomicU64,
    used: AtomicU64,
}

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Measures the time of one job.
pub struct PressureMeasurement<'a> {
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
    pub fn measure(&self) -> PressureMeasurement<'_> {
        PressureMeasurement {
            pressure: self,
            began: Instant::now(),
            used_before: used(),
        }
    }

    fn judge(&self, took: Duration, used: Duration, now: Instant) {
        let add = |sum: &AtomicU64, time: Duration| {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            sum.fetch_add(micros, Relaxed).saturating_add(micros)
        };
        let (took, used) = (add(&self.took, took), add(&self.used, used));
        if took < JUDGED.as_micros() as u64 {
            return;
        }
        self.took.store(0, Relaxed);
        self.used.store(0, Relaxed);
        if took > used.saturating_mul(2) {
            self.until.store(since_beginning(now + PAUSE), Relaxed);
        }
    }
}

impl PressureMeasurement<'_> {
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
    fn jobs_that_had_to_wait_stop_encoding_for_a_while() {
        let now = Instant::now() + Duration::from_secs(1);
        let ms = Duration::from_millis;
        for (jobs, expected) in [
            (&[(ms(25), ms(24))][..], false),
            (&[(ms(25), ms(9))], true),
            // A short one may just have met another thread.
            (&[(ms(7), ms(1))], false),
            (&[(ms(7), ms(1)), (ms(7), ms(1)), (ms(7), ms(1))], true),
            // What was judged once does not count again.
            (&[(ms(25), ms(24)), (ms(7), ms(1))], false),
        ] {
            let pressure = CpuPressure::default();
            for (took, used) in jobs {
                pressure.judge(*took, *used, now);
            }
            assert_eq!(pressure.is_high(now), expected, "{jobs:?}");
            assert!(!pressure.is_high(now + PAUSE), "only for a while");
        }
    }
}
