//! From the plugins in the YAML to versions that can be called.
//!
//! Each plugin is compiled in a process of its own, and started on a thread that may block, because
//! the first instance runs the guest's own code. The [`VersionFactory`] holds what all versions are
//! made with; it stays as long as plugins may be reloaded.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::{clock, fetch, kv, log, random};
use super::calls::{FailedCalls, VersionIdentity};
use super::compile::Compiler;
use super::config::{Isolation, PluginConfig as Config, PluginLimits};
use super::engine::LoaderThreads;
use super::error::PluginFault;
use super::fetch::{DeniedFetches, FetchAllowance, GrantedUpstream, UpstreamFetcher};
use super::guest::{GuestBlueprint, GuestState};
use super::heads::MessageHooks;
use super::health::VersionHealth;
use super::key::KeyHook;
use super::kv::KvStore;
use super::load::Loader;
use super::local::InstancePlaces;
use super::manifest::Manifest;
use super::meter::TotalMemory;
use super::metrics::PluginFamilies;
use super::outcome::NotAllowed;
use super::version::PluginVersion;
use super::{artifact, contract, wasi_http};
use crate::telemetry::limit::LineLimiter;

/// What versions are made with.
pub(super) struct VersionFactory {
    pub(super) engine: Engine,
    pub(super) compiler: Compiler,
    pub(super) total_memory: Arc<TotalMemory>,
    pub(super) families: PluginFamilies,
    pub(super) base: PathBuf,
    pub(super) cache_dir: Option<PathBuf>,
    pub(super) fetch: UpstreamFetcher,
    /// URLs of the targets of each upstream.
    pub(super) upstreams: BTreeMap<String, Vec<String>>,
    /// Started with the first loader.
    pub(super) threads: Mutex<Option<Arc<LoaderThreads>>>,
}

/// What the versions of one plugin have in common.
#[derive(Clone)]
pub(super) struct PluginContext {
    pub(super) name: Arc<str>,
    pub(super) config: Arc<Config>,
    pub(super) kv: Arc<KvStore>,
    pub(super) log: Arc<LineLimiter>,
    pub(super) calls: Arc<FailedCalls>,
}

impl PluginContext {
    pub(super) fn new(name: &str, config: &Config) -> Self {
        Self {
            name: name.into(),
            config: Arc::new(config.clone()),
            kv: Arc::new(KvStore::new(config.limits.kv_bytes.as_usize())),
            log: Arc::new(LineLimiter::new(Instant::now())),
            calls: Arc::default(),
        }
    }
}

impl VersionFactory {
    /// Reads the plugin's file.
    pub(super) async fn read(&self, job: &PluginContext) -> Result<Arc<[u8]>, PluginFault> {
        let file = self.base.join(&job.config.file);
        artifact::blocking(move || artifact::read(&file).map(Into::into)).await
    }

    /// Compiles, checks and starts a plugin. Dropping the future ends the compiling process.
    pub(super) async fn make(
        self: &Arc<Self>,
        job: &PluginContext,
        wasm: Arc<[u8]>,
    ) -> Result<PluginVersion, PluginFault> {
        let cache = self.cache_dir.as_deref();
        let component = artifact::compile(&self.engine, &self.compiler, &wasm, cache).await?;
        let (this, job) = (Arc::clone(self), job.clone());
        artifact::blocking(move || this.start(&job, &wasm, &component)).await
    }

    /// Checks and starts a plugin; the first instance runs the guest's own code.
    fn start(
        &self,
        job: &PluginContext,
        wasm: &[u8],
        component: &Component,
    ) -> Result<PluginVersion, PluginFault> {
        let config = &job.config;
        let exports = contract::check(&self.engine, component, config)?;
        let link = |fetch| self.link(component, exports.uses_wasi, fetch);
        let waiting = link(grant_fetch)?;
        let handler = exports.handles_http.then(|| wasi_http::handler(&waiting));
        let handler = handler.transpose().map_err(|e| PluginFault::WrongType {
            interface: contract::HANDLER.to_owned(),
            reason: format!("{e:#}"),
        })?;
        let blueprint = GuestBlueprint {
            prompt: link(deny_fetch)?,
            waiting,
            handler,
            name: Arc::clone(&job.name),
            exports,
            config: config.config.to_string(),
            limits: limits(config),
            total_memory: Arc::clone(&self.total_memory),
            log: Arc::clone(&job.log),
            metrics: self.families.of(&job.name),
            kv: Arc::clone(&job.kv),
            health: VersionHealth::new(config.quarantine.clone()),
            identity: VersionIdentity {
                number: next_number(),
                sha256: artifact::digest(wasm).into(),
            },
            calls: Arc::clone(&job.calls),
            retired: AtomicBool::new(false),
            places: InstancePlaces::default(),
        };
        let (_, manifest) = blueprint.start()?;
        let manifest = Manifest::read(manifest)?;
        if !exports.has_hook() && manifest.declarative.is_none() {
            return Err(PluginFault::MissingExport(format!(
                "{}`, `{}`, `{}` or `{}",
                contract::KEY,
                contract::LOAD,
                contract::ON_REQUEST,
                contract::ON_RESPONSE
            )));
        }
        self.finish(Arc::new(blueprint), manifest, job)
    }

