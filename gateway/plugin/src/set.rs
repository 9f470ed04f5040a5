//! The plugins of one configuration, and what the plugins of all configurations share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures_util::future::join_all;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::task::AbortOnDropHandle;

use crate::compile::Compiler;
use crate::error::{LoadError, PluginFault};
use crate::fetch::UpstreamFetcher;
use crate::meter::TotalMemory;
use crate::metrics::PluginFamilies;
use crate::plugin::Plugin;
use crate::setup::{PluginContext, VersionFactory};
use crate::swap::{PluginVersions, PreparedPlugin};
use crate::units::ByteSize;
use crate::{config, engine};

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

/// All that a plugin depends on, but for its file's content, as text.
#[derive(PartialEq, Eq)]
pub(crate) struct PluginSettings(String);

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
                    AbortOnDropHandle::new(tokio::spawn(versions.follow_files()))
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
