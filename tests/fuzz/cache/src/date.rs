//! Dates: what is written reads back, and where `httpdate` reads a date we read the same one.
//!
//! Input: lines, each perhaps a date, perhaps behind a field's name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::EXPIRES;
use lamina_http::date::{self, FieldDate};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let now = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
    for line in input::texts(data) {
        let text = line.split_once(": ").map_or(line, |(_, value)| value);
        let read = date::parse(text, now);
        if let Some(at) = read {
            reads_back(at, now);
            let (lower, upper) = (text.to_ascii_lowercase(), text.to_ascii_uppercase());
            assert_eq!(
                (date::parse(&lower, now), date::parse(&upper, now)),
                (read, read)
            );
            assert_eq!(
                date::parse(&format!("{text} "), now),
                None,
                "strict at the end"
            );
            assert_eq!(
                date::parse(&format!(" {text}"), now),
                None,
                "and at the beginning"
            );
        }
        // IMF-fixdate alone: of the other forms httpdate reads the century and the day otherwise.
        if let (29, Ok(theirs)) = (text.len(), httpdate::parse_http_date(text)) {
            assert_eq!(read, Some(theirs), "{text:?}");
        }
    }
    let lines = input::values(&EXPIRES, data);
    let field = date::field(&lines, &EXPIRES, now);
    assert_eq!(field == FieldDate::Absent, lines.is_empty());
    assert!(lines.len() < 2 || field == FieldDate::Invalid);
}

fn reads_back(at: SystemTime, now: SystemTime) {
    let written = date::format(at);
    let again = date::parse(written.to_str().expect("visible ASCII"), now);
    // What is written has a year from 1970 to 9999.
    let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    assert_eq!(again, Some(at.clamp(UNIX_EPOCH, last)));
}
