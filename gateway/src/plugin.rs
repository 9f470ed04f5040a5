//! Sandboxed WASM plugins: they derive cache keys (`key`) and load what is missing
//! (`load`). The contract is WIT, in `plugin-sdk/wit`.
//!
//! [`Plugins::load`] compiles and checks; [`Plugin::key`] and [`Plugin::load`] call.
//! A plugin returns a decision and does nothing else: `proxy` acts on it. Inside:
//! `setup`, `artifact` (file to code), `contract` (imports and exports), `engine`
//! (wasmtime, threads), `guest` (one instance), `meter` and `outcome` (its limits, and
//! what a failed call means), `inputs`, `memo` and `key` (the key hook), `load` and
//! `fetch` (the load hook), `check` (what guests answer).
//!
//! Invariant: every guest call has a deadline, a memory cap, and only the imports that
//! the YAML grants; a failed call costs that one call and its instance.

mod artifact;
mod bindings;
mod check;
pub mod config;
mod contract;
mod declared;
mod engine;
mod error;
mod fetch;
mod guest;
mod inputs;
mod key;
mod load;
mod log;
mod manifest;
mod memo;
mod meter;
mod metrics;
mod names;
mod outcome;
mod setup;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};

pub use bindings::types;
pub use declared::KeyRules;
pub use error::{CallError, CallErrorKind, Cause, LoadError};
pub use fetch::{Fetch, FetchCall, FetchError};
pub use load::LoadRequest;
pub use manifest::{HeaderNeed, KeyNeeds, Manifest, QueryNeed};
pub use names::NamePattern;

/// The plugins of one configuration.
#[derive(Default)]
pub struct Plugins {
    by_name: BTreeMap<String, Arc<Plugin>>,
}

/// What plugins need of the program around them.
pub struct Options<'a> {
    /// The folder that `file` is relative to: that of the YAML.
    pub base: PathBuf,
    /// Where compiled code is kept; made when it is missing. It must be the process's
    /// own, with mode 0700, else what lies there is ignored.
    pub cache_dir: Option<PathBuf>,
    /// Sends a plugin's requests.
    pub fetch: Fetch,
    /// Gets the plugins' metrics, in the place of those of an earlier set.
    pub registry: &'a prometheus::Registry,
}

/// A hook of the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    Key,
    Load,
}

/// One plugin, ready to be called.
pub struct Plugin {
    name: Arc<str>,
    manifest: Manifest,
    keys: Option<Arc<key::Keys>>,
    loader: Option<Arc<load::Loader>>,
}

/// What `key` decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyDecision {
    /// The route's own key.
    Default,
    /// This key.
    Key {
        /// The URL that stands for the request, as `host/path?query`.
        text: String,
        /// What separates variants of that URL; a purge of the URL takes all.
        parts: Vec<String>,
        /// Tags for what is stored.
        tags: Vec<String>,
    },
    /// Go past the cache.
    Bypass {
        /// For the log.
        reason: String,
    },
    /// Answer with this status, 400 to 599.
    Refuse { status: StatusCode },
}

/// What `load` decided.
#[derive(Debug)]
pub enum LoadDecision {
    /// The response.
    Response(LoadedResponse),
    /// The route's upstream is to answer this request; its URI is absolute.
    Pass(Request<Bytes>),
    /// There is no such thing, and no stale copy of it any more.
    Absent,
    /// The stale copy if there is one, else a failure.
    Stale { reason: String },
    /// A failure. The reason is for the log, never for a client.
    Error { reason: String },
}

/// A response made by a loader.
#[derive(Debug)]
pub struct LoadedResponse {
    /// 200 to 599.
    pub status: StatusCode,
    /// Without headers of the connection; `Content-Length` is true.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Time to live; counts more than `Cache-Control`.
    pub ttl: Option<Duration>,
    /// Tags besides those in the headers.
    pub tags: Vec<String>,
}

impl Plugins {
    /// Reads, compiles, checks and starts every plugin. One that is bad fails all,
    /// with its name and the reason, and leaves nothing behind.
    pub async fn load(
        configs: &BTreeMap<String, config::Plugin>,
        options: Options<'_>,
    ) -> Result<Self, LoadError> {
        setup::load(configs, options)
            .await
            .map(|by_name| Self { by_name })
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
        &self.name
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether it derives keys, by a call or by declaration.
    pub fn exports_key(&self) -> bool {
        self.keys.is_some() || self.manifest.declarative.is_some()
    }

    /// Whether it loads.
    pub fn exports_load(&self) -> bool {
        self.loader.is_some()
    }

    /// Fails when a route uses it for a hook that it does not have.
    pub fn require(&self, hook: Hook) -> Result<(), LoadError> {
        let has = match hook {
            Hook::Key => self.exports_key(),
            Hook::Load => self.exports_load(),
        };
        match has {
            true => Ok(()),
            false => Err(LoadError {
                plugin: self.name.to_string(),
                cause: Cause::MissingHook(hook),
            }),
        }
    }

    /// The key of a request, derived on the calling thread: from its memory, natively,
    /// or by a call that takes `key_timeout` at most. `host` is the client's, in lower
    /// case, without a default port.
    pub fn key(&self, request: &Parts, host: &str) -> Result<Arc<KeyDecision>, CallError> {
        if let Some(rules) = &self.manifest.declarative {
            return Ok(Arc::new(rules.derive(request, host)));
        }
        match &self.keys {
            Some(keys) => keys.derive(request, host),
            None => Ok(Arc::new(KeyDecision::Default)),
        }
    }

    /// Has the guest answer a request. Dropping the future ends the call.
    pub async fn load(&self, request: LoadRequest) -> Result<LoadDecision, CallError> {
        match &self.loader {
            Some(loader) => loader.load(request).await,
            None => Err(CallError::Invalid {
                what: "there is no `load` hook".into(),
            }),
        }
    }
}

impl Hook {
    /// Its name in the contract, in the YAML and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Load => "load",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}
