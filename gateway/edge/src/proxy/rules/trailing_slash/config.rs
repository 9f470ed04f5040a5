//! The configuration of slashes at the end of paths.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether paths end with a slash.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrailingSlash {
    /// As the client asks.
    #[default]
    Keep,
    /// All do, unless the last part of the path has a dot, as the name of a file.
    Add,
    /// None does, but `/` itself.
    Remove,
}
