//! Reads YAML, expands variables, checks, and explains errors.
//!
//! Text → [`parser`] → [`tree`] → [`include`] → [`expand`] → [`de`] into [`GatewayConfig`] →
//! [`secret`] → [`check`]. Errors of syntax and type are reported one at a time, missing variables and errors of
//! meaning all together. Each module's part of [`GatewayConfig`] lives in that module; this module
//! knows those types and nothing else of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};
use crate::{acme, admin, bus, cache, http, origin, plugin, proxy, rate_limit, telemetry};

mod answer_files;
mod check;
mod contradiction_warnings;
mod de;
mod document;
mod effective;
mod excerpt;
mod expand;
mod fault;
mod file_pattern;
mod format;
mod include;
mod limit_warnings;
mod line_diff;
mod named_files;
mod parser;
mod problem;
mod rule_warnings;
mod schema;
mod seal_warnings;
mod secret;
mod secret_text;
#[cfg(test)]
mod shipped;
mod sources;
mod targets_file;
#[cfg(test)]
mod tests;
mod text_file;
mod text_shape;
mod tls_contents;
mod tree;
mod upstream_warnings;
mod warnings;
mod yaml_text;

pub use document::admin_of_broken;
pub use effective::{EffectiveConfig, ShownValues, effective};
pub use format::formatted_file;
pub use line_diff::{ChangedLines, changes};
pub use named_files::files_of;
pub use problem::{ConfigProblem, ConfigProblems};
pub use schema::schema;
pub use secret::{hidden, redacted};
pub use targets_file::load as load_targets;
pub use text_file::read_at_most;
pub use tls_contents::shown_digest;

use document::ConfigDocument;
use problem::ConfigFinding;
use sources::ConfigSources;
use text_file::read_text;

/// The most bytes of a configuration, with all files that it includes. A larger one is a mistake.
const MAX_BYTES: usize = 1 << 20;

/// The whole configuration file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Version of this format: 1.
    pub version: u32,
    /// Further files, whose values are joined to those of this one: a path, a pattern such as `routes/*.yaml`, or a list of them, relative to this file.
    #[serde(default)]
    #[schemars(with = "proxy::config::OneOrMany")]
    pub include: Vec<String>,
    /// The process.
    #[serde(default)]
    pub server: ProcessConfig,
    /// Addresses that clients connect to.
    pub listeners: Vec<http::config::ListenerConfig>,
    /// Named groups of origin servers.
    #[serde(default)]
    pub upstreams: BTreeMap<String, origin::config::UpstreamConfig>,
    /// The cache as a whole.
    #[serde(default)]
    pub cache: cache::config::CacheConfig,
    /// The policy of every route that does not set its own, and its compression.
    #[serde(default)]
    pub defaults: proxy::config::RouteDefaults,
    /// Named rate limits, which routes name in `limit`.
    #[serde(default)]
    pub limits: BTreeMap<String, rate_limit::config::RateLimitConfig>,
    /// Routes; the first one that matches a request is used.
    pub routes: Vec<proxy::config::RouteConfig>,
    /// Plugins by name, and the settings for all of them.
    #[serde(default)]
    pub plugins: plugin::config::PluginsConfig,
    /// The event bus between nodes.
    #[serde(default)]
    pub bus: Option<bus::config::BusConfig>,
    /// Certificates that are obtained automatically, and renewed.
    #[serde(default)]
    pub acme: Option<acme::config::AcmeConfig>,
    /// The `PURGE` method on the listeners.
    #[serde(default)]
    pub purge_method: proxy::config::PurgeMethodConfig,
    /// The admin listener.
    #[serde(default)]
    pub admin: admin::config::AdminConfig,
    /// Logs and metrics.
    #[serde(default)]
    pub telemetry: telemetry::config::TelemetryConfig,
    /// What works as it is written and is still risky, with its place in the file.
    #[serde(skip)]
    pub warnings: Vec<ConfigProblem>,
    /// The files that it was read from: the main one, and those that it includes.
    #[serde(skip)]
    pub files_read: Vec<PathBuf>,
}

impl GatewayConfig {
    /// The secret that seals the events of the bus: its own, or else that of the second tier.
    pub fn bus_seal_key(&self) -> Option<&str> {
        let own = self.bus.as_ref().and_then(|bus| bus.seal_key.as_deref());
        own.or(self.cache.l2.seal_key.as_deref())
    }

    /// The secret that seals the secrets of session tickets: that of the second tier, or else that
    /// of automatic certificates.
    pub fn ticket_seal_key(&self) -> Option<&str> {
        let of_acme = self.acme.as_ref().and_then(|acme| acme.seal_key.as_deref());
        self.cache.l2.seal_key.as_deref().or(of_acme)
    }

