//! How requests are distributed over the targets of an upstream.

use std::fmt;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::sticky::StickyConfig;
use crate::units::ConfigDuration;

/// A server of an upstream: a URL alone, or a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetConfig {
    pub url: String,
    pub weight: NonZeroU32,
    pub priority: u8,
    pub name: Option<String>,
}

/// The long form of a target.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TargetLongForm {
    /// The URL of the server: `http://host:port`, or `https://host:port` for TLS.
    url: String,
    /// Its share of the requests, compared with the weights of the others.
    #[serde(default = "weight_of_one")]
    weight: NonZeroU32,
    /// Targets with a greater number get requests only when too few of those with a smaller one can be used (`balance.panic`).
    #[serde(default)]
    priority: u8,
    /// The name in logs and metrics; unset takes host and port.
    #[serde(default)]
    name: Option<String>,
}

fn weight_of_one() -> NonZeroU32 {
    NonZeroU32::MIN
}

impl TargetConfig {
    /// A target with defaults for everything but its URL.
    pub fn from_url(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            weight: weight_of_one(),
            priority: 0,
            name: None,
        }
    }
}

impl From<TargetLongForm> for TargetConfig {
    fn from(full: TargetLongForm) -> Self {
        let TargetLongForm {
            url,
            weight,
            priority,
            name,
        } = full;
        Self {
            url,
            weight,
            priority,
            name,
        }
    }
}

/// In the short form where it says all.
impl Serialize for TargetConfig {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if *self == Self::from_url(&self.url) {
            return s.serialize_str(&self.url);
        }
        let Self {
            url,
            weight,
            priority,
            name,
        } = self.clone();
        let full = TargetLongForm {
            url,
            weight,
            priority,
            name,
        };
        full.serialize(s)
    }
}

/// Written by hand, since serde's untagged enums lose the reason and the position of an error.
impl<'de> Deserialize<'de> for TargetConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TargetUrlOrMap)
    }
}

struct TargetUrlOrMap;

impl<'de> Visitor<'de> for TargetUrlOrMap {
    type Value = TargetConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL, as in http://127.0.0.1:9000, or a mapping with `url`")
    }

    fn visit_str<E>(self, url: &str) -> Result<TargetConfig, E> {
        Ok(TargetConfig::from_url(url))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TargetConfig, A::Error> {
        TargetLongForm::deserialize(MapAccessDeserializer::new(map)).map(TargetConfig::from)
    }
}

impl JsonSchema for TargetConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let full = generator.subschema_for::<TargetLongForm>();
        schemars::json_schema!({
            "description": "A server of an upstream: a URL alone, or a map.",
            "anyOf": [{ "type": "string", "description": "Its URL, as in `http://127.0.0.1:9000`." }, full]
        })
    }
}

/// How requests are distributed over the targets.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BalanceConfig {
    /// How a target is chosen.
    pub by: BalanceMethod,
    /// With `by: hash`, what the target depends on: `key` (of the cache), `client`, `header NAME` or `cookie NAME`. A request without it goes by `least_request`.
    pub hash: Option<HashSource>,
    /// With `by: hash`, the most requests under way at one target, as a multiple of the mean; what is above goes to the next target.
    pub bound: f64,
    /// A cookie by which a client stays with its target; unset: there is none.
    pub sticky: Option<StickyConfig>,
    /// For how long a target that comes back gets less than its share: from a tenth, growing to all of it.
    pub slow_start: ConfigDuration,
    /// Percent of the targets that must be usable. Below that, requests go to all targets, and a request that has a stale copy for errors gets it at once.
    pub panic: u8,
}

/// How a target is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceMethod {
    /// Of two targets at random the one with fewer requests under way and the shorter time to its answers.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// The same target for the same text of the request, as long as it can be used.
    Hash,
}

/// What of a request chooses its target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[schemars(with = "String")]
pub enum HashSource {
    /// The key that the cache knows the answer by.
    Key,
    /// The client's address.
    Client,
    Header(String),
    Cookie(String),
}

impl<'de> Deserialize<'de> for HashSource {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let named = |kind: &str| {
            let name = text.strip_prefix(kind)?.strip_prefix(' ')?.trim();
            (!name.is_empty() && http::HeaderName::try_from(name).is_ok()).then(|| name.to_owned())
        };
        match (named("header"), named("cookie")) {
            _ if text == "key" => Ok(Self::Key),
            _ if text == "client" => Ok(Self::Client),
            (Some(name), _) => Ok(Self::Header(name)),
            (_, Some(name)) => Ok(Self::Cookie(name)),
            _ => Err(serde::de::Error::custom(format!(
                "{text:?} is nothing to choose by; expected `key`, `client`, `header NAME` or `cookie NAME`"
            ))),
        }
    }
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            by: BalanceMethod::default(),
            hash: None,
            bound: 1.25,
            sticky: None,
            slow_start: ConfigDuration::secs(10),
            panic: 50,
        }
    }
}
