//! Reads YAML, expands variables, checks, and explains errors.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Duration;
use crate::{admin, cache, http, origin, plugin, proxy, telemetry};

/// The whole configuration file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of this format: 1.
    pub version: u32,
    /// The process.
    #[serde(default)]
    pub server: Server,
    /// Addresses that clients connect to.
    pub listeners: Vec<http::config::Listener>,
    /// Named groups of origin servers.
    #[serde(default)]
    pub upstreams: BTreeMap<String, origin::config::Upstream>,
    /// The cache as a whole.
    #[serde(default)]
    pub cache: cache::config::Config,
    /// Policy of every route that does not say otherwise.
    #[serde(default)]
    pub defaults: cache::config::Policy,
    /// Routes; the first that matches a request counts.
    pub routes: Vec<proxy::config::Route>,
    /// Plugins by name.
    #[serde(default)]
    pub plugins: BTreeMap<String, plugin::config::Plugin>,
    /// The `PURGE` method on the listeners.
    #[serde(default)]
    pub purge_method: proxy::config::PurgeMethod,
    /// The admin listener.
    #[serde(default)]
    pub admin: admin::config::Config,
    /// Logs and metrics.
    #[serde(default)]
    pub telemetry: telemetry::config::Config,
}

/// The process.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Worker threads, each with its own runtime and sockets; unset takes one per core.
    pub threads: Option<usize>,
    /// How long requests that are under way may go on after SIGTERM.
    pub drain_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self { threads: None, drain_timeout: Duration::secs(30) }
    }
}
