//! Durations, byte sizes and addresses as people write them in YAML: `250ms`, `64KiB`,
//! `host:port`.
//!
//! The `Config` of every module may use it; it imports nothing of ours.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time: a whole or decimal number with `ms`, `s`, `m`, `h` or `d`; `0` alone is
/// allowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct ConfigDuration(pub std::time::Duration);

/// A number of bytes: a whole number alone, or with `B`, `KB`, `MB`, `GB`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct ByteSize(pub u64);

/// Why a text is not a duration or a size, and what is expected instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {expected}")]
pub struct ParseError {
    given: String,
    expected: &'static str,
}

const DURATION_FORM: &str = "a duration: a number with ms, s, m, h or d, as in 250ms, 5s or 1h";
const SIZE_FORM: &str =
    "a size: a whole number with B, KB, MB, GB, KiB, MiB or GiB, as in 64KiB or 256MiB";

impl ConfigDuration {
    pub const ZERO: Self = Self(std::time::Duration::ZERO);

    pub const fn secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    pub const fn millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }
}

impl ByteSize {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The size as `usize`, saturating.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<ConfigDuration> for std::time::Duration {
    fn from(d: ConfigDuration) -> Self {
        d.0
    }
}

impl FromStr for ConfigDuration {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_duration(text.trim()).ok_or_else(|| ParseError {
            given: text.to_owned(),
            expected: DURATION_FORM,
        })
    }
}

impl FromStr for ByteSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_size(text.trim()).ok_or_else(|| ParseError {
            given: text.to_owned(),
            expected: SIZE_FORM,
        })
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn parse_duration(text: &str) -> Option<ConfigDuration> {
    let (number, unit) = split_unit(text);
    let value: f64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        "" if value == 0.0 => 0.0,
        _ => return None,
    };
    let total = (value * millis).round();
    // Nobody means more than a hundred years, nor a positive value that would round to zero.
    let meant = total <= 3.2e12 && (total >= 1.0 || value == 0.0);
    meant.then(|| ConfigDuration::millis(total as u64))
}

fn parse_size(text: &str) -> Option<ByteSize> {
    let (number, unit) = split_unit(text);
    let value: u64 = number.parse().ok()?;
    let factor = match unit {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    value.checked_mul(factor).map(ByteSize)
}

impl fmt::Display for ConfigDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(86_400_000) => write!(f, "{}d", ms / 86_400_000),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1_000) => write!(f, "{}s", ms / 1_000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0B"),
            n if n.is_multiple_of(1 << 30) => write!(f, "{}GiB", n >> 30),
            n if n.is_multiple_of(1 << 20) => write!(f, "{}MiB", n >> 20),
            n if n.is_multiple_of(1 << 10) => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}B"),
        }
    }
}

/// Accepts a text or a bare number, so that `ttl: 0` and `max_bytes: 4096` work, and `ttl: 5`
/// gives an error that names the expected form.
struct TextOrNumber<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err = ParseError>> de::Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<T, E> {
        n.to_string().parse().map_err(E::custom)
    }
}

macro_rules! yaml_text {
    ($type:ty, $form:expr, $pattern:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(TextOrNumber(std::marker::PhantomData, $form))
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
                json_schema!({ "type": ["string", "integer"], "pattern": $pattern, "description": $form })
            }
        }
    };
}

yaml_text!(
    ConfigDuration,
    DURATION_FORM,
    r"^(0|[0-9]+(\.[0-9]+)?(ms|s|m|h|d)|.*\$\{.*)$"
);
yaml_text!(
    ByteSize,
    SIZE_FORM,
    r"^([0-9]+(B|KB|kB|MB|GB|KiB|MiB|GiB)?|.*\$\{.*)$"
);

/// Parses `host`, `host:port`, `[::1]` or `[::1]:port`; `None` for anything else.
pub fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
        _ => (text, default_port),
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let legal = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.chars().all(plain),
    };
    (legal && port != 0).then(|| (bare.unwrap_or(name).to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("1.5m", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(ConfigDuration::millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_bad_duration_or_size_says_what_is_expected() {
        for bad in [
            "",
            "5",
            "5 parsecs",
            "-1s",
            "1e400d",
            "s",
            "0.1ms",
            "1.2.3s",
        ] {
            assert!(
                bad.parse::<ConfigDuration>()
                    .is_err_and(|e| e.to_string().contains("250ms")),
                "{bad}"
            );
        }
        for bad in ["", "1.5KiB", "64Kib", "-1", "99999999999GiB"] {
            assert!(
                bad.parse::<ByteSize>()
                    .is_err_and(|e| e.to_string().contains("64KiB")),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(ms in 0u64..3_000_000_000, bytes in any::<u64>()) {
            prop_assert_eq!(ConfigDuration::millis(ms).to_string().parse(), Ok(ConfigDuration::millis(ms)));
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }
}
