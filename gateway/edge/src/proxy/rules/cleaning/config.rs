//! The configuration of what is cleaned in requests before their key is derived.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proxy::config::ValueMatchConfig;

/// Which cookies of a request reach key, plugins and origin where its answer may come from the cache. Patterns for names: `*` matches any number of characters, `?` one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestCookiesConfig {
    /// Only these are kept; `[]` keeps none. Unset: all that `drop` does not name.
    pub keep: Option<Vec<String>>,
    /// These are removed, also where `keep` names them.
    pub drop: Vec<String>,
}

/// Requests that bypass the cache: those of which any of these is true. They go to the origin with all their cookies.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheBypassConfig {
    /// Patterns for names of cookies, as in `wordpress_logged_in*`.
    pub cookie: Vec<String>,
    /// Header fields and what their value must match, as in `match`.
    pub header: BTreeMap<String, ValueMatchConfig>,
    /// Patterns for paths.
    pub path: Vec<String>,
    /// Query parameters and what their value must match, as in `match`.
    pub query: BTreeMap<String, ValueMatchConfig>,
}
