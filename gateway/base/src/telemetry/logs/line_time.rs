//! The time at which a line was written, as RFC 3339 has it: UTC, with microseconds.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// The text of a second, up to the point before its fraction.
struct FormattedSecond {
    second: u64,
    text: String,
}

/// Writes a time. A time before 1970 is written as the first one of 1970.
pub fn write(line: &mut String, time: SystemTime) {
    thread_local! {
        /// The second of the last line of this thread.
        static LAST: RefCell<FormattedSecond> = const {
            RefCell::new(FormattedSecond { second: 0, text: String::new() })
        };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    LAST.with_borrow_mut(|last| {
        if last.second != since.as_secs() || last.text.is_empty() {
            *last = FormattedSecond::of(since.as_secs());
        }
        line.push_str(&last.text);
    });
    // The digit in front keeps the zeros behind it.
    let micros = 1_000_000 + since.subsec_micros();
    line.push_str(&itoa::Buffer::new().format(micros)[1..]);
    line.push('Z');
}

impl FormattedSecond {
    fn of(second: u64) -> Self {
        const DAY: u64 = 24 * 60 * 60;
        let (year, month, day) = date(second / DAY);
        let (hour, minute) = (second % DAY / 3600, second / 60 % 60);
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.",
            second % 60
        );
        Self { second, text }
    }
}

/// Year, month and day of a day since 1 January 1970, by the Gregorian calendar. Years are counted
/// from March, so that the day that some of them lack is the last one.
fn date(days: u64) -> (u64, u64, u64) {
    /// Days from 1 March of the year 0 to 1 January 1970.
    const BEFORE_1970: u64 = 719_468;
    const OF_400_YEARS: u64 = 146_097;
    let days = days + BEFORE_1970;
    let (cycle, day) = (days / OF_400_YEARS, days % OF_400_YEARS);
    // Without the leap days before it, each year has 365 days.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March on have 153 days, as have the five after them.
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = match month {
        ..10 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    (cycle * 400 + year + next_year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(second: u64, micros: u64) -> String {
        let mut line = String::new();
        let since = Duration::from_secs(second) + Duration::from_micros(micros);
        write(&mut line, UNIX_EPOCH + since);
        line
    }

    #[test]
    fn times_are_told_to_the_microsecond() {
        assert_eq!(told(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(told(0, 1), "1970-01-01T00:00:00.000001Z");
        assert_eq!(told(86_399, 999_999), "1970-01-01T23:59:59.999999Z");
        assert_eq!(told(951_782_400, 0), "2000-02-29T00:00:00.000000Z");
        assert_eq!(told(951_868_800, 0), "2000-03-01T00:00:00.000000Z");
        assert_eq!(told(1_796_033_107, 20_030), "2026-11-30T10:05:07.020030Z");
        assert_eq!(told(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
        assert_eq!(told(253_402_300_799, 0), "9999-12-31T23:59:59.000000Z");
    }

    #[test]
    fn a_second_that_is_kept_is_not_told_of_another() {
        assert_eq!(told(61, 5), "1970-01-01T00:01:01.000005Z");
        assert_eq!(told(61, 6), "1970-01-01T00:01:01.000006Z");
        assert_eq!(told(60, 7), "1970-01-01T00:01:00.000007Z");
    }

    #[test]
    fn a_clock_before_1970_is_told_as_1970() {
        let mut line = String::new();
        write(&mut line, UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(line, "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut before = date(0);
        for days in 1..200_000 {
            let (year, month, day) = date(days);
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            assert!((1..=12).contains(&month) && (1..=length).contains(&day));
            let is_next = match day {
                1 if month == 1 => before == (year - 1, 12, 31),
                1 => before.0 == year && before.1 == month - 1 && before.2 >= 28,
                _ => before == (year, month, day - 1),
            };
            assert!(is_next, "{before:?} was before {:?}", (year, month, day));
            before = (year, month, day);
        }
    }
}
