//! The configuration of direct answers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proxy::rules::config::AnswerFile;

/// An answer to all requests of a route, without an origin and before the cache.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectAnswerConfig {
    /// Its status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Its content, at most 1 MiB.
    #[serde(default)]
    pub body: Option<String>,
    /// A file with its content, in place of `body`.
    #[serde(default)]
    pub file: Option<AnswerFile>,
    /// Its header fields. Without `content-type` it is that of the file's name, or else plain text.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

fn ok() -> u16 {
    200
}
