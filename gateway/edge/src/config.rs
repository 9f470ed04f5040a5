//! Reads YAML, expands variables, checks, and explains errors.
//!
//! Text → [`parser`] → [`tree`] → [`include`] → [`expand`] → [`de`] into [`GatewayConfig`] →
//! [`secret`] → [`check`]. Errors of syntax and type are reported one at a time, missing variables and errors of
//! meaning all together. Each module's part of [`GatewayConfig`] lives in that module; this module
//! knows those types and nothing else of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};
use crate::{acme, admin, bus, cache, http, origin, plugin, proxy, rate_limit, telemetry};

mod answer_files;
mod check;
mod de;
mod effective;
mod excerpt;
mod expand;
mod fault;
mod file_pattern;
mod format;
mod include;
mod limit_warnings;
mod line_diff;
mod parser;
mod problem;
mod schema;
mod seal_warnings;
mod secret;
#[cfg(test)]
mod shipped;
mod sources;
mod targets_file;
#[cfg(test)]
mod tests;
mod text_shape;
mod tree;
mod upstream_warnings;
mod warnings;
mod yaml_text;

pub use effective::{EffectiveConfig, ShownValues, effective};
pub use format::formatted_file;
pub use line_diff::{ChangedLines, changes};
pub use problem::{ConfigProblem, ConfigProblems};
pub use schema::schema;
pub use secret::{is_secret_name, redacted};
pub use targets_file::load as load_targets;

use problem::ConfigFinding;
use sources::ConfigSources;

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

/// The name and the text of a file, which is not larger than a configuration may be.
fn read_text(file: &Path) -> Result<(String, String), ConfigProblems> {
    let name = file.display().to_string();
    let one = |finding: ConfigFinding, text: &str| {
        ConfigProblems::one(finding.locate(&ConfigSources::new(&name, text), None))
    };
    match read_bounded(file, MAX_BYTES) {
        Ok(BoundedFile::Text(text)) => Ok((name, text)),
        Ok(BoundedFile::TooLarge) => Err(one(ConfigFinding::file(TOO_LARGE), "")),
        Ok(BoundedFile::NotUtf8 { lossy, at }) => Err(one(ConfigFinding::at(at, NOT_UTF8), &lossy)),
        Err(error) => {
            let finding = ConfigFinding::file(format!("cannot be read: {error}"));
            Err(one(finding, ""))
        }
    }
}

/// What a file with a bounded number of bytes holds.
enum BoundedFile {
    Text(String),
    TooLarge,
    /// The text with replacement characters, and where the first of them stands.
    NotUtf8 {
        lossy: String,
        at: tree::YamlPosition,
    },
}

fn read_bounded(file: &Path, most: usize) -> std::io::Result<BoundedFile> {
    let mut bytes = Vec::new();
    std::fs::File::open(file).and_then(|f| f.take(most as u64 + 1).read_to_end(&mut bytes))?;
    if bytes.len() > most {
        return Ok(BoundedFile::TooLarge);
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => BoundedFile::Text(without_mark(&text).to_owned()),
        Err(error) => {
            let lossy = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let at = place_of_byte(&lossy, error.utf8_error().valid_up_to());
            BoundedFile::NotUtf8 { lossy, at }
        }
    })
}

/// The text without the byte order mark that some editors put before it.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
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

/// The file, those that it includes, and those that its `*_file` keys name, as far as that can be
/// told of it as it is now. A file of targets is followed by its upstream, and is none of them.
pub fn files_of(file: &Path) -> Vec<PathBuf> {
    let Ok((name, text)) = read_text(file) else {
        return vec![file.to_owned()];
    };
    let env = |variable: &str| std::env::var(variable).ok();
    let mut sources = ConfigSources::new(&name, &text);
    let mut budget = parser::AliasBudget::default();
    let parsed = parser::parse_source(&text, sources::MAIN, &mut budget);
    let Ok(mut root) = parsed else {
        return vec![file.to_owned()];
    };
    // What is wrong with them is told when they are read.
    let _ = include::join(&mut root, &mut sources, &mut budget, &env);
    let _ = expand::expand(&mut root, &env);
    let mut files: Vec<_> = sources.names().map(PathBuf::from).collect();
    let base = file.parent().unwrap_or(Path::new(""));
    named_files(&root, "", base, ConfigPart::Top, &mut files);
    files
}

/// In which part of the configuration a key stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConfigPart {
    Top,
    /// Where `file` is an answer of ours; elsewhere it has a watch of its own.
    Routes,
    Other,
}

impl ConfigPart {
    fn below(self, key: &str) -> Self {
        match self {
            Self::Top if key == "routes" => Self::Routes,
            Self::Top => Self::Other,
            part => part,
        }
    }
}