    fn finish(
        &self,
        blueprint: Arc<GuestBlueprint>,
        manifest: Manifest,
        job: &PluginContext,
    ) -> Result<PluginVersion, PluginFault> {
        let exports = blueprint.exports;
        let keys = exports.derive.map(|_| KeyHook {
            blueprint: Arc::clone(&blueprint),
            needs: manifest.needs.clone(),
        });
        let heads = exports
            .on_request
            .or(exports.on_response)
            .map(|_| MessageHooks {
                blueprint: Arc::clone(&blueprint),
                reads: manifest.reads.clone(),
            });
        let loads = exports.loads();
        let loader = loads.then(|| self.loader(&blueprint, &manifest, job));
        Ok(PluginVersion {
            made: SystemTime::now(),
            keys,
            heads,
            loader: loader.transpose()?,
            manifest,
            blueprint,
        })
    }

    fn loader(
        &self,
        blueprint: &Arc<GuestBlueprint>,
        manifest: &Manifest,
        job: &PluginContext,
    ) -> Result<Arc<Loader>, PluginFault> {
        let granted = job.config.fetch.iter().map(|name| GrantedUpstream {
            name: name.as_str().into(),
            targets: self.upstreams.get(name).cloned().unwrap_or_default(),
        });
        let fetches = FetchAllowance {
            send: self.fetch.clone(),
            granted: granted.collect(),
            denied: DeniedFetches {
                plugin: Arc::clone(&job.name),
                count: blueprint.metrics.denied.clone(),
                log: Arc::clone(&job.log),
            },
            left: blueprint.limits.max_fetches,
            max_body: blueprint.limits.max_body.as_usize(),
        };
        let (blueprint, reads) = (Arc::clone(blueprint), manifest.reads.clone());
        Ok(Loader::new(blueprint, reads, self.threads()?, fetches))
    }

    fn threads(&self) -> Result<Arc<LoaderThreads>, PluginFault> {
        let mut threads = self.threads.lock();
        if let Some(threads) = &*threads {
            return Ok(Arc::clone(threads));
        }
        let started = LoaderThreads::start().map_err(|e| PluginFault::Engine(e.to_string()))?;
        Ok(Arc::clone(threads.insert(started)))
    }

    /// Links the imports. It fails if the component's types differ from the contract's.
    fn link(
        &self,
        component: &Component,
        wasi: bool,
        fetch: fn(&mut Linker<GuestState>) -> wasmtime::Result<()>,
    ) -> Result<InstancePre<GuestState>, PluginFault> {
        let mut linker = Linker::new(&self.engine);
        add_prompt(&mut linker)
            .and_then(|()| fetch(&mut linker))
            .and_then(|()| {
                if wasi {
                    super::wasi::add(&mut linker)
                } else {
                    Ok(())
                }
            })
            .map_err(|e| PluginFault::Engine(format!("{e:#}")))?;
        linker
            .instantiate_pre(component)
            .map_err(|e| PluginFault::WrongType {
                interface: contract::known_imports(),
                reason: format!("{e:#}"),
            })
    }
}

/// The number of a new version; unique in the process.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn limits(config: &Config) -> PluginLimits {
    let limits = config.limits.clone();
    match config.isolation {
        Isolation::Reuse => limits,
        Isolation::PerRequest => PluginLimits {
            max_requests: 1,
            ..limits
        },
    }
}

/// Adds the imports that never wait. Imports that the YAML must grant are linked as well: a
/// component that imports one without a grant was already refused by name.
fn add_prompt(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    log::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    kv::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    clock::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    random::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)
}

fn grant_fetch(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    fetch::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)
}

/// Adds a `fetch` that ends the call, for guests that may not wait.
fn deny_fetch(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    type Answer = Result<fetch::FetchResponse, fetch::FetchError>;
    let denied = || wasmtime::Error::new(NotAllowed(contract::FETCH));
    let mut instance = linker.instance(contract::FETCH)?;
    instance.func_wrap(
        "fetch",
        move |_, _: (fetch::FetchRequest,)| -> wasmtime::Result<(Answer,)> { Err(denied()) },
    )?;
    instance.func_wrap(
        "fetch-all",
        move |_, _: (Vec<fetch::FetchRequest>,)| -> wasmtime::Result<(Vec<Answer>,)> {
            Err(denied())
        },
    )
}
