//! What YAML says about plugins.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::{ByteSize, ConfigDuration};

/// The keys beside the names of plugins, which no plugin can have for its name.
const COMPILE: &str = "compile";
const MAX_TOTAL_MEMORY: &str = "max_total_memory";
/// Linear memory of all instances of all plugins together, unless configured otherwise.
pub const DEFAULT_TOTAL_MEMORY: ByteSize = ByteSize::mib(2_048);

/// Plugins by name, and beside them what is for all of them.
#[derive(Clone, Debug)]
pub struct PluginsConfig {
    /// What compiling one may take.
    pub compile: CompileConfig,
    /// Linear memory of all instances of all plugins together. A call that needs more is not
    /// made.
    pub max_total_memory: ByteSize,
    pub by_name: BTreeMap<String, PluginConfig>,
}

/// What compiling one plugin may take: it is done in a process of its own, which ends when it
/// takes more.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompileConfig {
    /// Memory of the process that compiles.
    pub memory: ByteSize,
    /// Processor time of that process, in whole seconds; by the clock ten times as much.
    pub time: ConfigDuration,
    /// Bytes of compiled code that are kept for the next start; what was not used for the longest time goes.
    pub kept_code: ByteSize,
}

/// One plugin.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginConfig {
    /// The `.wasm` file: a component, or a core module with an embedded component type. Relative to the YAML file.
    pub file: PathBuf,
    /// Handed to the plugin's `manifest` as JSON text.
    #[serde(default = "empty_map")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub config: serde_json::Value,
    /// Names of the upstreams that it may fetch from.
    #[serde(default)]
    pub fetch: Vec<String>,
    /// Further imports that it may use.
    #[serde(default)]
    pub grant: Vec<Capability>,
    /// Whether it may import WASI.
    #[serde(default)]
    pub wasi: WasiAccess,
    /// Whether instances serve more than one call.
    #[serde(default)]
    pub isolation: Isolation,
    /// Whether a new file in the place of the old one is taken up by itself.
    #[serde(default = "yes")]
    pub watch: bool,
    /// What one call and one instance may take.
    #[serde(default)]
    pub limits: PluginLimits,
    /// When it is set aside.
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
    /// A small store of its own, in memory.
    Kv,
    /// The time.
    Clock,
    /// Random bytes.
    Random,
}

/// Whether a plugin may import WASI (0.2), as the runtimes of some languages do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WasiAccess {
    /// It may not.
    #[default]
    Off,
    /// Clocks and randomness; what it prints goes to the log. No files, sockets,
    /// environment or arguments: those calls are there and fail.
    Minimal,
}

/// Whether instances serve more than one call.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// They do, until they are worn out (see `limits`) or a call fails.
    #[default]
    Reuse,
    /// Each call gets a fresh one.
    PerRequest,
}

/// When a plugin is set aside: from then on its calls fail at once, as `on_error` says,
/// until a call that is let through as a probe succeeds. Where an earlier version served
/// well, that one comes back instead.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quarantine {
    /// Failed calls within `window`; 0 is never.
    pub failures: usize,
    /// The time in which they count.
    pub window: ConfigDuration,
    /// When the first probe is let through; after each that fails it takes twice as long,
    /// up to 10 minutes.
    pub probe_after: ConfigDuration,
}

/// What one call and one instance may take.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PluginLimits {
    /// Time for one `key` call. The start of an instance, where the call needs a fresh one, has half a second of its own.
    pub key_timeout: ConfigDuration,
    /// Time for one `request` or `response` call; the start likewise.
    pub hook_timeout: ConfigDuration,
    /// Time for one `load` call, its fetches included.
    pub load_timeout: ConfigDuration,
    /// Linear memory of one instance.
    pub max_memory: ByteSize,
    /// Stack of the guest, for the whole process the largest of all plugins counts.
    pub max_stack: ByteSize,
    /// Bytes of a response that a loader returns or fetches.
    pub max_body: ByteSize,
    /// Calls after which an instance is thrown away.
    pub max_requests: u64,
    /// Age at which an instance is thrown away.
    pub max_age: ConfigDuration,
    /// Linear memory above which an instance is thrown away after a call.
    pub recycle_memory: ByteSize,
    /// Loader calls at once; above it 503 or stale.
    pub max_concurrent: usize,
    /// Fetches in one `load` call.
    pub max_fetches: usize,
    /// Bytes that the plugin's `kv` store may hold.
    pub kv_bytes: ByteSize,
    /// Keys that each worker thread remembers, so that equal inputs cost no call. 0 switches it off.
    pub memo_entries: u64,
    /// Of so many keys that a thread answers from memory, one is derived anew and compared: a key that is another one by then depends on more than its inputs. 0 switches it off.
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
    /// After a failed `request`; must be said where a route uses it, as it may guard
    /// something.
    pub request: Option<RequestError>,
    /// After a failed `response`.
    pub response: ResponseError,
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

/// After a failed `request`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestError {
    /// Go on with the request as it came.
    Continue,
    /// Answer 500.
    Refuse,
}

/// After a failed `response`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseError {
    /// Send the response as it came, and don't store it.
    #[default]
    RefuseStore,
    /// As if there were no plugin.
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

/// By hand, since serde's `flatten` loses the place of an error and knows no unknown keys.
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
            "description": "Plugins by name, and beside them what is for all of them.",
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
