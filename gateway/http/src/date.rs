//! HTTP dates (RFC 9110 §5.6.7): three forms are parsed, one is written.
//!
//! Parsing is strict: exactly the grammar of IMF-fixdate, RFC 850 and asctime, only GMT, and a
//! day that exists. Letters may have any case, as RFC 9111 §4.2 asks of caches. The day of the
//! week is not compared with the date: the form is valid either way, and the date alone is
//! enough. A text that is not a date here means "already expired" or "ignore" to the caller; a
//! lenient parser would guess lifetimes that nobody promised.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

mod civil;

use civil::CivilTime;

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The content of a field that holds one date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldDate {
    Absent,
    /// Not a date, or several lines: for `Expires` that is "expired" (RFC 9111 §5.3).
    Invalid,
    At(SystemTime),
}

impl FieldDate {
    /// The date, if the field has a valid one.
    pub fn at(self) -> Option<SystemTime> {
        match self {
            Self::At(at) => Some(at),
            Self::Absent | Self::Invalid => None,
        }
    }
}

/// Parses `Date`, `Expires`, `Last-Modified` and the like; several lines are
/// [`FieldDate::Invalid`].
pub fn field(headers: &HeaderMap, name: &HeaderName, now: SystemTime) -> FieldDate {
    let mut lines = headers.get_all(name).iter();
    let (Some(line), more) = (lines.next(), lines.next()) else {
        return FieldDate::Absent;
    };
    let date = line.to_str().ok().and_then(|text| parse(text, now));
    date.filter(|_| more.is_none())
        .map_or(FieldDate::Invalid, FieldDate::At)
}

/// Parses an HTTP date. `now` decides the century of RFC 850's two-digit years.
pub fn parse(text: &str, now: SystemTime) -> Option<SystemTime> {
    let text = text.as_bytes();
    let civil = imf_fixdate(text)
        .or_else(|| rfc_850(text, now))
        .or_else(|| asctime(text))?;
    civil.is_valid().then(|| civil.to_time())?
}

