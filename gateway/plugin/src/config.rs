//! The YAML configuration of plugins.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::{ByteSize, ConfigDuration};

/// The keys next to the names of plugins; no plugin can have one of them as its name.
const COMPILE: &str = "compile";
const MAX_TOTAL_MEMORY: &str = "max_total_memory";
/// The default limit of the linear memory of all instances of all plugins together.
pub const DEFAULT_TOTAL_MEMORY: ByteSize = ByteSize::mib(2_048);

/// Plugins by name, and the settings for all of them.
#[derive(Clone, Debug)]
pub struct PluginsConfig {
    /// The limits of compiling a plugin.
    pub compile: CompileConfig,
    /// The most linear memory of all instances of all plugins together. A call that needs more is
    /// not made.
    pub max_total_memory: ByteSize,
    pub by_name: BTreeMap<String, PluginConfig>,
}

/// The limits of compiling one plugin. It is compiled in a process of its own, which is ended when
/// it exceeds them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompileConfig {
    /// The most memory of the compiling process.
    pub memory: ByteSize,
    /// The most processor time of that process, in whole seconds; by the clock it may take ten
    /// times as long.
    pub time: ConfigDuration,
    /// The most bytes of compiled code that are kept for the next start; the least recently used
    /// code is removed first.
    pub kept_code: ByteSize,
}

/// One plugin.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginConfig {
    /// The `.wasm` file: a component, or a core module with an embedded component type. Relative to
    /// the YAML file.
    pub file: PathBuf,
    /// Passed to the plugin's `manifest` as JSON text.
    #[serde(default = "empty_map")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub config: serde_json::Value,
    /// The names of the upstreams from which it may fetch.
    #[serde(default)]
    pub fetch: Vec<String>,
    /// Further imports that it may use.
    #[serde(default)]
    pub grant: Vec<Capability>,
    /// Whether it may import WASI.
    #[serde(default)]
    pub wasi: WasiAccess,
    /// Whether an instance serves more than one call.
    #[serde(default)]
    pub isolation: Isolation,
    /// Whether a new file in place of the old one is loaded automatically.
    #[serde(default = "yes")]
    pub watch: bool,
    /// The limits of one call and of one instance.
    #[serde(default)]
    pub limits: PluginLimits,
    /// When the plugin is set aside.
    #[serde(default)]
    pub quarantine: Quarantine,
    /// What happens to the request when a call fails.
    #[serde(default)]
    pub on_error: OnError,
}

/// An import that YAML grants by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// A small store for the plugin itself, in memory.
    Kv,
    /// The time.
    Clock,
    /// Random bytes.
    Random,
}

/// Whether a plugin may import WASI (0.2), as the runtimes of some languages require.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WasiAccess {
    /// It may not.
    #[default]
    Off,
    /// Clocks and randomness; what the plugin prints goes to the log. No files, sockets,
    /// environment or arguments: these calls exist and fail.
    Minimal,
}

/// Whether an instance serves more than one call.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Instances are reused until a limit says that they should be replaced (see `limits`), or a
    /// call fails.
    #[default]
    Reuse,
    /// Each call gets a fresh instance.
    PerRequest,
}

/// When a plugin is set aside: from then on its calls fail at once, as `on_error` says, until a
/// call that is let through as a probe succeeds. If an earlier version served well, that version
/// serves again instead.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quarantine {
    /// Failed calls within `window` after which the plugin is set aside; 0 is never.
    pub failures: usize,
    /// The time within which failed calls are counted.
    pub window: ConfigDuration,
    /// The time until the first probe; it doubles after each probe that fails, up to 10 minutes.
    pub probe_after: ConfigDuration,
}

/// The limits of one call and of one instance.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PluginLimits {
    /// The time limit of one `key` call. If the call needs a fresh instance, its start has half a
    /// second in addition.
    pub key_timeout: ConfigDuration,
    /// The time limit of one `request` or `response` call. If the call needs a fresh instance, its
    /// start has half a second in addition.
    pub hook_timeout: ConfigDuration,
    /// The time limit of one `load` call, including its fetches.
    pub load_timeout: ConfigDuration,
    /// The most linear memory of one instance.
    pub max_memory: ByteSize,
    /// The stack of the guest. For the whole process, the largest value of all plugins applies.
    pub max_stack: ByteSize,
    /// The most bytes of a response that a loader returns or fetches.
    pub max_body: ByteSize,
    /// Calls after which an instance is dropped.
    pub max_requests: u64,
    /// Age at which an instance is dropped.
    pub max_age: ConfigDuration,
    /// Linear memory above which an instance is dropped after a call.
    pub recycle_memory: ByteSize,
    /// The most loader calls at the same time; further calls get 503 or a stale copy.
    pub max_concurrent: usize,
    /// The most fetches in one `load` call.
    pub max_fetches: usize,
    /// The most bytes in the plugin's `kv` store.
    pub kv_bytes: ByteSize,
    /// The most keys that each worker thread remembers, so that the same inputs need no second
    /// call. 0 switches it off.
    pub memo_entries: u64,
    /// After this many keys that a thread answered from memory, one is derived again and compared.
    /// If it is different, the key depends on more than its inputs. 0 switches it off.
    pub sample_every: u64,
}

