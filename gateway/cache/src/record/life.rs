//! How old a record is and how much longer it may be used: what is under its seal, compared with
//! what the store says.
//!
//! The store tells how much of a record's life is left, by one clock. But whoever can write to the
//! store can put an old record back, or prolong it. The record tells when it was written, by the
//! clock of the node that wrote it, and nobody can change that. The greater of the two ages counts.
//! So an old record never becomes young again, and a difference between the two clocks can only
//! make a record older than it is, by at most that difference.
//!
//! A record that was written on the same machine since its last start also has its age by a third
//! clock, which nobody sets. Then it does not matter how the wall clock was set in the meantime.
//!
//! Otherwise, if the reader's clock is behind the writer's, the record seems younger by that
//! difference, and only the store's statement bounds its age. So a writer to the store gains at
//! most the difference of two clocks, and [`CLOCK_TOLERANCE`] bounds that: a record from further in
//! the future has an unknown age and is not used.

use std::time::Duration;

use super::{ClockReading, CorruptRecord, ResponseRecord};

/// How far the clock of the node that wrote a record may be ahead of the reader's.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

impl ResponseRecord {
    /// The record as it is at `now`, by the clocks of the node that reads it, while the store would
    /// keep it for another `left`.
    ///
    /// # Errors
    /// When its life is over, or when it was written too far in the future.
    pub fn seen_at(self, now: ClockReading, left: Duration) -> Result<Self, CorruptRecord> {
        let by_uptime = match (&now.uptime, &self.uptime) {
            (Some(now), Some(then)) => now.since(then),
            _ => None,
        };
        let ahead = self.written.saturating_sub(now.wall);
        if by_uptime.is_none() && ahead > CLOCK_TOLERANCE {
            return Err(CorruptRecord::Clock);
        }
        let by_store = self.life.saturating_sub(left);
        let by_clock = now.wall.saturating_sub(self.written);
        let passed = by_store.max(by_clock).max(by_uptime.unwrap_or_default());
        self.grown(passed, now)
    }

    /// The record as it is at `now`, after `passed` since it was written.
    ///
    /// # Errors
    /// When its life is over.
    pub fn grown(self, passed: Duration, now: ClockReading) -> Result<Self, CorruptRecord> {
        let life = self.life.saturating_sub(passed);
        if life.is_zero() {
            return Err(CorruptRecord::Ended);
        }
        Ok(Self {
            age: self.age.saturating_add(passed),
            life,
            written: now.wall,
            uptime: now.uptime,
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;

    use super::*;
    use crate::record::Uptime;

    const WRITTEN: Duration = Duration::from_secs(1_800_000_000);

    fn stored(age: Duration, life: Duration) -> ResponseRecord {
        ResponseRecord {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Default::default(),
            marks: Default::default(),
            born: 1.into(),
            generation: 1,
            age,
            life,
            written: WRITTEN,
            uptime: Some(at(Duration::ZERO)),
            lifetime: life,
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
            must_revalidate: false,
        }
    }

    const LIFE: Duration = Duration::from_secs(60);

    /// The uptime at `passed` after the record was written, on the same machine.
    fn at(passed: Duration) -> Uptime {
        Uptime {
            boot: 7,
            at: Duration::from_secs(1_000) + passed,
        }
    }

    /// A reading on another machine.
    fn elsewhere(wall: Duration) -> ClockReading {
        ClockReading { wall, uptime: None }
    }

    #[test]
    fn on_the_machine_that_wrote_it_no_setting_of_the_clock_makes_a_record_younger() {
        let (passed, hour) = (Duration::from_secs(20), Duration::from_secs(3_600));
        for (wall, age) in [
            (WRITTEN - hour, passed),
            (WRITTEN, passed),
            (WRITTEN + hour, hour),
        ] {
            let now = ClockReading {
                wall,
                uptime: Some(at(passed)),
            };
            let seen = stored(Duration::ZERO, 2 * hour).seen_at(now, 2 * hour);
            assert_eq!(seen.unwrap().age, age);
        }
        let another = Uptime {
            boot: 8,
            ..at(passed)
        };
        for uptime in [None, Some(another)] {
            let now = ClockReading {
                wall: WRITTEN - hour,
                uptime,
            };
            let seen = stored(Duration::ZERO, LIFE).seen_at(now, LIFE);
            assert_eq!(seen, Err(CorruptRecord::Clock));
        }
    }

    #[test]
    fn a_record_that_is_put_back_goes_on_ageing() {
        for passed in [1, 30, 59] {
            let passed = Duration::from_secs(passed);
            let seen = stored(LIFE, LIFE)
                .seen_at(elsewhere(WRITTEN + passed), LIFE)
                .unwrap();
            assert_eq!((seen.age, seen.life), (LIFE + passed, LIFE - passed));
        }
        for left in [LIFE, Duration::MAX] {
            let ended = stored(LIFE, LIFE).seen_at(elsewhere(WRITTEN + LIFE), left);
            assert_eq!(ended, Err(CorruptRecord::Ended));
        }
    }

    #[test]
    fn where_the_readers_clock_is_behind_the_stores_word_counts() {
        let passed = Duration::from_secs(20);
        let now = WRITTEN - CLOCK_TOLERANCE;
        let seen = stored(LIFE, LIFE)
            .seen_at(elsewhere(now), LIFE - passed)
            .unwrap();
        assert_eq!((seen.age, seen.life), (LIFE + passed, LIFE - passed));
        let now = now - Duration::from_millis(1);
        let ahead = stored(LIFE, LIFE).seen_at(elsewhere(now), LIFE - passed);
        assert_eq!(ahead, Err(CorruptRecord::Clock));
    }

    proptest! {
        /// A record may pass through any number of stores and nodes whose clocks agree.
        #[test]
        fn no_way_makes_a_record_younger_than_time_does(steps in prop::collection::vec((0..100_000_u64, 0..200_000_u64), 1..8)) {
            let life = Duration::from_secs(150);
            let mut at = stored(Duration::ZERO, life);
            let mut passed = Duration::ZERO;
            for (wait, left) in steps {
                passed += Duration::from_millis(wait);
                match at.seen_at(elsewhere(WRITTEN + passed), Duration::from_millis(left)) {
                    Ok(seen) => {
                        prop_assert!(seen.age >= passed);
                        prop_assert!(seen.life <= life.saturating_sub(passed));
                        at = seen;
                    }
                    Err(_) => return Ok(()),
                }
            }
        }
    }
}