/// The files that the keys of the section `parent` and below name.
fn named_files(
    node: &tree::YamlNode,
    parent: &str,
    base: &Path,
    part: ConfigPart,
    files: &mut Vec<PathBuf>,
) {
    match &node.body {
        tree::YamlValue::Map(entries) => {
            for (key, node) in entries {
                let is_file = key.name.ends_with("_file") && key.name != "targets_file";
                let is_of_auth =
                    matches!((parent, &*key.name), ("auth", "basic") | ("jwt", "keys"));
                let is_file = is_file || (key.name == "file" && part == ConfigPart::Routes);
                match &node.body {
                    tree::YamlValue::Scalar(scalar) if is_file || is_of_auth => {
                        files.push(base.join(&scalar.text));
                    }
                    _ => named_files(node, &key.name, base, part.below(&key.name), files),
                }
            }
        }
        tree::YamlValue::List(items) => {
            items
                .iter()
                .for_each(|item| named_files(item, parent, base, part, files));
        }
        tree::YamlValue::Scalar(_) => {}
    }
}

/// The joined tree of all files of a configuration.
struct ConfigDocument {
    sources: ConfigSources,
    root: tree::YamlNode,
    /// What is risky about the files.
    warnings: Vec<ConfigFinding>,
}

impl ConfigDocument {
    /// Reads the main file's text, and the files that it includes.
    fn read(
        text: &str,
        file: &str,
        env: expand::VariableLookup<'_>,
    ) -> Result<Self, ConfigProblems> {
        let text = without_mark(text);
        let mut sources = ConfigSources::new(file, text);
        let one = |finding: ConfigFinding, root: Option<&tree::YamlNode>| {
            ConfigProblems::one(finding.locate(&ConfigSources::new(file, text), root))
        };
        if text.len() > MAX_BYTES {
            return Err(one(ConfigFinding::file(TOO_LARGE), None));
        }
        let mut budget = parser::AliasBudget::default();
        let mut root = parser::parse_source(text, sources::MAIN, &mut budget)
            .map_err(|finding| one(finding, None))?;
        shape(&root).map_err(|finding| one(finding, Some(&root)))?;
        let found = include::join(&mut root, &mut sources, &mut budget, env);
        let document = Self {
            sources,
            root,
            warnings: found.warnings,
        };
        document.refuse(found.errors)?;
        Ok(document)
    }

    /// Replaces variables.
    fn expand(&mut self, env: expand::VariableLookup<'_>) -> Result<(), ConfigProblems> {
        let findings = expand::expand(&mut self.root, env);
        self.refuse(findings)
    }

    /// The typed configuration, which is not checked yet.
    fn typed(&self) -> Result<GatewayConfig, ConfigProblems> {
        let typed = de::read(&self.root);
        typed
            .map_err(|finding| ConfigProblems::one(finding.locate(&self.sources, Some(&self.root))))
    }

    /// The typed configuration with its secrets, checked; the files that it names are relative to the
    /// folder of the main file.
    fn checked(&self, mut config: GatewayConfig) -> Result<GatewayConfig, ConfigProblems> {
        let main = Path::new(self.sources.name(sources::MAIN));
        let base = main.parent().unwrap_or(Path::new(""));
        let mut findings = secret::read_files(&mut config, base);
        findings.extend(answer_files::read(&mut config, base));
        for file in config.files() {
            *file = base.join(&*file);
        }
        findings.extend(check::check(&config));
        self.refuse(findings)?;
        let risks = self.warnings.iter().cloned();
        let risks = risks.chain(warnings::warnings(&config)).collect();
        config.warnings = self.located(risks);
        config.files_read = self.sources.names().map(PathBuf::from).collect();
        Ok(config)
    }

    /// An error of all of these, if there are any.
    fn refuse(&self, findings: Vec<ConfigFinding>) -> Result<(), ConfigProblems> {
        ConfigProblems::new(self.located(findings)).map_or(Ok(()), Err)
    }

    fn located(&self, findings: Vec<ConfigFinding>) -> Vec<ConfigProblem> {
        located(findings, &self.sources, &self.root)
    }
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

/// Shows findings where they stand in the file.
fn located(
    findings: Vec<ConfigFinding>,
    sources: &ConfigSources,
    root: &tree::YamlNode,
) -> Vec<ConfigProblem> {
    let more = findings.len().saturating_sub(MOST_SHOWN);
    let more = (more > 0).then(|| ConfigFinding::file(format!("{more} more are not shown")));
    let shown = findings.into_iter().take(MOST_SHOWN).chain(more);
    shown.map(|f| f.locate(sources, Some(root))).collect()
}

/// The most problems, or warnings, of one file that are listed one by one.
const MOST_SHOWN: usize = 100;

const TOO_LARGE: &str = "larger than 1 MiB; expected a configuration file";
const NOT_UTF8: &str = "not UTF-8; expected a text file in UTF-8";

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

/// The position of a byte in a text whose bytes before it were valid.
fn place_of_byte(text: &str, byte: usize) -> tree::YamlPosition {
    let before = text.get(..byte).unwrap_or_default();
    let last = before.rsplit('\n').next().unwrap_or_default();
    tree::YamlPosition {
        source: sources::MAIN,
        line: before.matches('\n').count() + 1,
        column: last.chars().count() + 1,
        width: 1,
    }
}
