//! The time by two clocks of this machine: the wall clock, which people set, and the uptime, which
//! counts from the machine's start and which nobody sets.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

/// The time of one moment by both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockReading {
    /// Time since the Unix epoch, by the clock that people and NTP set.
    pub wall: Duration,
    /// None if the system does not provide it.
    pub uptime: Option<Uptime>,
}

/// How long a machine had been up. Two values of the same start can be subtracted, whatever was
/// done to the wall clock in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uptime {
    /// Identifies one start of one machine: 53 bits, which every reader of msgpack can represent
    /// exactly.
    pub boot: u64,
    pub at: Duration,
}

/// The name of this start of the machine, and when this process first read it.
struct MachineBoot {
    name: u64,
    first_look: Uptime,
    looked: Instant,
}

static BOOT: LazyLock<Option<MachineBoot>> = LazyLock::new(MachineBoot::read);

impl ClockReading {
    pub fn now() -> Self {
        // A clock before 1970 was never set.
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            wall: wall.unwrap_or_default(),
            uptime: BOOT.as_ref().map(MachineBoot::now),
        }
    }
}

impl Uptime {
    /// How long after `earlier` this was. None: it was on another machine, or after another start.
    pub fn since(&self, earlier: &Self) -> Option<Duration> {
        match self.boot == earlier.boot {
            // Containers may count from another zero. Such a value proves nothing.
            true => self.at.checked_sub(earlier.at),
            false => None,
        }
    }
}

impl MachineBoot {
    /// See proc(5): `boot_id` changes with every start, and `uptime` continues while the machine
    /// sleeps.
    fn read() -> Option<Self> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let looked = Instant::now();
        let at = uptime.split_whitespace().next()?.parse().ok()?;
        // Records travel to other machines; the machine's own identifier must not.
        let digest = Sha256::digest(["lamina boot ", id.trim()].concat());
        let name = u64::from_be_bytes(std::array::from_fn(|i| digest[i])) >> 11;
        Some(Self {
            name,
            first_look: Uptime {
                boot: name,
                at: Duration::try_from_secs_f64(at).ok()?,
            },
            looked,
        })
    }

    fn now(&self) -> Uptime {
        Uptime {
            boot: self.name,
            at: self.first_look.at + self.looked.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uptime_grows_and_that_of_another_start_is_no_witness() {
        let first = ClockReading::now().uptime.unwrap();
        let second = ClockReading::now().uptime.unwrap();
        assert!(second.since(&first).is_some());
        assert!(first.boot < 1 << 53);
        let other = Uptime {
            boot: first.boot ^ 1,
            ..first
        };
        assert_eq!(second.since(&other), None);
        let later = Uptime {
            at: second.at + Duration::from_secs(1),
            ..second
        };
        assert_eq!(second.since(&later), None, "it counts from another zero");
    }
}
