//! The configuration of rate limits: the named ones under `limits`, which routes name in `limit`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One limit: how many requests each client, or each value of something else, may send. The routes that name it share it: a client has one allowance for all of them.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitConfig {
    /// How many requests are allowed in the long run: a number with `/s`, `/m`, `/h` or `/d`, as in `100/s`.
    pub rate: RequestRate,
    /// How many may come at once after a pause. Unset: as many as the number in `rate`.
    #[serde(default)]
    pub burst: Option<u64>,
    /// What each allowance is for: `client` (the address, IPv6 by its /64), `header NAME`, `cookie NAME`, `path.N` (the Nth segment of the path, from 1) or `route`. A request without that field or cookie counts for its client.
    #[serde(default)]
    pub key: LimitKey,
    /// For how many values of the key memory is set aside, 32 bytes for each; beyond that those are forgotten that are the nearest to a full allowance.
    #[serde(default = "max_keys")]
    pub max_keys: usize,
    /// `edge` counts every request, before the cache; `origin` counts those that go to the upstream or the loader: misses, refreshes, and what bypasses the cache.
    #[serde(default)]
    pub at: LimitPlace,
    /// Whether the nodes that share `cache.l2.redis` share the limit.
    #[serde(default)]
    pub shared: bool,
    /// Whether answers tell the client in `RateLimit-Policy` and `RateLimit` how much is left (a draft of the IETF). With `at: origin` only refusals do.
    #[serde(default)]
    pub fields: bool,
    /// Whether requests above the limit are only counted and logged.
    #[serde(default)]
    pub dry_run: bool,
}

/// So many requests in a second, a minute, an hour or a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestRate {
    pub requests: u64,
    pub per: RatePeriod,
}

/// The time in which a rate is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RatePeriod {
    Second,
    Minute,
    Hour,
    Day,
}

/// What each allowance of a limit is for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum LimitKey {
    #[default]
    Client,
    Header(HeaderName),
    Cookie(Box<str>),
    /// A segment of the path, from 1.
    PathSegment(usize),
    Route,
}

/// Where requests are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LimitPlace {
    #[default]
    Edge,
    Origin,
}

const RATE_FORM: &str = "a rate: a whole number from 1 to 1000000000 with /s, /m, /h or /d, of at \
                         most 1000000 a second, as in 100/s or 1000/m";
const KEY_FORM: &str = "what a limit counts by: client, header NAME, cookie NAME, path.N or route, as in header x-api-key";

/// The shortest time between two requests that can be told apart.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(1);

/// The highest number in a rate.
const MOST_REQUESTS: u64 = 1_000_000_000;

/// The last segment of a path that a limit can count by.
const LAST_SEGMENT: usize = 64;

fn max_keys() -> usize {
    100_000
}

impl RateLimitConfig {
    /// How many requests may come at once.
    pub fn burst(&self) -> u64 {
        self.burst.unwrap_or(self.rate.requests)
    }
}

impl RequestRate {
    /// The time in which one request is earned.
    pub fn interval(self) -> Duration {
        Duration::from_nanos(self.per.length().as_secs() * 1_000_000_000 / self.requests)
    }
}

impl RatePeriod {
    fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        })
    }

    fn letter(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::Day => 'd',
        }
    }
}

impl FromStr for RequestRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not {RATE_FORM}");
        let (number, period) = text.split_once('/').ok_or_else(wrong)?;
        let requests = number.trim().parse().map_err(|_| wrong())?;
        let per = match period.trim() {
            "s" => RatePeriod::Second,
            "m" => RatePeriod::Minute,
            "h" => RatePeriod::Hour,
            "d" => RatePeriod::Day,
            _ => return Err(wrong()),
        };
        if !(1..=MOST_REQUESTS).contains(&requests) {
            return Err(wrong());
        }
        let rate = Self { requests, per };
        match rate.interval() >= SHORTEST_INTERVAL {
            true => Ok(rate),
            false => Err(wrong()),
        }
    }
}

impl FromStr for LimitKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not {KEY_FORM}");
        if let Some(segment) = text.strip_prefix("path.") {
            let number = segment.parse().ok();
            let number = number.filter(|n| (1..=LAST_SEGMENT).contains(n));
            return number.map(Self::PathSegment).ok_or_else(wrong);
        }
        match text.split_once(' ').map(|(kind, name)| (kind, name.trim())) {
            None if text == "client" => Ok(Self::Client),
            None if text == "route" => Ok(Self::Route),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| wrong()),
            Some(("cookie", name)) if is_cookie_name(name) => Ok(Self::Cookie(name.into())),
            _ => Err(wrong()),
        }
    }
}

/// Names of cookies are tokens, as those of fields (RFC 6265 §4.1.1).
fn is_cookie_name(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok()
}

impl fmt::Display for RequestRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, self.per.letter())
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::PathSegment(number) => write!(f, "path.{number}"),
            Self::Route => f.write_str("route"),
        }
    }
}

/// Reads a value of the configuration that is written as a text.
struct WrittenForm<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err = String>> de::Visitor<'_> for WrittenForm<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! written_form {
    ($type:ty, $form:expr, $pattern:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(WrittenForm(std::marker::PhantomData, $form))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $form })
            }
        }
    };
}

written_form!(RequestRate, RATE_FORM, r"^([0-9]+ ?/ ?[smhd]|.*\$\{.*)$");
written_form!(
    LimitKey,
    KEY_FORM,
    r"^(client|route|path\.[0-9]+|(header|cookie) .+|.*\$\{.*)$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_keys_read_as_they_are_written() {
        for (text, nanos) in [
            ("100/s", 10_000_000),
            ("1000/m", 60_000_000),
            ("5/h", 720_000_000_000),
            ("1/d", 86_400_000_000_000),
            ("1000000/s", 1_000),
        ] {
            let rate: RequestRate = text.parse().unwrap();
            assert_eq!(rate.interval(), Duration::from_nanos(nanos), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        for text in [
            "client",
            "route",
            "path.3",
            "header x-api-key",
            "cookie sid",
        ] {
            let key: LimitKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_the_form_that_is_expected() {
        for bad in [
            "",
            "100",
            "100/w",
            "0/s",
            "-1/s",
            "1.5/s",
            "2000000/s",
            "/s",
        ] {
            let error = bad.parse::<RequestRate>().unwrap_err();
            assert!(error.contains("100/s"), "{bad}: {error}");
        }
        for bad in [
            "",
            "ip",
            "header",
            "header a b",
            "cookie ",
            "path.0",
            "path.x",
            "path.65",
        ] {
            let error = bad.parse::<LimitKey>().unwrap_err();
            assert!(error.contains("header NAME"), "{bad}: {error}");
        }
    }
}