/// Writes an IMF-fixdate. A time before 1970 is written as the beginning of 1970, one after 9999 as
/// the end of 9999.
pub fn format(at: SystemTime) -> HeaderValue {
    let civil = CivilTime::from_time(at);
    let mut text = *b"Sun, 00 Jan 0000 00:00:00 GMT";
    text[..3].copy_from_slice(&DAYS[civil.weekday()].as_bytes()[..3]);
    text[8..11].copy_from_slice(MONTHS[civil.month as usize - 1].as_bytes());
    let year = civil.year as u32;
    let time = civil.second;
    for (at, number) in [
        (5, civil.day),
        (12, year / 100),
        (14, year % 100),
        (17, time / 3600),
        (20, time / 60 % 60),
        (23, time % 60),
    ] {
        text[at] = b'0' + (number / 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    }
    HeaderValue::from_bytes(&text).expect("an IMF-fixdate is visible ASCII")
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<CivilTime> {
    let mut read = DateParser(text);
    read.weekday(3)?;
    read.literal(b", ")?;
    let day = read.digits(2)?;
    read.literal(b" ")?;
    let month = read.month()?;
    read.literal(b" ")?;
    let year = i64::from(read.digits(4)?);
    read.literal(b" ")?;
    let second = read.time()?;
    read.literal(b" GMT")?;
    read.end(CivilTime {
        year,
        month,
        day,
        second,
    })
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc_850(text: &[u8], now: SystemTime) -> Option<CivilTime> {
    let mut read = DateParser(text);
    let length = memchr::memchr(b',', text)?;
    read.weekday(length)
        .filter(|&day| DAYS[day].len() == length)?;
    read.literal(b", ")?;
    let day = read.digits(2)?;
    read.literal(b"-")?;
    let month = read.month()?;
    read.literal(b"-")?;
    let year = i64::from(read.digits(2)?);
    read.literal(b" ")?;
    let second = read.time()?;
    read.literal(b" GMT")?;
    read.end(
        CivilTime {
            year,
            month,
            day,
            second,
        }
        .in_century(now),
    )
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<CivilTime> {
    let mut read = DateParser(text);
    read.weekday(3)?;
    read.literal(b" ")?;
    let month = read.month()?;
    read.literal(b" ")?;
    let day = if read.literal(b" ").is_some() {
        read.digits(1)?
    } else {
        read.digits(2)?
    };
    read.literal(b" ")?;
    let second = read.time()?;
    read.literal(b" ")?;
    let year = i64::from(read.digits(4)?);
    read.end(CivilTime {
        year,
        month,
        day,
        second,
    })
}

/// Takes pieces of a date from the front; `None` if the text is something else.
struct DateParser<'a>(&'a [u8]);

impl<'a> DateParser<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes `text` in any case, or nothing.
    fn literal(&mut self, text: &[u8]) -> Option<()> {
        let matches = self.0.get(..text.len())?.eq_ignore_ascii_case(text);
        matches.then(|| self.0 = &self.0[text.len()..])
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        self.take(count)?.iter().try_fold(0, |number, octet| {
            octet
                .is_ascii_digit()
                .then(|| number * 10 + u32::from(octet - b'0'))
        })
    }

    /// The day of the week by the first `length` letters of its name.
    fn weekday(&mut self, length: usize) -> Option<usize> {
        let name = self.take(length)?;
        DAYS.iter().position(|day| {
            day.as_bytes()
                .get(..length)
                .is_some_and(|day| day.eq_ignore_ascii_case(name))
        })
    }

    fn month(&mut self) -> Option<u32> {
        let name = self.take(3)?;
        let index = MONTHS
            .iter()
            .position(|month| month.as_bytes().eq_ignore_ascii_case(name))?;
        Some(index as u32 + 1)
    }

    /// `hh:mm:ss` as seconds of the day; second 60 is a leap second.
    fn time(&mut self) -> Option<u32> {
        let hour = self.digits(2).filter(|&hour| hour < 24)?;
        self.literal(b":")?;
        let minute = self.digits(2).filter(|&minute| minute < 60)?;
        self.literal(b":")?;
        let second = self.digits(2).filter(|&second| second <= 60)?;
        Some(hour * 3600 + minute * 60 + second)
    }

    fn end(self, civil: CivilTime) -> Option<CivilTime> {
        self.0.is_empty().then_some(civil)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Some time in November 2026.
    fn now() -> SystemTime {
        at(1_795_000_000)
    }

    #[test]
    fn the_three_forms_name_the_same_second() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "SUN, 06 nov 1994 08:49:37 gMT",
            "sunday, 06-NOV-94 08:49:37 gmt",
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(
                parse(text, now()),
                Some(at(784_111_777)),
                "{text}: RFC 9110 §5.6.7"
            );
        }
        assert_eq!(
            parse("Fri Nov 11 08:49:37 1994", now()),
            Some(at(784_543_777))
        );
    }

    #[test]
    fn anything_else_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 30 Feb 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Xun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "S, 06-Nov-94 08:49:37 GMT",
            ", 06-Nov-94 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(parse(text, now()), None, "{text}");
        }
    }

    #[test]
    fn a_two_digit_year_more_than_fifty_years_ahead_is_the_past() {
        for (text, same) in [
            (
                "Thursday, 18-Aug-50 02:01:18 GMT",
                "Thu, 18 Aug 2050 02:01:18 GMT",
            ),
            (
                "Saturday, 01-Jan-77 00:00:00 GMT",
                "Sat, 01 Jan 1977 00:00:00 GMT",
            ),
            (
                "Wednesday, 01-Jan-76 00:00:00 GMT",
                "Wed, 01 Jan 2076 00:00:00 GMT",
            ),
        ] {
            assert!(parse(text, now()).is_some(), "{text}");
            assert_eq!(
                parse(text, now()),
                parse(same, now()),
                "{text}: RFC 9110 §5.6.7"
            );
        }
    }

    #[test]
    fn several_lines_or_a_non_date_make_a_field_invalid() {
        let mut headers = HeaderMap::new();
        assert_eq!(field(&headers, &header::EXPIRES, now()), FieldDate::Absent);
        headers.insert(header::EXPIRES, format(now()));
        assert_eq!(
            field(&headers, &header::EXPIRES, now()),
            FieldDate::At(now())
        );
        headers.append(header::EXPIRES, format(now()));
        assert_eq!(field(&headers, &header::EXPIRES, now()), FieldDate::Invalid);
        headers.insert(header::EXPIRES, HeaderValue::from_static("0"));
        assert_eq!(field(&headers, &header::EXPIRES, now()), FieldDate::Invalid);
    }

    #[test]
    fn times_without_four_digit_years_are_clamped() {
        assert_eq!(
            format(UNIX_EPOCH - Duration::from_secs(1)),
            "Thu, 01 Jan 1970 00:00:00 GMT"
        );
        assert_eq!(format(at(1 << 40)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn dates_before_1970_are_read() {
        assert_eq!(
            parse("Wed, 31 Dec 1969 23:59:59 GMT", now()),
            Some(UNIX_EPOCH - Duration::from_secs(1))
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in 0u64..253_402_300_800) {
            let text = format(at(seconds));
            prop_assert_eq!(parse(text.to_str().unwrap(), now()), Some(at(seconds)));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}", near in "[A-Za-z]{0,9},? ?[0-9 -]{0,4}[A-Za-z]{0,3}[ -]?[0-9]{0,4} ?[0-9:]{0,8}( GMT)?") {
            parse(&text, now());
            parse(&near, now());
        }

        #[test]
        fn a_cut_or_altered_date_is_read_without_panic(
            form in prop::sample::select(vec!["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]),
            start in 0usize..30, end in 0usize..31, at in 0usize..30, octet in " -~",
        ) {
            let mut text = form.to_owned();
            if let Some(was) = text.get(at..=at).map(str::len) { text.replace_range(at..at + was, &octet); }
            parse(&text, now());
            parse(text.get(start..end.min(text.len())).unwrap_or(&text[start.min(text.len())..]), now());
        }
    }

    /// Guards against an index past the end: the first 0 letters of every day's name are equal.
    #[test]
    fn a_text_that_begins_with_a_comma_is_no_date() {
        for text in [",", ", ", ",,", "S,", "Sun,"] {
            assert_eq!(parse(text, now()), None, "{text}");
        }
    }
}
