//! From the YAML's plugins to versions that can be called.
//!
//! Each is compiled in a process of its own, and started on a thread that may block: the
//! first instance runs the guest's own code. What all versions are made with is the
//! [`Workshop`], which stays for as long as plugins may be loaded anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::{clock, fetch, kv, log, random};
use super::calls::{Calls, Identity};
use super::compile::Compiler;
use super::config::{Isolation, Limits, Plugin as Config};
use super::engine::Loaders;
use super::error::Cause;
use super::fetch::{Denied, Fetch, Fetches, Granted};
use super::guest::{Blueprint, GuestState};
use super::heads::Heads;
use super::health::Health;
use super::key::Keys;
use super::kv::Kv;
use super::load::Loader;
use super::local::Places;
use super::manifest::Manifest;
use super::meter::TotalMemory;
use super::metrics::PluginFamilies;
use super::outcome::NotAllowed;
use super::version::Version;
use super::{artifact, contract, wasi_http};
use crate::telemetry::limit::LineLimiter;

/// What versions are made with.
pub(super) struct Workshop {
    pub(super) engine: Engine,
    pub(super) compiler: Compiler,
    pub(super) total_memory: Arc<TotalMemory>,
    pub(super) families: PluginFamilies,
    pub(super) base: PathBuf,
    pub(super) cache_dir: Option<PathBuf>,
    pub(super) fetch: Fetch,
    /// URLs of the targets of each upstream.
    pub(super) upstreams: BTreeMap<String, Vec<String>>,
    /// Started with the first loader.
    pub(super) threads: Mutex<Option<Arc<Loaders>>>,
}

/// What one plugin's versions have in common.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) name: Arc<str>,
    pub(super) config: Arc<Config>,
    pub(super) kv: Arc<Kv>,
    pub(super) log: Arc<LineLimiter>,
    pub(super) calls: Arc<Calls>,
}

impl Job {
    pub(super) fn new(name: &str, config: &Config) -> Self {
        Self {
            name: name.into(),
            config: Arc::new(config.clone()),
            kv: Arc::new(Kv::new(config.limits.kv_bytes.as_usize())),
            log: Arc::new(LineLimiter::new(Instant::now())),
            calls: Arc::default(),
        }
    }
}

impl Workshop {
    /// What a plugin's file holds.
    pub(super) async fn read(&self, job: &Job) -> Result<Arc<[u8]>, Cause> {
        let file = self.base.join(&job.config.file);
        artifact::blocking(move || artifact::read(&file).map(Into::into)).await
    }

    /// Compiles, checks and starts a plugin. Dropping the future ends what compiles.
    pub(super) async fn make(
        self: &Arc<Self>,
        job: &Job,
        wasm: Arc<[u8]>,
    ) -> Result<Version, Cause> {
        let cache = self.cache_dir.as_deref();
        let component = artifact::compile(&self.engine, &self.compiler, &wasm, cache).await?;
        let (this, job) = (Arc::clone(self), job.clone());
        artifact::blocking(move || this.start(&job, &wasm, &component)).await
    }

    /// Checks and starts a plugin; the first instance runs the guest's own code.
    fn start(&self, job: &Job, wasm: &[u8], component: &Component) -> Result<Version, Cause> {
        let config = &job.config;
        let exports = contract::check(&self.engine, component, config)?;
        let link = |fetch| self.link(component, exports.uses_wasi, fetch);
        let waiting = link(grant_fetch)?;
        let handler = exports.handles_http.then(|| wasi_http::handler(&waiting));
        let handler = handler.transpose().map_err(|e| Cause::WrongType {
            interface: wasi_http::HANDLER.to_owned(),
            reason: format!("{e:#}"),
        })?;
        let blueprint = Blueprint {
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
            health: Health::new(config.quarantine.clone()),
            identity: Identity {
                number: next_number(),
                sha256: artifact::digest(wasm).into(),
            },
            calls: Arc::clone(&job.calls),
            retired: AtomicBool::new(false),
            places: Places::default(),
        };
        let (_, manifest) = blueprint.start()?;
        let manifest = Manifest::read(manifest)?;
        if !exports.has_hook() && manifest.declarative.is_none() {
            return Err(Cause::MissingExport(format!(
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
        blueprint: Arc<Blueprint>,
        manifest: Manifest,
        job: &Job,
    ) -> Result<Version, Cause> {
        let exports = blueprint.exports;
        let keys = exports.derive.map(|_| Keys {
            blueprint: Arc::clone(&blueprint),
            needs: manifest.needs.clone(),
        });
        let heads = exports.on_request.or(exports.on_response).map(|_| Heads {
            blueprint: Arc::clone(&blueprint),
            reads: manifest.reads.clone(),
        });
        let loads = exports.loads();
        let loader = loads.then(|| self.loader(&blueprint, &manifest, job));
        Ok(Version {
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
        blueprint: &Arc<Blueprint>,
        manifest: &Manifest,
        job: &Job,
    ) -> Result<Arc<Loader>, Cause> {
        let granted = job.config.fetch.iter().map(|name| Granted {
            name: name.as_str().into(),
            targets: self.upstreams.get(name).cloned().unwrap_or_default(),
        });
        let fetches = Fetches {
            send: self.fetch.clone(),
            granted: granted.collect(),
            denied: Denied {
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

    fn threads(&self) -> Result<Arc<Loaders>, Cause> {
        let mut threads = self.threads.lock();
        if let Some(threads) = &*threads {
            return Ok(Arc::clone(threads));
        }
        let started = Loaders::start().map_err(|e| Cause::Engine(e.to_string()))?;
        Ok(Arc::clone(threads.insert(started)))
    }

    /// Links the imports; what does not fit has other types than the contract.
    fn link(
        &self,
        component: &Component,
        wasi: bool,
        fetch: fn(&mut Linker<GuestState>) -> wasmtime::Result<()>,
    ) -> Result<InstancePre<GuestState>, Cause> {
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
            .map_err(|e| Cause::Engine(format!("{e:#}")))?;
        linker
            .instantiate_pre(component)
            .map_err(|e| Cause::WrongType {
                interface: contract::known_imports(),
                reason: format!("{e:#}"),
            })
    }
}

/// Numbers of versions; unique in the process.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn limits(config: &Config) -> Limits {
    let limits = config.limits.clone();
    match config.isolation {
        Isolation::Reuse => limits,
        Isolation::PerRequest => Limits {
            max_requests: 1,
            ..limits
        },
    }
}

/// The imports that never wait. Those that YAML must grant are linked all the same: what
/// is not granted was refused by name before.
fn add_prompt(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    log::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    kv::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    clock::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)?;
    random::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)
}

fn grant_fetch(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    fetch::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)
}

/// Where a guest may not wait there is a `fetch` that ends the call.
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
