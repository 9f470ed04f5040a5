//! Sandboxed WASM plugins: they derive cache keys (`key`), load what is missing (`load`),
//! and look at requests and responses. The contract is WIT, in `plugin-sdk/wit`.
//!
//! [`PluginSet::load`] compiles and checks plugins; [`Plugin::key`] and the methods beside it call
//! them. A plugin returns a decision and does nothing else: `proxy` acts on it. Inside:
//! - loading: `setup`, `artifact` (file to code), `bounds` (limits of a file's structure),
//!   `compile` (in a process of its own), `kept_code`, `contract` (imports and exports), `engine`
//!   (wasmtime, threads), `version`, `swap` (replaces one version by another), `health` (quarantine
//!   after failures), `calls` and `redact` (failed calls, for people);
//! - running: `guest` (one instance), `local` (a thread's instances), `meter` and `outcome`
//!   (limits, and what a failed call means);
//! - hooks: `hook` (their names), `decision` (their results), `key` with `inputs` and `memo`,
//!   `load`, `heads` (requests and responses), `reads` (what these hooks see), `seen` (what a
//!   loader saw of a request), `check` (whether a guest's answer is allowed);
//! - for the plugin kit: `inspect` (what a file has and needs), `words` (manifests as text);
//! - imports: `log`, `fetch`, `kv`, `impure` (clock and randomness), `wasi`; `wasi_http` for
//!   components that export `wasi:http`.
//!
//! Invariant: every guest call has a deadline, a memory limit, and only the imports that the YAML
//! grants; a failed call affects only that call and its instance.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// The names under which the modules of this crate know the crates below.
use lamina_base::{telemetry, units};
use lamina_http as http;

mod artifact;
mod bindings;
mod bounds;
mod calls;
mod check;
pub mod compile;
pub mod config;
mod contract;
mod decision;
mod declared;
mod engine;
mod error;
mod fetch;
mod guest;
mod heads;
mod health;
mod hook;
mod impure;
mod inputs;
mod inspect;
mod kept_code;
mod key;
mod kv;
mod load;
mod local;
mod log;
mod manifest;
mod memo;
mod meter;
mod metrics;
mod names;
mod outcome;
mod reads;
mod redact;
mod seen;
mod setup;
mod swap;
#[cfg(test)]
mod tests;
mod version;
mod wasi;
mod wasi_http;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use ::http::header::COOKIE;
use ::http::request::Parts;
use ::http::{HeaderMap, StatusCode};
use futures_util::future::join_all;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::task::AbortOnDropHandle;

use meter::TotalMemory;
use setup::{PluginContext, VersionFactory};
use swap::{PluginVersions, PreparedPlugin, ReloadInitiator};
use version::PluginVersion;

use crate::units::ByteSize;

pub use bindings::types;
pub use bounds::{CodeBound, OverLimit};
pub use calls::FailedCall;
pub use compile::Compiler;
pub use contract::PACKAGE as CONTRACT;
pub use decision::{
    HeaderChange, KeyDecision, LoadDecision, LoadedResponse, RequestDecision, ResponseChange,
};
pub use declared::KeyRules;
pub use error::{CallError, CallErrorKind, LoadError, PluginFault};
pub use fetch::{FetchCall, FetchError, UpstreamFetcher};
pub use heads::HookRequest;
pub use health::QuarantineStatus;
pub use hook::Hook;
pub use inspect::{ComponentSummary, LiveInstances, RequiredGrants, inspect};
pub use load::LoadRequest;
pub use manifest::{HeaderNeed, KeyNeeds, Manifest, QueryNeed};
pub use metrics::PluginFamilies;
pub use names::NamePattern;
pub use reads::DeclaredReads;
pub use seen::{RequestReads, SeenField};
pub use swap::{GaveWay, PluginReloadOutcome};

/// The plugins of one configuration.
#[derive(Default)]
pub struct PluginSet {
    by_name: BTreeMap<String, Arc<Plugin>>,
}

