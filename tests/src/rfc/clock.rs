//! Times in a table: `<now>`, `<now-60>` and `<now+3600>` stand for a date of HTTP (RFC 9110
//! §5.6.7) that many seconds from the case's start; `<rfc850 now>` and `<asctime now>` for
//! its obsolete forms. `<host>` is the case's host name; `<scheme>`, `<port>` and `<version>` are
//! the scheme of the client's front, the port that its URLs need not say, and its version of HTTP.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::front::Front;

/// A case's start, name, and front.
#[derive(Clone, Debug)]
pub struct Clock {
    host: String,
    front: Front,
    start: i64,
}

/// Calendar fields of a time.
struct Civil {
    year: i64,
    month: usize,
    day: i64,
    weekday: usize,
    time: String,
}

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

impl Clock {
    pub fn new(host: &str, front: Front) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            host: host.to_owned(),
            front,
            start: now.map_or(0, |since| since.as_secs().cast_signed()),
        }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// Fills what stands in angle brackets; what is none of ours stays as it is.
    pub fn fill(&self, text: &str) -> String {
        let Some((before, rest)) = text.split_once('<') else {
            return text.to_owned();
        };
        let Some((word, after)) = rest.split_once('>') else {
            return text.to_owned();
        };
        let value = self
            .value(word)
            .unwrap_or_else(|| format!("<{}>", self.fill(word)));
        format!("{before}{value}{}", self.fill(after))
    }

    fn value(&self, word: &str) -> Option<String> {
        match word {
            "host" => return Some(self.host.clone()),
            "scheme" => return Some(self.front.scheme().to_owned()),
            "port" => return Some(self.front.default_port().to_string()),
            "version" => return Some(self.front.version().to_owned()),
            _ => {}
        }
        let (form, time) = word.split_once(' ').unwrap_or(("", word));
        let offset = time.strip_prefix("now")?;
        let offset: i64 = match offset {
            "" => 0,
            signed => signed.parse().ok()?,
        };
        let civil = Civil::of(self.start + offset);
        match form {
            "" => Some(civil.imf()),
            "rfc850" => Some(civil.rfc850()),
            "asctime" => Some(civil.asctime()),
            _ => None,
        }
    }
}

impl Civil {
    /// By the algorithm of Howard Hinnant's `civil_from_days`.
    fn of(seconds: i64) -> Self {
        let (days, in_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = (shifted_month + 2) % 12;
        Self {
            year: year_of_era + era * 400 + i64::from(month < 2),
            month: usize::try_from(month).unwrap_or(0),
            day: of_year - (153 * shifted_month + 2) / 5 + 1,
            weekday: usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0),
            time: format!(
                "{:02}:{:02}:{:02}",
                in_day / 3_600,
                in_day / 60 % 60,
                in_day % 60
            ),
        }
    }

    fn imf(&self) -> String {
        let (day, month) = (&DAYS[self.weekday][..3], MONTHS[self.month]);
        format!(
            "{day}, {:02} {month} {:04} {} GMT",
            self.day, self.year, self.time
        )
    }

    fn rfc850(&self) -> String {
        let (day, month) = (DAYS[self.weekday], MONTHS[self.month]);
        let year = self.year % 100;
        format!("{day}, {:02}-{month}-{year:02} {} GMT", self.day, self.time)
    }

    fn asctime(&self) -> String {
        let (day, month) = (&DAYS[self.weekday][..3], MONTHS[self.month]);
        format!(
            "{day} {month} {:2} {} {:04}",
            self.day, self.time, self.year
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_those_of_rfc_9110() {
        let clock = Clock {
            host: "h".to_owned(),
            front: Front::Clear,
            start: 784_111_777 - 60,
        };
        assert_eq!(clock.fill("<now+60>"), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(
            clock.fill("<rfc850 now+60>"),
            "Sunday, 06-Nov-94 08:49:37 GMT"
        );
        assert_eq!(
            clock.fill("a <asctime now+60> b"),
            "a Sun Nov  6 08:49:37 1994 b"
        );
        assert_eq!(clock.fill("</x>; rel=<host>"), "</x>; rel=h");
        assert_eq!(clock.fill("<scheme>://<host>:<port>"), "http://h:80");
        assert_eq!(
            Civil::of(951_782_400).imf(),
            "Tue, 29 Feb 2000 00:00:00 GMT"
        );
    }
}
