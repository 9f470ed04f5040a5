//! A limit of requests at once that follows what the origin can take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The limit of requests at once is found out: it grows while answers stay quick, up to `max_concurrent`, and sinks when they get slow or the origin refuses.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveLimitConfig {
    /// The lowest limit, which is also where it begins.
    pub min: usize,
}

impl Default for AdaptiveLimitConfig {
    fn default() -> Self {
        Self { min: 8 }
    }
}