/// What plugins need from the program around them.
pub struct PluginHostOptions<'a> {
    /// The folder that `file` is relative to: the folder of the YAML file.
    pub base: PathBuf,
    /// Where compiled code is kept; made when it is missing. It must belong to the process's user,
    /// with mode 0700; otherwise its content is ignored.
    pub cache_dir: Option<PathBuf>,
    /// Where plugins are compiled.
    pub compiler: Compiler,
    /// Sends the requests that plugins make.
    pub fetch: UpstreamFetcher,
    /// The URLs of the targets of each upstream.
    pub upstreams: BTreeMap<String, Vec<String>>,
    pub host: &'a PluginHost,
    /// The plugins of the configuration before. Those whose settings have not changed are used
    /// further, with all that they know.
    pub before: Option<&'a PluginSet>,
}

/// What the plugins of all configurations share.
pub struct PluginHost {
    families: PluginFamilies,
    total_memory: Arc<TotalMemory>,
}

/// One plugin, whose versions may change while it is called.
pub struct Plugin {
    versions: Arc<PluginVersions>,
    settings: PluginSettings,
    /// Looks for new files, once it serves. It ends with the plugin.
    watching: OnceLock<AbortOnDropHandle<()>>,
}

/// All that a plugin depends on, but for its file's content, as text.
#[derive(PartialEq, Eq)]
struct PluginSettings(String);

impl PluginSettings {
    fn of(config: &config::PluginConfig, options: &PluginHostOptions<'_>) -> Self {
        let granted = config.fetch.iter();
        let targets: Vec<_> = granted.map(|name| options.upstreams.get(name)).collect();
        let compiling = options.compiler.limits();
        let settings = serde_json::json!([config, targets, compiling, options.base]);
        Self(settings.to_string())
    }
}

impl PluginHost {
    /// `max_total_memory` is for the linear memory of all instances together.
    ///
    /// # Errors
    /// When the registry has the metrics of plugins already.
    pub fn new(registry: &Registry, max_total_memory: ByteSize) -> prometheus::Result<Self> {
        Ok(Self {
            families: PluginFamilies::new(registry)?,
            total_memory: Arc::new(TotalMemory::new(max_total_memory)),
        })
    }

    /// Sets another limit for the linear memory of all instances together.
    pub fn limit_total_memory(&self, max_total_memory: ByteSize) {
        self.total_memory.set_limit(max_total_memory);
    }
}

/// The state of a plugin, for people.
#[derive(Clone, Debug)]
pub struct PluginStatus {
    /// Its name in the YAML.
    pub plugin: String,
    /// The number of the version that serves; it grows with each version that is loaded.
    pub number: u64,
    /// The name and version that the plugin gives itself.
    pub name: String,
    pub version: String,
    /// SHA-256 of its file, in hex.
    pub sha256: String,
    /// When that version was loaded.
    pub made: SystemTime,
    pub hooks: Vec<&'static str>,
    /// Instances that exist, of all versions.
    pub instances: i64,
    /// Keys that were different when they were derived again, of all versions.
    pub impure: u64,
    /// Present while it is set aside.
    pub aside: Option<QuarantineStatus>,
    /// The version that failed, while the version before it serves again.
    pub gave_way: Option<GaveWay>,
}

impl PluginSet {
    /// Reads, compiles, checks and starts every plugin, in parallel, but for those that go on. If one
    /// fails, the whole call fails with its name and the reason, and nothing has changed. What is
    /// loaded serves from [`begin_serving`](Self::begin_serving) on.
    pub async fn load(
        configs: &BTreeMap<String, config::PluginConfig>,
        options: PluginHostOptions<'_>,
    ) -> Result<Self, LoadError> {
        let mut by_name = Self::going_on(configs, &options).await?;
        let is_new = |name: &String| !by_name.contains_key(name);
        let new = configs.iter().filter(|(name, _)| is_new(name));
        let new: BTreeMap<_, _> = new
            .map(|(name, config)| (name.clone(), config.clone()))
            .collect();
        by_name.extend(Self::made(&new, options).await?);
        Ok(Self { by_name })
    }

