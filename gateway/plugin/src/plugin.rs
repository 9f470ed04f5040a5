//! One plugin, as the proxy calls it: [`Plugin`].

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use ::http::header::COOKIE;
use ::http::request::Parts;
use ::http::{HeaderMap, StatusCode};
use tokio_util::task::AbortOnDropHandle;

use crate::calls::FailedCall;
use crate::decision::{KeyDecision, LoadDecision, RequestDecision, ResponseChange};
use crate::error::{CallError, LoadError};
use crate::heads::HookRequest;
use crate::health::QuarantineStatus;
use crate::hook::Hook;
use crate::load_request::LoadRequest;
use crate::manifest::{Manifest, QueryNeed};
use crate::seen::{RequestReads, SeenField};
use crate::set::PluginSettings;
use crate::swap::{GaveWay, PluginReloadOutcome, PluginVersions, ReloadInitiator};
use crate::version::PluginVersion;
use crate::{config, redact};

/// One plugin, whose versions may change while it is called.
pub struct Plugin {
    pub(crate) versions: Arc<PluginVersions>,
    pub(crate) settings: PluginSettings,
    /// Looks for new files, once it serves. It ends with the plugin.
    pub(crate) watching: OnceLock<AbortOnDropHandle<()>>,
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
