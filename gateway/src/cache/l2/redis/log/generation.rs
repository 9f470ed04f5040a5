//! Which generation of the purge log is believed.
//!
//! A generation is a number: seconds of the Unix epoch, so that a later one is greater, and
//! random bits, so that no two are equal. No two clocks are compared by that: whoever begins
//! a generation makes it greater than every one that it knows, whatever its clock says.
//!
//! With a secret a generation is sealed, and an older one than a node has read is not
//! believed: else who can write to the store could bring a former log back, from before a
//! purge, and the records of that time with it. A generation that is not believed is
//! replaced by a new one: but no more often than once in [`PAUSE`], since nodes that were
//! given different secrets by mistake would do that to each other for ever.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cache::l2::store::StoreError;
use crate::cache::record::Moment;

/// Random bits of a generation; those of the time are above.
const RANDOM_BITS: u32 = 29;
/// Between two generations that are replaced since they are not believed.
const PAUSE: Duration = Duration::from_secs(5);

/// What is known of the log's generation.
#[derive(Default)]
pub(in crate::cache::l2::redis) struct Told(Mutex<Known>);

/// A generation after another one.
fn after(known: u64, now: Duration) -> u64 {
    const MOST: u64 = 1 << (62 - RANDOM_BITS);
    let known = known >> RANDOM_BITS;
    // One that a node of ours can't have made is nothing to go by.
    let least = if known < MOST { known + 1 } else { 1 };
    let seconds = now.as_secs().min(MOST).max(least);
    let random = RandomState::new().hash_one(known) >> (64 - RANDOM_BITS);
    seconds << RANDOM_BITS | random
}

#[derive(Default)]
struct Known {
    /// The one that was read last; 0 before any was.
    generation: u64,
    /// The newest number that was read in it.
    newest: u64,
    /// The first number that a purge of nothing stands for which is the newest one.
    nothing_since: Option<u64>,
    /// One that was not believed, and when it was found; 0 is none.
    refused: u64,
    refused_at: Option<Instant>,
}

impl Told {
    /// The generation that was read last, and the newest number that was read in it; zeros
    /// before any was.
    pub(in crate::cache::l2::redis) fn read(&self) -> (u64, u64) {
        let known = self.0.lock();
        (known.generation, known.newest)
    }

    /// The generation that was read last; 0 before any was.
    pub(in crate::cache::l2::redis) fn generation(&self) -> u64 {
        self.0.lock().generation
    }

    /// One to begin a new log with: after every one that is known.
    pub(super) fn next(&self) -> u64 {
        let known = self.0.lock();
        after(known.generation, Moment::now().wall)
    }

    /// One that is to be replaced where it is found; 0: none.
    pub(super) fn refused(&self) -> u64 {
        self.0.lock().refused
    }

    /// Whether it is none from before the one that was read last.
    pub(super) fn is_not_past(&self, generation: u64) -> bool {
        generation >= self.0.lock().generation
    }

    /// The first number that the newest purge stands for, if it reaches nothing.
    pub(super) fn nothing_since(&self) -> Option<u64> {
        self.0.lock().nothing_since
    }

    /// Notes that a generation was read, to this number, and since which number purges of
    /// nothing are the end of it.
    pub(super) fn take(&self, generation: u64, newest: u64, nothing_since: Option<u64>) {
        let mut known = self.0.lock();
        known.refused = 0;
        if known.generation == generation && newest < known.newest {
            return;
        }
        known.newest = newest;
        known.nothing_since = nothing_since;
        known.generation = generation;
    }

    /// Has a generation replaced at the next look.
    ///
    /// # Errors
    /// When one was replaced a moment ago.
    pub(super) fn refuse(&self, generation: u64) -> Result<(), StoreError> {
        let mut known = self.0.lock();
        let soon = known.refused_at.is_some_and(|at| at.elapsed() < PAUSE);
        if soon && known.refused != generation {
            return Err(StoreError::Corrupt(
                "the purge log's generation was not made with this seal_key, or is an old one; have all nodes the same key?"
                    .to_owned(),
            ));
        }
        known.refused = generation;
        known.refused_at = Some(Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_generation_is_greater_than_every_one_that_is_known_whatever_the_clock_says() {
        let now = Duration::from_secs(1_800_000_000);
        let first = after(0, now);
        assert!(after(first, now) > first);
        assert!(
            after(first, Duration::ZERO) > first,
            "a clock that was never set"
        );
        for forged in [u64::MAX, 9_999_999_999_999_999_999, 1 << 62] {
            let next = after(forged, now);
            assert!(next > 0 && next < 1 << 63, "{next} has at most 19 digits");
        }
        assert!(after(0, Duration::MAX) < 1 << 63);
    }

    #[test]
    fn a_generation_that_is_not_believed_is_replaced_once_in_a_while() {
        let told = Told::default();
        told.take(7, 3, None);
        assert_eq!(told.read(), (7, 3));
        assert!(told.is_not_past(7) && told.is_not_past(8) && !told.is_not_past(6));
        assert!(told.refuse(6).is_ok());
        assert_eq!(told.refused(), 6);
        told.take(9, 0, None);
        assert_eq!((told.refused(), told.read()), (0, (9, 0)));
        assert!(told.refuse(8).is_err(), "a moment ago another one was");
    }
}