    /// The plugins of the configuration before that go on.
    async fn going_on(
        configs: &BTreeMap<String, config::PluginConfig>,
        options: &PluginHostOptions<'_>,
    ) -> Result<BTreeMap<String, Arc<Plugin>>, LoadError> {
        let Some(before) = options.before else {
            return Ok(BTreeMap::new());
        };
        let same = configs.iter().filter_map(|(name, config)| {
            let plugin = before.by_name.get(name)?;
            let same = plugin.settings == PluginSettings::of(config, options);
            same.then(|| Arc::clone(plugin))
        });
        let prepare = async |plugin: Arc<Plugin>| (plugin.versions.prepare().await, plugin);
        let mut going_on = BTreeMap::new();
        for (prepared, plugin) in join_all(same.map(prepare)).await {
            let name = plugin.name().to_owned();
            match prepared {
                Ok(PreparedPlugin::GoesOn) => drop(going_on.insert(name, plugin)),
                Ok(PreparedPlugin::ApartFromThis) => {}
                Err(cause) => {
                    return Err(LoadError {
                        plugin: name,
                        cause,
                    });
                }
            }
        }
        Ok(going_on)
    }

    async fn made(
        configs: &BTreeMap<String, config::PluginConfig>,
        options: PluginHostOptions<'_>,
    ) -> Result<BTreeMap<String, Arc<Plugin>>, LoadError> {
        let general = |cause| LoadError {
            plugin: configs.keys().cloned().collect::<Vec<_>>().join("`, `"),
            cause,
        };
        if configs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let settings = configs
            .values()
            .map(|config| PluginSettings::of(config, &options));
        let settings: Vec<_> = settings.collect();
        let engine =
            engine::start(configs).map_err(|e| general(PluginFault::Engine(format!("{e:#}"))))?;
        let workshop = Arc::new(VersionFactory {
            engine,
            families: options.host.families.clone(),
            base: options.base,
            cache_dir: options.cache_dir,
            compiler: options.compiler,
            total_memory: Arc::clone(&options.host.total_memory),
            fetch: options.fetch,
            upstreams: options.upstreams,
            threads: Mutex::default(),
        });
        let make = async |(name, config): (&String, &config::PluginConfig)| {
            let (job, workshop) = (PluginContext::new(name, config), Arc::clone(&workshop));
            let seen = job.look(&workshop);
            let wasm = workshop.read(&job).await?;
            let first = workshop.make(&job, wasm).await?;
            Ok(PluginVersions::new(job, workshop, first, seen))
        };
        let making = join_all(configs.iter().map(make)).await;
        let mut by_name = BTreeMap::new();
        for ((made, name), settings) in making.into_iter().zip(configs.keys()).zip(settings) {
            let versions = made.map_err(|cause| LoadError {
                plugin: name.clone(),
                cause,
            })?;
            let plugin = Plugin {
                versions: Arc::new(versions),
                settings,
                watching: OnceLock::new(),
            };
            by_name.insert(name.clone(), Arc::new(plugin));
        }
        Ok(by_name)
    }

    /// Lets the plugins serve as they were prepared, and reloads those whose file is replaced from
    /// now on, where the YAML allows it (`watch`).
    pub fn begin_serving(&self) {
        for plugin in self.iter() {
            plugin.versions.commit();
            if plugin.versions.job.config.watch {
                plugin.watching.get_or_init(|| {
                    let versions = Arc::clone(&plugin.versions);
                    AbortOnDropHandle::new(tokio::spawn(versions.watch()))
                });
            }
        }
    }

    /// Whether a plugin has a version of another file that serves only from the next configuration
    /// on.
    pub fn has_prepared_version(&self) -> bool {
        self.iter()
            .any(|plugin| plugin.versions.has_prepared_version())
    }

    /// Forgets what was prepared for a configuration that does not come to serve.
    pub fn give_up_prepared(&self) {
        self.iter()
            .for_each(|plugin| plugin.versions.give_up_prepared());
    }

    /// The plugin of this name in the YAML.
    pub fn get(&self, name: &str) -> Option<Arc<Plugin>> {
        self.by_name.get(name).cloned()
    }

    /// All plugins, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.by_name.values()
    }
}

impl Plugin {
    /// Its name in the YAML.
    pub fn name(&self) -> &str {
        &self.versions.job.name
    }

