//! A plugin's file, made callable with everything that it wants granted.
//!
//! The kit grants whatever the file imports: `check` lists these imports, and the author of the
//! YAML decides about them. Deadlines are long, since a test must not fail because the machine is
//! busy; a guest that never returns is still stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};

use lamina_base::units;
use lamina_plugin_host::PluginHost;
use lamina_plugin_host::config::{
    CompileConfig, DEFAULT_TOTAL_MEMORY, Isolation, PluginConfig as Config, PluginLimits,
    WasiAccess,
};
use lamina_plugin_host::{
    Compiler, ComponentSummary, FetchCall, FetchError, PluginFault, PluginHostOptions, PluginSet,
    UpstreamFetcher, inspect,
};

/// The upstream that stands for those of the gateway, if none is named.
pub(super) const UPSTREAM: &str = "origin";
/// The time for a call of a hook that may not wait; a gateway allows 5 ms.
const PATIENCE: units::ConfigDuration = units::ConfigDuration::secs(2);
/// The most calls of a loader at once. Each reserves addresses in the pool.
const CONCURRENT: usize = 8;

/// A file that was inspected.
pub(super) struct InspectedPlugin {
    pub(super) file: PathBuf,
    pub(super) anatomy: ComponentSummary,
}

/// How a plugin is called.
pub(super) struct PluginCallMode {
    pub(super) isolation: Isolation,
    /// Whether keys are remembered.
    pub(super) remembers: bool,
}

/// Inspects a file, compiled within the default limits of a gateway.
pub(super) async fn open(file: &Path) -> Result<InspectedPlugin, PluginFault> {
    open_within(file, CompileConfig::default()).await
}

/// Inspects a file, compiled within these limits.
pub(super) async fn open_within(
    file: &Path,
    compile: CompileConfig,
) -> Result<InspectedPlugin, PluginFault> {
    let cache = lamina_edge::app::process::code_cache();
    let compiler = Compiler::of_this_program(compile);
    let anatomy = inspect(file, &compiler, cache.as_deref()).await?;
    Ok(InspectedPlugin {
        file: file.to_owned(),
        anatomy,
    })
}

impl InspectedPlugin {
    /// The plugin's part of a YAML configuration in which everything that it wants is granted.
    pub(super) fn yaml(
        &self,
        config: &Value,
        upstreams: &[String],
        way: &PluginCallMode,
    ) -> Config {
        let wants = self.anatomy.wants();
        let mut limits = PluginLimits {
            key_timeout: PATIENCE,
            hook_timeout: PATIENCE,
            max_concurrent: CONCURRENT,
            ..PluginLimits::default()
        };
        if !way.remembers {
            limits.memo_entries = 0;
        }
        let fetch = match (wants.fetch, upstreams.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => vec![UPSTREAM.to_owned()],
            (true, false) => upstreams.to_vec(),
        };
        Config {
            file: self.file.clone(),
            config: config.clone(),
            fetch,
            grant: wants.grant,
            wasi: match wants.wasi {
                true => WasiAccess::Minimal,
                false => WasiAccess::Off,
            },
            isolation: way.isolation,
            watch: false,
            limits,
            quarantine: lamina_plugin_host::config::Quarantine {
                failures: 0,
                ..Default::default()
            },
            on_error: Default::default(),
        }
    }
}

/// Starts plugins by name. Dropping the result ends their threads.
pub(super) async fn start(
    configs: BTreeMap<String, Config>,
    fetch: UpstreamFetcher,
) -> Result<PluginSet, PluginFault> {
    let host = PluginHost::new(&prometheus::Registry::new(), DEFAULT_TOTAL_MEMORY);
    let host = host.map_err(|error| PluginFault::Engine(error.to_string()))?;
    let options = PluginHostOptions {
        base: PathBuf::new(),
        cache_dir: lamina_edge::app::process::code_cache(),
        compiler: Compiler::of_this_program(CompileConfig::default()),
        fetch,
        upstreams: BTreeMap::new(),
        host: &host,
        before: None,
    };
    let loaded = PluginSet::load(&configs, options).await;
    loaded.map_err(|error| error.cause)
}

/// A fetcher for which every upstream is unavailable.
pub(super) fn nowhere() -> UpstreamFetcher {
    Arc::new(|call: FetchCall| {
        let why = format!(
            "`lamina plugin` sends no requests to real upstreams, not even to `{}`",
            call.upstream
        );
        std::future::ready(Err(FetchError::Unavailable(why))).boxed()
    })
}

/// An empty configuration.
pub(super) fn no_config() -> Value {
    json!({})
}

/// The deadline of a call that begins now.
pub(super) fn load_deadline() -> std::time::Instant {
    std::time::Instant::now() + Duration::from_secs(10)
}

impl Default for PluginCallMode {
    fn default() -> Self {
        Self {
            isolation: Isolation::Reuse,
            remembers: false,
        }
    }
}
