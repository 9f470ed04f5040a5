//! The configuration of who may send requests to a route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::cidr::Cidr;

/// Which client addresses (CIDR) may send requests; 403 for the others. With trusted proxies in front of a listener it is the client that they name; one whose address is unknown is refused.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// Networks that may ask; empty means all.
    pub allow: Vec<String>,
    /// Networks that may not, also where `allow` names them.
    pub deny: Vec<String>,
}

/// A network in the one form that all its spellings have; `None` if it is none.
pub fn canonical_network(text: &str) -> Option<String> {
    text.parse::<Cidr>().ok().map(|network| network.to_string())
}