/// What happens to the request when a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnError {
    /// After a failed `key`.
    pub key: KeyError,
    /// After a failed `load`.
    pub loader: LoaderError,
    /// After a failed `request`. Required if a route uses this hook, since the hook may protect
    /// something.
    pub request: Option<RequestError>,
    /// After a failed `response`.
    pub response: ResponseError,
}

/// After a failed `key`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyError {
    /// Continue without the cache: never wrong, but it costs a load.
    #[default]
    Bypass,
    /// Continue with the route's native key.
    DefaultKey,
    /// Answer 500.
    Refuse,
}

/// After a failed `load`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoaderError {
    /// Use the stale copy if there is one, otherwise answer 502.
    #[default]
    StaleThenError,
    /// Send a plain request to the route's upstream.
    Origin,
    /// Always answer 502.
    Error,
}

/// After a failed `request`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestError {
    /// Continue with the request unchanged.
    Continue,
    /// Answer 500.
    Refuse,
}

/// After a failed `response`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseError {
    /// Send the response unchanged, and don't store it.
    #[default]
    RefuseStore,
    /// Continue as if there were no plugin.
    Continue,
}

impl Default for CompileConfig {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(1_024),
            time: ConfigDuration::secs(60),
            kept_code: ByteSize::mib(256),
        }
    }
}

impl Default for PluginsConfig {
    fn default() -> Self {
        Self {
            compile: CompileConfig::default(),
            max_total_memory: DEFAULT_TOTAL_MEMORY,
            by_name: BTreeMap::new(),
        }
    }
}

/// Written by hand, since serde's `flatten` loses the position of an error and does not detect
/// unknown keys.
impl<'de> Deserialize<'de> for PluginsConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(ByName)
    }
}

struct ByName;

impl<'de> Visitor<'de> for ByName {
    type Value = PluginsConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of names to plugins")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PluginsConfig, A::Error> {
        let mut plugins = PluginsConfig::default();
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                COMPILE => plugins.compile = map.next_value()?,
                MAX_TOTAL_MEMORY => plugins.max_total_memory = map.next_value()?,
                _ => _ = plugins.by_name.insert(key, map.next_value()?),
            }
        }
        Ok(plugins)
    }
}

impl Serialize for PluginsConfig {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.by_name.len() + 2))?;
        map.serialize_entry(COMPILE, &self.compile)?;
        map.serialize_entry(MAX_TOTAL_MEMORY, &self.max_total_memory)?;
        for (name, plugin) in &self.by_name {
            map.serialize_entry(name, plugin)?;
        }
        map.end()
    }
}

impl JsonSchema for PluginsConfig {
    fn schema_name() -> Cow<'static, str> {
        "Plugins".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Plugins by name, and the settings for all of them.",
            "properties": {
                COMPILE: generator.subschema_for::<CompileConfig>(),
                MAX_TOTAL_MEMORY: generator.subschema_for::<ByteSize>(),
            },
            "additionalProperties": generator.subschema_for::<PluginConfig>(),
        })
    }
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            failures: 20,
            window: ConfigDuration::secs(10),
            probe_after: ConfigDuration::secs(5),
        }
    }
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            key_timeout: ConfigDuration::millis(5),
            hook_timeout: ConfigDuration::millis(5),
            load_timeout: ConfigDuration::secs(10),
            max_memory: ByteSize::mib(64),
            max_stack: ByteSize::kib(512),
            max_body: ByteSize::mib(8),
            max_requests: 100_000,
            max_age: ConfigDuration::secs(3_600),
            recycle_memory: ByteSize::mib(32),
            max_concurrent: 256,
            max_fetches: 32,
            kv_bytes: ByteSize::mib(1),
            memo_entries: 65_536,
            sample_every: 1_024,
        }
    }
}

fn yes() -> bool {
    true
}

fn empty_map() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}
