//! The configuration of maintenance.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proxy::rules::config::AnswerFile;
use crate::units::ConfigDuration;

/// What clients get while a route is under maintenance: 503 with a page. It is switched here, or at run time by `lamina maintenance`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MaintenanceConfig {
    /// Whether the route is under maintenance, as long as nobody switches it at run time.
    pub enabled: bool,
    /// Networks (CIDR) whose clients are served as always.
    pub allow: Vec<String>,
    /// Whether what is stored is served meanwhile.
    pub serve: MaintenanceServing,
    /// The page, as in `errors`.
    pub file: Option<AnswerFile>,
    /// When clients are told to ask again; unset: when the maintenance ends, if that is known.
    pub retry_after: Option<ConfigDuration>,
}

/// What is served during maintenance.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MaintenanceServing {
    /// Nothing but the page.
    #[default]
    Nothing,
    /// What is stored, also if it is stale, unless a purge hides it; the page for all else. No origin is asked.
    Cached,
}
