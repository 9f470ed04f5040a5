//! The calendar behind HTTP dates: from days since 1970 to year, month and day, and back.
//!
//! The Gregorian calendar, extended into the past and the future, computed by eras of 400 years
//! that begin on 1 March, so that the leap day is the last day of its year.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: i64 = 86_400;

/// A point in time by calendar. The order of the fields makes comparison chronological.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CivilTime {
    pub(super) year: i64,
    /// 1 to 12.
    pub(super) month: u32,
    pub(super) day: u32,
    /// Second of the day; a leap second counts as the first second of the next minute.
    pub(super) second: u32,
}

impl CivilTime {
    pub(super) fn from_time(at: SystemTime) -> Self {
        const END_OF_9999: u64 = 253_402_300_799;
        let seconds = at
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs().min(END_OF_9999)) as i64;
        Self::from_days(
            seconds / SECONDS_PER_DAY,
            (seconds % SECONDS_PER_DAY) as u32,
        )
    }

    /// The date that is this many days after 1 January 1970.
    fn from_days(days: i64, second: u32) -> Self {
        let days = days + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let shifted = (5 * day + 2) / 153;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        let day = day - (153 * shifted + 2) / 5 + 1;
        Self {
            year: era * 400 + year + i64::from(month <= 2),
            month: month as u32,
            day: day as u32,
            second,
        }
    }

    fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
        let shifted = i64::from((self.month + 9) % 12);
        let day = (153 * shifted + 2) / 5 + i64::from(self.day) - 1;
        era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
    }

    pub(super) fn to_time(self) -> Option<SystemTime> {
        let seconds = self.days() * SECONDS_PER_DAY + i64::from(self.second);
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        }
    }

    /// Sunday is 0. 1 January 1970 was a Thursday.
    pub(super) fn weekday(self) -> usize {
        (self.days() + 4).rem_euclid(7) as usize
    }

    /// False for a date such as the 30th of February, which is another date when converted back.
    pub(super) fn is_valid(self) -> bool {
        Self::from_days(self.days(), self.second) == self
    }

    /// The latest year with these two digits that is at most 50 years ahead (RFC 9110 §5.6.7).
    pub(super) fn in_century(self, now: SystemTime) -> Self {
        let now = Self::from_time(now);
        let limit = Self {
            year: now.year + 50,
            ..now
        };
        let century = limit.year - limit.year.rem_euclid(100);
        let candidate = Self {
            year: century + self.year,
            ..self
        };
        if candidate > limit {
            Self {
                year: candidate.year - 100,
                ..candidate
            }
        } else {
            candidate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_day_and_the_next_are_neighbours(days in -1_000_000i64..4_000_000) {
            let (today, tomorrow) = (CivilTime::from_days(days, 0), CivilTime::from_days(days + 1, 0));
            prop_assert!(today < tomorrow && today.is_valid());
            prop_assert_eq!(today.days(), days);
            prop_assert_eq!((today.weekday() + 1) % 7, tomorrow.weekday());
        }
    }
}
