//! What YAML says about plugins.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Duration};

/// One plugin.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// The `.wasm` file: a component, or a core module with an embedded component type. Relative to the YAML file.
    pub file: PathBuf,
    /// Handed to the plugin's `manifest` as JSON text.
    #[serde(default = "empty_map")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub config: serde_json::Value,
    /// Names of the upstreams that it may fetch from.
    #[serde(default)]
    pub fetch: Vec<String>,
    /// What one call and one instance may take.
    #[serde(default)]
    pub limits: Limits,
    /// What happens to the request when a call fails.
    #[serde(default)]
    pub on_error: OnError,
}

/// What one call and one instance may take.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Time for one `key` call.
    pub key_timeout: Duration,
    /// Time for one `load` call, its fetches included.
    pub load_timeout: Duration,
    /// Linear memory of one instance.
    pub max_memory: ByteSize,
    /// Stack of the guest, for the whole process the largest of all plugins counts.
    pub max_stack: ByteSize,
    /// Bytes of a response that a loader returns or fetches.
    pub max_body: ByteSize,
    /// Calls after which an instance is thrown away.
    pub max_requests: u64,
    /// Age at which an instance is thrown away.
    pub max_age: Duration,
    /// Linear memory above which an instance is thrown away after a call.
    pub recycle_memory: ByteSize,
    /// Loader calls at once; above it 503 or stale.
    pub max_concurrent: usize,
    /// Fetches in one `load` call.
    pub max_fetches: usize,
    /// Keys that each worker thread remembers, so that equal inputs cost no call. 0 switches it off.
    pub memo_entries: u64,
}

/// What happens to the request when a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnError {
    /// After a failed `key`.
    pub key: KeyError,
    /// After a failed `load`.
    pub loader: LoaderError,
}

/// After a failed `key`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyError {
    /// Go on without the cache: never wrong, costs a load.
    #[default]
    Bypass,
    /// Go on with the route's native key.
    DefaultKey,
    /// Answer 500.
    Refuse,
}

/// After a failed `load`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoaderError {
    /// The stale copy if there is one, else 502.
    #[default]
    StaleThenError,
    /// A plain request to the route's upstream.
    Origin,
    /// Always 502.
    Error,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_timeout: Duration::millis(5),
            load_timeout: Duration::secs(10),
            max_memory: ByteSize::mib(64),
            max_stack: ByteSize::kib(512),
            max_body: ByteSize::mib(8),
            max_requests: 100_000,
            max_age: Duration::secs(3_600),
            recycle_memory: ByteSize::mib(32),
            max_concurrent: 256,
            max_fetches: 32,
            memo_entries: 65_536,
        }
    }
}

fn empty_map() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}
