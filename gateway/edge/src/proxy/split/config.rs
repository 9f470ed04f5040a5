//! The configuration of a route that has several upstreams.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Several upstreams for the requests of one route, in place of `upstream`. Answers of each are stored apart.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// What of a request decides, so that it decides the same each time: `client` (its address), `header NAME`, `cookie NAME`, or `random`. A request without it goes anywhere, by the weights.
    #[serde(default)]
    #[schemars(with = "String")]
    pub by: SplitBy,
    /// The upstreams, with their shares.
    pub to: Vec<UpstreamShareConfig>,
}

/// An upstream that gets a share of the requests of a route.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamShareConfig {
    /// The name of the upstream.
    pub upstream: String,
    /// Its share, compared with the sum of all; 0: none.
    pub weight: u32,
}

/// What of a request decides which upstream it goes to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum SplitBy {
    /// The client's address.
    #[default]
    Client,
    Header(String),
    Cookie(String),
    /// Nothing: each request for itself.
    Random,
}

impl fmt::Display for SplitBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Random => f.write_str("random"),
        }
    }
}

impl Serialize for SplitBy {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SplitBy {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let named = |kind: &str| {
            let name = text.strip_prefix(kind)?.strip_prefix(' ')?.trim();
            let is_name = !name.is_empty() && http::HeaderName::try_from(name).is_ok();
            is_name.then(|| name.to_owned())
        };
        match (&*text, named("header"), named("cookie")) {
            ("client", ..) => Ok(Self::Client),
            ("random", ..) => Ok(Self::Random),
            (_, Some(name), _) => Ok(Self::Header(name)),
            (_, _, Some(name)) => Ok(Self::Cookie(name)),
            _ => Err(serde::de::Error::custom(format!(
                "{text:?} is nothing to split by; expected `client`, `header NAME`, `cookie NAME` \
                 or `random`"
            ))),
        }
    }
}
