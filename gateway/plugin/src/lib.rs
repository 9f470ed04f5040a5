//! Sandboxed WASM plugins: they derive cache keys (`key`), load what is missing (`load`),
//! and look at requests and responses. The contract is WIT, in `plugin-sdk/wit`.
//!
//! [`PluginSet::load`] (`set`) compiles and checks plugins; [`Plugin::key`] and the methods beside it
//! (`plugin`) call them. A plugin returns a decision and does nothing else: `proxy` acts on it. Inside:
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
mod load_request;
mod local;
mod log;
mod log_text;
mod manifest;
mod memo;
mod meter;
mod metrics;
mod names;
mod outcome;
mod plugin;
mod reads;
mod redact;
mod seen;
mod set;
mod setup;
mod swap;
#[cfg(test)]
mod tests;
mod version;
mod wasi;
mod wasi_http;
mod words;

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
pub use load_request::LoadRequest;
pub use manifest::{HeaderNeed, KeyNeeds, Manifest, QueryNeed};
pub use metrics::PluginFamilies;
pub use names::NamePattern;
pub use plugin::{Plugin, PluginStatus};
pub use reads::DeclaredReads;
pub use seen::{RequestReads, SeenField};
pub use set::{PluginHost, PluginHostOptions, PluginSet};
pub use swap::{GaveWay, PluginReloadOutcome};