    /// What the version that serves says about itself.
    pub fn manifest(&self) -> Manifest {
        self.versions.current.load().manifest.clone()
    }

    /// Whether the version that serves has this hook, by a call or by declaration.
    pub fn has(&self, hook: Hook) -> bool {
        self.versions.current.load().has(hook)
    }

    /// Notes that a route uses this hook: no version without it will serve.
    ///
    /// # Errors
    /// When the version that serves does not have it.
    pub fn require(&self, hook: Hook) -> Result<(), LoadError> {
        self.versions.require(hook)
    }

    /// The key of a request, derived on the calling thread: from its memory, natively, or by a call
    /// that takes at most `key_timeout`. `host` is the host that the client named, in lower case,
    /// without a default port.
    ///
    /// # Errors
    /// When the call fails, or the plugin is set aside.
    pub fn key(&self, request: &Parts, host: &str) -> Result<Arc<KeyDecision>, CallError> {
        let version = self.versions.current.load();
        if let Some(rules) = &version.manifest.declarative {
            return Ok(Arc::new(rules.derive(request, host)));
        }
        match &version.keys {
            Some(keys) => self.judged(&version, keys.derive(request, host)),
            None => Ok(Arc::new(KeyDecision::Default)),
        }
    }

    /// The same by the version that the next configuration brings, which does not serve yet.
    ///
    /// # Errors
    /// See [`key`](Self::key).
    pub fn key_of_next_version(
        &self,
        request: &Parts,
        host: &str,
    ) -> Result<Arc<KeyDecision>, CallError> {
        let version = self.versions.next_version();
        match (&version.manifest.declarative, &version.keys) {
            (Some(rules), _) => Ok(Arc::new(rules.derive(request, host))),
            (None, Some(keys)) => keys.derive(request, host),
            (None, None) => Ok(Arc::new(KeyDecision::Default)),
        }
    }

    /// Whether the next configuration brings another version.
    pub fn has_next_version(&self) -> bool {
        self.versions.has_prepared_version()
    }

    /// Decides what happens with a request, on the calling thread within `hook_timeout`.
    ///
    /// # Errors
    /// See [`key`](Self::key).
    pub fn on_request(&self, head: HookRequest<'_>) -> Result<RequestDecision, CallError> {
        let version = self.versions.current.load();
        match &version.heads {
            Some(heads) => self.judged(&version, heads.on_request(head)),
            None => Ok(RequestDecision::Next),
        }
    }

    /// Decides how the response to `head` is changed, on the calling thread within `hook_timeout`.
    ///
    /// # Errors
    /// See [`key`](Self::key).
    pub fn on_response(
        &self,
        head: HookRequest<'_>,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Option<ResponseChange>, CallError> {
        let version = self.versions.current.load();
        match &version.heads {
            Some(heads) => self.judged(&version, heads.on_response(head, status, headers)),
            None => Ok(None),
        }
    }

    /// The part of the query that the derived key contains, as far as the manifest says. None: the
    /// key contains nothing of it.
    pub fn keyed_query(&self, query: &str) -> Option<String> {
        let version = self.versions.current.load();
        let pieces = match &version.manifest.declarative {
            Some(rules) => rules.pieces(query),
            None => version.manifest.needs.pieces(query),
        };
        (!pieces.is_empty()).then(|| pieces.join("&"))
    }

    /// Whether a guest derives the keys from the whole query: then it is not known what they
    /// contain of it.
    pub fn keys_by_code(&self) -> bool {
        let version = self.versions.current.load();
        let manifest = &version.manifest;
        manifest.declarative.is_none() && manifest.needs.query == QueryNeed::Whole
    }

    /// Whether the derived key depends on this.
    pub fn keys_by(&self, field: &SeenField) -> bool {
        let version = self.versions.current.load();
        match &version.manifest.declarative {
            Some(rules) => rules.covers(field),
            None => version.manifest.needs.covers(field),
        }
    }

    /// Whether hooks other than `key` see this part of a request, according to the manifest.
    pub fn reads(&self, field: &SeenField) -> bool {
        let version = self.versions.current.load();
        let reads = &version.manifest.reads;
        match field {
            SeenField::Header(name) => reads.reads_header(name),
            SeenField::Cookie(name) => reads.reads_header(&COOKIE) || reads.reads_cookie(name),
            SeenField::Parameter(_) => true,
        }
    }

