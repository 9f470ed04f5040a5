//! Reads YAML, expands variables, checks, and explains errors.
//!
//! Text → [`parser`] → [`tree`] → [`expand`] → [`de`] into [`GatewayConfig`] → [`secret`] →
//! [`check`]. Errors of syntax and type are reported one at a time, missing variables and errors of
//! meaning all together. Each module's part of [`GatewayConfig`] lives in that module; this module
//! knows those types and nothing else of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};
use crate::{acme, admin, bus, cache, http, origin, plugin, proxy, telemetry};

mod check;
mod de;
mod excerpt;
mod expand;
mod fault;
mod parser;
mod problem;
mod schema;
mod seal_warnings;
mod secret;
#[cfg(test)]
mod shipped;
mod targets_file;
#[cfg(test)]
mod tests;
mod tree;
mod upstream_warnings;
mod warnings;

pub use problem::{ConfigProblem, ConfigProblems};
pub use schema::schema;
pub use secret::redacted;
pub use targets_file::load as load_targets;

use problem::ConfigFinding;

/// The most bytes of a configuration file. A larger file is a mistake.
const MAX_BYTES: usize = 1 << 20;

/// The whole configuration file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Version of this format: 1.
    pub version: u32,
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
    /// The policy of every route that does not set its own.
    #[serde(default)]
    pub defaults: cache::config::CachePolicyConfig,
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
        let transports = self.bus.iter_mut().flat_map(|bus| bus.transports_mut());
        let bus = transports.flat_map(|transport| transport.files());
        let tls = self
            .listeners
            .iter_mut()
            .filter_map(|listener| listener.tls.as_mut());
        let tls = tls.flat_map(|tls| tls.files());
        let acme = self.acme.as_mut().into_iter();
        let acme = acme.flat_map(|acme| acme.files());
        let upstreams = self.upstreams.values_mut();
        let origins = upstreams.flat_map(|upstream| upstream.files());
        plugins
            .chain(stores)
            .chain(bus)
            .chain(tls)
            .chain(acme)
            .chain(origins)
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
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            threads: None,
            drain_timeout: ConfigDuration::secs(30),
            max_held_bytes: ByteSize::mib(256),
        }
    }
}

/// Reads and checks the file, with the environment variables of the process.
pub fn load(file: &Path) -> Result<GatewayConfig, ConfigProblems> {
    let (name, text) = read_text(file)?;
    parse(&text, &name, &|variable| std::env::var(variable).ok())
}

/// The name and the text of a file, which is not larger than a configuration may be.
fn read_text(file: &Path) -> Result<(String, String), ConfigProblems> {
    let name = file.display().to_string();
    let whole =
        |message: String| ConfigProblems::one(ConfigFinding::file(message).locate(&name, "", None));
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|f| f.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| whole(format!("cannot be read: {e}")))?;
    if bytes.len() > MAX_BYTES {
        return Err(whole(TOO_LARGE.to_owned()));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| not_utf8(&name, e.as_bytes(), e.utf8_error().valid_up_to()))?;
    Ok((name, text))
}

/// The line of the file on which a key such as `bus.nats.servers` stands. None if the key isn't
/// given or the file can't be read.
pub fn line_of(file: &Path, key: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let root = parser::parse(text).ok()?;
    let keys: Vec<&str> = key.split('.').collect();
    let path = problem::path(&keys);
    root.node(&path).map(|_| root.find(&path).1.line)
}

/// Something that is wrong with what the configuration in this file names at this key, as in
/// `listeners[0].tls.default`, shown where the key stands.
pub fn problem_at(file: &Path, key: &str, message: impl Into<String>) -> ConfigProblem {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let root = parser::parse(text).ok();
    let finding = ConfigFinding::value(problem::ConfigPath::read(key), message);
    finding.locate(&file.display().to_string(), text, root.as_ref())
}

/// Reads and checks `text`. `file` names it in messages, and the files that it names are relative
/// to its folder.
pub fn parse(
    text: &str,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<GatewayConfig, ConfigProblems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let one = |finding: ConfigFinding, root: Option<&tree::YamlNode>| {
        ConfigProblems::one(finding.locate(file, text, root))
    };
    if text.len() > MAX_BYTES {
        return Err(one(ConfigFinding::file(TOO_LARGE), None));
    }
    let mut root = parser::parse(text).map_err(|e| one(e, None))?;
    shape(&root).map_err(|e| one(e, Some(&root)))?;
    let located = |findings, root: &tree::YamlNode| located(findings, (file, text), root);
    let all = |findings, root: &tree::YamlNode| ConfigProblems::new(located(findings, root));
    let findings = expand::expand(&mut root, env);
    all(findings, &root).map_or(Ok(()), Err)?;
    let mut config: GatewayConfig = de::read(&root).map_err(|e| one(e, Some(&root)))?;
    let base = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut findings = secret::read_files(&mut config, base);
    for file in config.files() {
        *file = base.join(&*file);
    }
    findings.extend(check::check(&config));
    all(findings, &root).map_or(Ok(()), Err)?;
    config.warnings = located(warnings::warnings(&config), &root);
    Ok(config)
}

/// Shows findings where they stand in the file.
fn located(
    findings: Vec<ConfigFinding>,
    (file, text): (&str, &str),
    root: &tree::YamlNode,
) -> Vec<ConfigProblem> {
    let more = findings.len().saturating_sub(MOST_SHOWN);
    let more = (more > 0).then(|| ConfigFinding::file(format!("{more} more are not shown")));
    let shown = findings.into_iter().take(MOST_SHOWN).chain(more);
    shown.map(|f| f.locate(file, text, Some(root))).collect()
}

/// The most problems, or warnings, of one file that are listed one by one.
const MOST_SHOWN: usize = 100;

const TOO_LARGE: &str = "larger than 1 MiB; expected a configuration file";

/// Checks what everything else depends on: the file is a mapping, and its version is known.
fn shape(root: &tree::YamlNode) -> Result<(), ConfigFinding> {
    match &root.body {
        tree::YamlValue::Map(_) => {}
        tree::YamlValue::Scalar(scalar) if scalar.text.is_empty() => {
            return Err(ConfigFinding::file(parser::EMPTY));
        }
        _ => {
            return Err(ConfigFinding::at(
                root.at,
                "not a mapping; expected `version: 1` and further keys",
            ));
        }
    }
    match root.get("version").map(|node| &node.body) {
        Some(tree::YamlValue::Scalar(scalar)) if scalar.text.parse().is_ok_and(|n: u64| n != 1) => {
            let message = format!(
                "version {} of the format is not known; expected 1",
                scalar.text
            );
            Err(ConfigFinding::value(problem::path(&["version"]), message))
        }
        _ => Ok(()),
    }
}

fn not_utf8(file: &str, bytes: &[u8], valid: usize) -> ConfigProblems {
    let text = String::from_utf8_lossy(bytes);
    // The valid part is the same in both texts, so the position is correct in the repaired text.
    let before = text.get(..valid).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    let finding = ConfigFinding::at(
        tree::YamlPosition {
            line,
            column,
            width: 1,
        },
        "not UTF-8; expected a text file in UTF-8",
    );
    ConfigProblems::one(finding.locate(file, &text, None))
}