    /// The files and folders that it names, except those with secrets.
    fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let plugins = self
            .plugins
            .by_name
            .values_mut()
            .map(|plugin| &mut plugin.file);
        let stores = self.cache.l2.stores_mut().into_iter();
        let stores = stores.flat_map(|store| store.files());
        let warm = self.cache.warm.iter_mut().map(|warm| &mut warm.file);
        let transports = self.bus.iter_mut().flat_map(|bus| bus.transports_mut());
        let bus = transports.flat_map(|transport| transport.files());
        let tls = self
            .listeners
            .iter_mut()
            .filter_map(|listener| listener.tls.as_mut());
        let tls = tls.flat_map(|tls| tls.files());
        let acme = self.acme.as_mut().into_iter();
        let acme = acme.flat_map(|acme| acme.files());
        let upgrade = self.server.upgrade_socket.iter_mut();
        let upstreams = self.upstreams.values_mut();
        let origins = upstreams.flat_map(|upstream| upstream.files());
        plugins
            .chain(stores)
            .chain(warm)
            .chain(bus)
            .chain(tls)
            .chain(acme)
            .chain(origins)
            .chain(upgrade)
    }
}

/// The process.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// Worker threads, each with its own runtime and sockets. Unset: one for each core.
    pub threads: Option<usize>,
    /// The time after SIGTERM within which the process ends. Requests under way have nine tenths of
    /// it (or all but 3 s, if that is more); the rest is for what must still be published to other
    /// nodes.
    pub drain_timeout: ConfigDuration,
    /// The most bytes that the answers of all connections may hold in memory beyond what the cache
    /// counts as its own. When evicted bodies hold three quarters of this, the answers that send
    /// them are cut, first those that have stood still for the longest time. Above this, requests
    /// that need a load get 503; hits are still answered.
    pub max_held_bytes: ByteSize,
    /// Whether the configuration is taken up by itself when what its files say has changed and is the
    /// same twice, one second apart. SIGHUP and `lamina reload` do it in any case.
    pub watch: ConfigWatch,
    /// How long tunnels, and answers of unknown length, may go on by a configuration that was
    /// replaced, or in a process that was replaced by `lamina upgrade`.
    pub old_engine_max: ConfigDuration,
    /// The Unix socket on which `lamina upgrade` asks the gateway to hand over to another process.
    /// Unset: `upgrade.sock` in the folder that systemd makes for the service; without systemd
    /// there is none.
    pub upgrade_socket: Option<PathBuf>,
}

/// Whether changed files are taken up by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConfigWatch {
    On,
    #[default]
    Off,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            threads: None,
            drain_timeout: ConfigDuration::secs(30),
            max_held_bytes: ByteSize::mib(256),
            watch: ConfigWatch::Off,
            old_engine_max: ConfigDuration::secs(3_600),
            upgrade_socket: None,
        }
    }
}

/// Reads and checks the file, with the environment variables of the process.
pub fn load(file: &Path) -> Result<GatewayConfig, ConfigProblems> {
    let (name, text) = read_text(file)?;
    parse(&text, &name, &|variable| std::env::var(variable).ok())
}

/// Where a key stands.
pub struct KeyPlace {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

/// The file and the line on which a key such as `bus.nats.servers` stands. None if the key isn't
/// given or the file can't be read.
pub fn place_of(file: &Path, key: &str) -> Option<KeyPlace> {
    let document = document_of(file).ok()?;
    let keys: Vec<&str> = key.split('.').collect();
    let path = problem::path(&keys);
    document.root.node(&path)?;
    let at = document.root.find(&path).1;
    Some(KeyPlace {
        file: document.sources.name(at.source).to_owned(),
        line: at.line,
    })
}

/// Something that is wrong with what the configuration in this file names at this key, as in
/// `listeners[0].tls.default`, shown where the key stands.
pub fn problem_at(file: &Path, key: &str, message: impl Into<String>) -> ConfigProblem {
    let finding = ConfigFinding::value(problem::ConfigPath::read(key), message);
    match document_of(file) {
        Ok(document) => finding.locate(&document.sources, Some(&document.root)),
        Err(_) => finding.locate(&ConfigSources::new(&file.display().to_string(), ""), None),
    }
}

/// The tree of a file and of those that it includes, before variables are expanded.
fn document_of(file: &Path) -> Result<ConfigDocument, ConfigProblems> {
    let (name, text) = read_text(file)?;
    ConfigDocument::read(&text, &name, &|variable| std::env::var(variable).ok())
}

/// Reads and checks `text`. `file` names it in messages, and the files that it names are relative
/// to its folder.
pub fn parse(
    text: &str,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<GatewayConfig, ConfigProblems> {
    let mut document = ConfigDocument::read(text, file, env)?;
    document.expand(env)?;
    document.checked(document.typed()?)
}
