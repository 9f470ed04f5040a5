//! How requests are distributed over the targets of an upstream.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::sticky::StickyConfig;
use crate::units::ConfigDuration;

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
