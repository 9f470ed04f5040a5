//! Which generation of the purge log is trusted.
//!
//! A generation is a number: seconds of the Unix epoch, so that a later one is greater, and random
//! bits, so that no two are equal. This does not compare two clocks: whoever begins a generation
//! makes it greater than every one that it knows, whatever its clock says.
//!
//! A generation older than one that a node has read is not trusted. A server that came back with an
//! older state, or somebody who can write to it, would otherwise bring back a former log, from
//! before a purge, together with the records of that time. It is replaced by a new one as soon as
//! it is found. With a secret a generation is also sealed. A generation with another seal is
//! replaced, but at most once in each [`PAUSE`], because nodes that were given different secrets by
//! mistake would otherwise do that to each other for ever.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::l2::store::{LogNumber, LogPlace, StoreError};
use crate::record::ClockReading;

/// The number of random bits of a generation; the bits of the time are above them.
const RANDOM_BITS: u32 = 29;
/// The least time between two generations that are replaced because they are not trusted.
const PAUSE: Duration = Duration::from_secs(5);

/// What is known of the log's generation.
#[derive(Default)]
pub(in crate::l2::redis) struct KnownGeneration(Mutex<LogGenerationState>);

/// The upper bound of the seconds in a generation.
const MOST_SECONDS: u64 = 1 << (62 - RANDOM_BITS);

/// Whether a node of ours can have made it, with room for another one after it.
fn is_plausible(generation: u64) -> bool {
    generation >> RANDOM_BITS < MOST_SECONDS
}

/// A generation that comes after `known`.
fn after(known: u64, now: Duration) -> u64 {
    // A generation that a node of ours can't have made is ignored.
    let least = match is_plausible(known) {
        true => (known >> RANDOM_BITS) + 1,
        false => 1,
    };
    let seconds = now.as_secs().min(MOST_SECONDS).max(least);
    let random = RandomState::new().hash_one(known) >> (64 - RANDOM_BITS);
    seconds << RANDOM_BITS | random
}

/// The end of a log as it was last read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct PurgeLogEnd {
    /// The newest number.
    pub(super) newest: LogNumber,
    /// If the newest purge reaches nothing: the first number that it stands for.
    pub(super) nothing_since: Option<LogNumber>,
    /// The token of the entry with the newest number; empty if there is none.
    pub(super) token: Bytes,
}

#[derive(Default)]
struct LogGenerationState {
    /// The generation that was read last; 0 before the first read.
    generation: u64,
    /// How far it was read.
    end: PurgeLogEnd,
    /// A generation that was not trusted, and when it was found; 0 means none.
    refused: u64,
    refused_at: Option<Instant>,
}

impl KnownGeneration {
    /// The generation that was read last, and how far; 0 and nothing before the first read.
    pub(super) fn read(&self) -> (u64, PurgeLogEnd) {
        let known = self.0.lock();
        (known.generation, known.end.clone())
    }

    /// The newest place of the log that was read.
    pub(in crate::l2::redis) fn log_place(&self) -> LogPlace {
        let known = self.0.lock();
        LogPlace {
            generation: known.generation,
            order: known.end.newest.order(),
        }
    }

    /// The generation that was read last; 0 before the first read.
    pub(in crate::l2::redis) fn generation(&self) -> u64 {
        self.0.lock().generation
    }

    /// A generation for a new log: greater than every one that is known.
    pub(super) fn next(&self) -> u64 {
        let known = self.0.lock();
        after(known.generation, ClockReading::now().wall)
    }

    /// The generation that must be replaced when it is found; 0 means none.
    pub(super) fn refused(&self) -> u64 {
        self.0.lock().refused
    }

    /// Generations below this one are not trusted; 0 means that any generation is accepted.
    pub(super) fn least(&self) -> u64 {
        let known = self.0.lock().generation;
        // After a forged generation there may be no greater one.
        if is_plausible(known) { known } else { 0 }
    }

    /// Notes that a generation was read up to this end.
    pub(super) fn take(&self, generation: u64, end: PurgeLogEnd) {
        let mut known = self.0.lock();
        known.refused = 0;
        if known.generation == generation && end.newest < known.end.newest {
            return;
        }
        known.end = end;
        known.generation = generation;
    }

    /// Lets a generation be replaced at the next read.
    ///
    /// # Errors
    /// When another one was replaced a short time ago.
    pub(super) fn refuse(&self, generation: u64) -> Result<(), StoreError> {
        let mut known = self.0.lock();
        let soon = known.refused_at.is_some_and(|at| at.elapsed() < PAUSE);
        if soon && known.refused != generation {
            return Err(StoreError::Corrupt(
                "the purge log's generation was not made with this seal_key; have all nodes the same key?"
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

    fn end(newest: u64) -> PurgeLogEnd {
        PurgeLogEnd {
            newest: newest.into(),
            ..PurgeLogEnd::default()
        }
    }

    #[test]
    fn a_generation_that_is_not_believed_is_replaced_once_in_a_while() {
        let told = KnownGeneration::default();
        told.take(7, end(3));
        assert_eq!(told.read(), (7, end(3)));
        assert!(told.refuse(6).is_ok());
        assert_eq!(told.refused(), 6);
        told.take(9, end(0));
        assert_eq!((told.refused(), told.read()), (0, (9, end(0))));
        assert!(told.refuse(8).is_err(), "a moment ago another one was");
    }

    #[test]
    fn no_generation_before_the_one_that_was_read_is_believed_but_after_a_forged_one() {
        let told = KnownGeneration::default();
        assert_eq!(told.least(), 0);
        told.take(7, end(3));
        assert_eq!(told.least(), 7);
        told.take(u64::MAX >> 1, end(3));
        assert_eq!(told.least(), 0, "what comes next is smaller");
    }
}
