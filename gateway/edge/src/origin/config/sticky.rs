//! Clients that stay with their target.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::ConfigDuration;

/// A cookie by which clients stay with their target.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyConfig {
    /// The name of the cookie. The gateway sets it where nothing is cached, and the origin does not get it.
    pub cookie: String,
    /// How long clients keep it, from the answer that sets it; unset: until the browser is closed.
    #[serde(default)]
    pub max_age: Option<ConfigDuration>,
}
