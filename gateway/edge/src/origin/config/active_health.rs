//! The checks that a gateway makes of the targets of an upstream by itself.

use std::fmt;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::ConfigDuration;

/// Each target is asked from time to time, and gets no requests while it does not answer well.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActiveHealthConfig {
    /// The path that is asked for with GET, with a query if need be.
    pub path: String,
    /// The `Host` of the question; unset takes the target's own host and port.
    #[serde(default)]
    pub host: Option<String>,
    /// The time from one check of a target to the next one, a tenth more or less.
    #[serde(default = "usual_interval")]
    pub interval: ConfigDuration,
    /// The time limit of a check, to the last byte of the answer.
    #[serde(default = "usual_timeout")]
    pub timeout: ConfigDuration,
    /// After how many failed checks in a row the target gets no requests.
    #[serde(default = "usual_fall")]
    pub fall: u32,
    /// After how many good checks in a row it gets requests again.
    #[serde(default = "usual_rise")]
    pub rise: u32,
    /// Which statuses are good: `200`, or `200-399`.
    #[serde(default = "usual_statuses")]
    pub statuses: Vec<StatusRange>,
}

/// Statuses from the first to the last, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

fn usual_interval() -> ConfigDuration {
    ConfigDuration::secs(5)
}

fn usual_timeout() -> ConfigDuration {
    ConfigDuration::secs(2)
}

fn usual_fall() -> u32 {
    3
}

fn usual_rise() -> u32 {
    2
}

fn usual_statuses() -> Vec<StatusRange> {
    vec![StatusRange {
        first: 200,
        last: 399,
    }]
}

impl ActiveHealthConfig {
    /// A check for this path to which these statuses are good, with defaults for all else.
    pub fn accepting(path: &str, statuses: StatusRange) -> Self {
        Self {
            path: path.to_owned(),
            host: None,
            interval: usual_interval(),
            timeout: usual_timeout(),
            fall: usual_fall(),
            rise: usual_rise(),
            statuses: vec![statuses],
        }
    }
}

impl StatusRange {
    /// Whatever does not say that the server can't.
    pub const BELOW_500: Self = Self {
        first: 100,
        last: 499,
    };

    pub fn contains(self, status: StatusCode) -> bool {
        (self.first..=self.last).contains(&status.as_u16())
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (100 <= first && first <= last && last <= 599).then_some(Self { first, last })
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum StatusText {
            Number(u16),
            Text(String),
        }
        let text = match StatusText::deserialize(d)? {
            StatusText::Number(status) => status.to_string(),
            StatusText::Text(text) => text,
        };
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is no status; expected a number from 100 to 599, or two of them as in 200-399"
            ))
        })
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.first == self.last {
            true => s.serialize_u16(self.first),
            false => s.collect_str(self),
        }
    }
}

impl JsonSchema for StatusRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StatusRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status, or two of them as in `200-399`.",
            "anyOf": [
                { "type": "integer", "minimum": 100, "maximum": 599 },
                { "type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_or_ranges() {
        let parsed = |yaml: &str| serde_yaml::from_str::<Vec<StatusRange>>(yaml);
        let ranges = parsed("[204, 200-399]").unwrap();
        assert!(ranges[0].contains(StatusCode::NO_CONTENT) && !ranges[0].contains(StatusCode::OK));
        assert!(ranges[1].contains(StatusCode::FOUND) && ranges[1].contains(StatusCode::OK));
        assert!(!ranges[1].contains(StatusCode::NOT_FOUND));
        assert_eq!(serde_json::to_string(&ranges).unwrap(), "[204,\"200-399\"]");
        for wrong in ["[99]", "[600]", "[300-200]", "[2xx]", "[200-]", "['']"] {
            let said = parsed(wrong).unwrap_err().to_string();
            assert!(said.contains("200-399"), "{wrong}: {said}");
        }
    }
}