    /// Whether its decisions may depend on more than the URL and the client's address: on headers
    /// that it reads, on its `kv` store, on the time, on randomness.
    pub fn sees_more_than_urls(&self) -> bool {
        let config = &self.versions.job.config;
        let reads = &self.versions.current.load().manifest.reads;
        !config.grant.is_empty() || config.wasi == config::WasiAccess::Minimal || !reads.is_empty()
    }

    /// What its loader would see of a request, as far as the manifest says.
    pub fn would_see(&self, headers: &HeaderMap, query: Option<&str>) -> RequestReads {
        let version = self.versions.current.load();
        match version
            .loader
            .as_ref()
            .filter(|loader| loader.is_declared())
        {
            Some(_) => RequestReads::declared(&version.manifest.reads, headers, query),
            None => RequestReads::default(),
        }
    }

    /// Whether its loader, if it has one, declares what it reads of a request.
    pub fn declares_reads(&self) -> bool {
        let version = self.versions.current.load();
        version
            .loader
            .as_ref()
            .is_none_or(|loader| loader.is_declared())
    }

    /// Has the guest answer a request. Returns also what the guest saw of the request. Dropping the
    /// future ends the call.
    ///
    /// # Errors
    /// See [`key`](Self::key); also when too many calls are running.
    pub async fn load(
        &self,
        request: LoadRequest,
    ) -> Result<(LoadDecision, RequestReads), CallError> {
        let version = self.versions.current.load_full();
        match &version.loader {
            Some(loader) => self.judged(&version, loader.load(request).await),
            None => Err(CallError::invalid("there is no `load` hook")),
        }
    }

    /// What its response hook sees of a request, according to the manifest.
    pub fn response_sees(&self, headers: &HeaderMap, query: Option<&str>) -> RequestReads {
        let version = self.versions.current.load();
        RequestReads::declared(&version.manifest.reads, headers, query)
    }

    fn judged<T>(
        &self,
        version: &Arc<PluginVersion>,
        answer: Result<T, CallError>,
    ) -> Result<T, CallError> {
        if answer.is_err() {
            self.versions.fall_back(version);
        }
        answer
    }

    /// Loads what the file holds now because an operator asked for it: also a version that failed
    /// and was replaced, and also while the plugin is set aside.
    ///
    /// # Errors
    /// When the file's version can't serve; the present version then goes on serving.
    pub async fn reload(&self) -> Result<PluginReloadOutcome, LoadError> {
        self.versions.reload(ReloadInitiator::Operator).await
    }

    /// Sets the serving version aside until [`resume`](Self::resume), or until
    /// [`reload`](Self::reload) loads another one. A version that a new file brings is set aside as
    /// well.
    pub fn set_aside(&self) {
        self.versions.set_aside();
    }

    /// Lets the serving version be called again.
    pub fn resume(&self) {
        self.versions.current.load().blueprint.health.resume();
    }

    /// The last calls that failed, the newest first.
    pub fn failed_calls(&self) -> Vec<FailedCall> {
        self.versions.job.calls.all()
    }

    /// The `config` of the plugin in the YAML, without secrets.
    pub fn shown_config(&self) -> serde_json::Value {
        redact::config(&self.versions.job.config.config)
    }

    /// The state of the plugin.
    pub fn report(&self) -> PluginStatus {
        let version = self.versions.current.load();
        let hooks = Hook::ALL.into_iter().filter(|hook| version.has(*hook));
        PluginStatus {
            plugin: self.name().to_owned(),
            number: version.identity().number,
            name: version.manifest.name.clone(),
            version: version.manifest.version.clone(),
            sha256: version.identity().sha256.to_string(),
            made: version.made,
            hooks: hooks.map(Hook::as_str).collect(),
            instances: version.blueprint.metrics.instances.get(),
            impure: version.blueprint.metrics.impure.get(),
            aside: version.blueprint.health.aside(Instant::now()),
            gave_way: self.versions.gave_way(),
        }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
