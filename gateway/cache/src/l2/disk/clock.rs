//! The time of the disk tier: it never goes back and does not jump while the machine runs, however
//! the wall clock is set.
//!
//! It is kept in the database together with the machine's uptime. After a restart of the process it
//! continues by the uptime. After a restart of the machine it continues by the wall clock, but
//! never from before the time that was kept.

use std::time::{Duration, Instant};

use crate::record::{ClockReading, Uptime};

/// A clock that continues from some moment.
#[derive(Clone, Copy)]
pub(super) struct DiskClock {
    time: u64,
    since: Instant,
}

/// A time of the clock in the form that the database keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClockMark {
    /// In milliseconds: those of the Unix epoch when the clock was first used.
    pub(super) time: u64,
    /// The machine's uptime at that time.
    pub(super) uptime: Option<Uptime>,
}

impl DiskClock {
    /// Continues from the time that was kept.
    pub(super) fn resume(kept: Option<ClockMark>, now: &ClockReading) -> Self {
        let wall = millis(now.wall);
        let time = kept.map_or(wall, |kept| match passed(&kept, now) {
            Some(passed) => kept.time.saturating_add(millis(passed)),
            None => kept.time.max(wall),
        });
        Self {
            time,
            since: Instant::now(),
        }
    }

    /// The present time in milliseconds.
    pub(super) fn now(&self) -> u64 {
        self.time.saturating_add(millis(self.since.elapsed()))
    }

    /// The mark that the database must keep.
    pub(super) fn kept(&self) -> ClockMark {
        ClockMark {
            time: self.now(),
            uptime: ClockReading::now().uptime,
        }
    }
}

fn passed(kept: &ClockMark, now: &ClockReading) -> Option<Duration> {
    now.uptime?.since(&kept.uptime?)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: u64, boot: u64, up: u64) -> ClockReading {
        ClockReading {
            wall: Duration::from_secs(wall),
            uptime: Some(Uptime {
                boot,
                at: Duration::from_secs(up),
            }),
        }
    }

    #[test]
    fn it_goes_on_by_the_uptime_and_never_goes_back() {
        let resumed = |kept, now: &ClockReading| DiskClock::resume(kept, now).time;
        assert_eq!(resumed(None, &at(10_000, 1, 50)), 10_000_000);
        let kept = ClockMark {
            time: 10_000_000,
            uptime: at(0, 1, 50).uptime,
        };
        for wall in [6_000, 10_007, 14_000] {
            assert_eq!(resumed(Some(kept), &at(wall, 1, 57)), 10_007_000);
        }
        assert_eq!(resumed(Some(kept), &at(6_000, 2, 3)), 10_000_000);
        assert_eq!(resumed(Some(kept), &at(14_000, 2, 3)), 14_000_000);
    }
}
