//! The configuration of which sites may read a route's answers.

pub mod origins;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::ConfigDuration;

/// Which sites may read the answers of a route in a browser (CORS).
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// The origins of these sites, as in `https://app.example.com`. `https://*.example.com` means all hosts below that name, `http://localhost:*` every port, `"*"` everybody.
    pub origins: Vec<String>,
    /// The methods that scripts may use; `"*"` means all.
    #[serde(default = "methods")]
    pub methods: Vec<String>,
    /// The header fields that scripts may send beside those that every script may; `"*"` means all.
    #[serde(default)]
    pub headers: Vec<String>,
    /// The fields of an answer that scripts may read beside those that every script may.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether scripts may send cookies and `Authorization`, and read the answer.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    #[serde(default = "one_hour")]
    pub max_age: ConfigDuration,
}

fn methods() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(str::to_owned).to_vec()
}

fn one_hour() -> ConfigDuration {
    ConfigDuration(std::time::Duration::from_secs(3600))
}
