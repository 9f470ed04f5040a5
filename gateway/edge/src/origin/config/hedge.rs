//! Loads that go to a second target while the first one has not answered.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::ConfigDuration;

/// When a load that has no answer yet also goes to a second target.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HedgeConfig {
    /// After this time without the head of a response: a duration, or `p50` to `p99`, which is the time within which that share of the good responses of the last minute came, rounded up to a power of two of microseconds.
    pub after: HedgeDelay,
    /// The least time, where `after` is measured.
    pub min: ConfigDuration,
}

/// How long a load waits for its first target alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HedgeDelay {
    /// The time within which so many percent of the responses came.
    Percentile(u8),
    Fixed(ConfigDuration),
}

const PERCENTILES: RangeInclusive<u8> = 50..=99;

impl Default for HedgeConfig {
    fn default() -> Self {
        Self {
            after: HedgeDelay::Percentile(95),
            min: ConfigDuration::millis(20),
        }
    }
}

impl HedgeDelay {
    fn parse(text: &str) -> Option<Self> {
        let percent = text
            .strip_prefix('p')
            .and_then(|digits| digits.parse().ok());
        match percent.filter(|percent| PERCENTILES.contains(percent)) {
            Some(percent) => Some(Self::Percentile(percent)),
            None => text.parse().ok().map(Self::Fixed),
        }
    }
}

impl fmt::Display for HedgeDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentile(percent) => write!(f, "p{percent}"),
            Self::Fixed(time) => time.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for HedgeDelay {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is no time; expected `p50` to `p99`, or a duration as in 100ms"
            ))
        })
    }
}

impl Serialize for HedgeDelay {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl JsonSchema for HedgeDelay {
    fn schema_name() -> Cow<'static, str> {
        "HedgeDelay".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fixed = generator.subschema_for::<ConfigDuration>();
        json_schema!({
            "description": "How long a load waits for its first target alone.",
            "anyOf": [{ "type": "string", "pattern": "^p[5-9][0-9]$" }, fixed]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_percentiles_or_durations() {
        assert_eq!(HedgeDelay::parse("p95"), Some(HedgeDelay::Percentile(95)));
        let fixed = HedgeDelay::parse("250ms").unwrap();
        assert_eq!(fixed, HedgeDelay::Fixed(ConfigDuration::millis(250)));
        assert_eq!(fixed.to_string(), "250ms");
        for bad in ["p100", "p4", "95", "p", "soon"] {
            assert_eq!(HedgeDelay::parse(bad), None, "{bad}");
        }
    }
}
