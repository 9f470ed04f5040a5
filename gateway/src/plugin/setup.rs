//! From the YAML's plugins to plugins that can be called.
//!
//! Each is prepared on a thread that may block: compiling takes up to seconds, and the
//! first instance runs the guest's own code.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::{fetch, log};
use super::error::{Cause, LoadError};
use super::fetch::{Fetch, Fetches};
use super::guest::{Blueprint, State};
use super::key::Keys;
use super::load::Loader;
use super::manifest::Manifest;
use super::metrics::{Families, Metrics};
use super::outcome::NotAllowed;
use super::{Options, Plugin, artifact, config, contract, engine};
use crate::telemetry::limit::LineLimiter;

/// What one plugin is prepared from.
struct Preparation {
    name: Arc<str>,
    config: config::Plugin,
    engine: Engine,
    base: PathBuf,
    cache_dir: Option<PathBuf>,
    metrics: Metrics,
}

/// What is known of a plugin after its first instance ran.
struct Prepared {
    blueprint: Arc<Blueprint>,
    manifest: Manifest,
    granted: Arc<[Arc<str>]>,
}

pub(super) async fn load(
    configs: &BTreeMap<String, config::Plugin>,
    options: Options<'_>,
) -> Result<BTreeMap<String, Arc<Plugin>>, LoadError> {
    let general = |cause| LoadError {
        plugin: configs.keys().cloned().collect::<Vec<_>>().join("`, `"),
        cause,
    };
    let families = Families::new().map_err(|e| general(Cause::Engine(e.to_string())))?;
    let mut plugins = BTreeMap::new();
    if !configs.is_empty() {
        let engine =
            engine::start(configs).map_err(|e| general(Cause::Engine(format!("{e:#}"))))?;
        let prepared = prepare_all(configs, &options, &engine, &families).await?;
        let threads = match prepared.iter().any(|p| p.blueprint.exports.load.is_some()) {
            true => {
                Some(engine::Loaders::start().map_err(|e| general(Cause::Engine(e.to_string())))?)
            }
            false => None,
        };
        for prepared in prepared {
            let plugin = prepared.finish(threads.as_ref(), &options.fetch);
            plugins.insert(plugin.name.to_string(), Arc::new(plugin));
        }
    }
    families
        .register(options.registry)
        .map_err(|e| general(Cause::Engine(e.to_string())))?;
    Ok(plugins)
}

/// Prepares all side by side; the first failure counts.
async fn prepare_all(
    configs: &BTreeMap<String, config::Plugin>,
    options: &Options<'_>,
    engine: &Engine,
    families: &Families,
) -> Result<Vec<Prepared>, LoadError> {
    let prepare = |(name, config): (&String, &config::Plugin)| {
        let preparation = Preparation {
            name: name.as_str().into(),
            config: config.clone(),
            engine: engine.clone(),
            base: options.base.clone(),
            cache_dir: options.cache_dir.clone(),
            metrics: families.of(name),
        };
        tokio::task::spawn_blocking(move || preparation.run())
    };
    let running: Vec<_> = configs.iter().map(prepare).collect();
    let mut prepared = Vec::with_capacity(running.len());
    for (run, name) in running.into_iter().zip(configs.keys()) {
        let ended = run
            .await
            .unwrap_or_else(|e| Err(Cause::Engine(e.to_string())));
        prepared.push(ended.map_err(|cause| LoadError {
            plugin: name.clone(),
            cause,
        })?);
    }
    Ok(prepared)
}

impl Preparation {
    fn run(self) -> Result<Prepared, Cause> {
        let wasm = artifact::read(&self.base.join(&self.config.file))?;
        let component = artifact::compile(&self.engine, &wasm, self.cache_dir.as_deref())?;
        let exports = contract::check(&self.engine, &component, !self.config.fetch.is_empty())?;
        let granted: Vec<Arc<str>> = self
            .config
            .fetch
            .iter()
            .map(|name| name.as_str().into())
            .collect();
        let blueprint = Blueprint {
            key: link(&self.engine, &component, deny_fetch)?,
            load: link(&self.engine, &component, grant_fetch)?,
            name: self.name,
            exports,
            config: self.config.config.to_string(),
            limits: self.config.limits,
            log: Arc::new(LineLimiter::new(Instant::now())),
            metrics: self.metrics,
        };
        let (_, manifest) = blueprint.start()?;
        let manifest = Manifest::read(manifest)?;
        if exports.derive.is_none() && exports.load.is_none() && manifest.declarative.is_none() {
            return Err(Cause::MissingExport(format!(
                "{}` or `{}",
                contract::KEY,
                contract::LOAD
            )));
        }
        Ok(Prepared {
            blueprint: Arc::new(blueprint),
            manifest,
            granted: granted.into(),
        })
    }
}

impl Prepared {
    fn finish(self, threads: Option<&Arc<engine::Loaders>>, send: &Fetch) -> Plugin {
        let Self {
            blueprint,
            manifest,
            granted,
        } = self;
        let fetches = Fetches {
            send: send.clone(),
            granted,
            left: blueprint.limits.max_fetches,
            max_body: blueprint.limits.max_body.as_usize(),
        };
        let loads = blueprint.exports.load.and(threads);
        let keys = Keys {
            blueprint: blueprint.clone(),
            needs: manifest.needs.clone(),
        };
        Plugin {
            name: blueprint.name.clone(),
            keys: blueprint.exports.derive.map(|_| Arc::new(keys)),
            loader: loads.map(|threads| Loader::new(blueprint, threads.clone(), fetches)),
            manifest,
        }
    }
}

/// Links the imports; what does not fit has other types than the contract.
fn link(
    engine: &Engine,
    component: &Component,
    fetch: fn(&mut Linker<State>) -> wasmtime::Result<()>,
) -> Result<InstancePre<State>, Cause> {
    let mut linker = Linker::new(engine);
    log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)
        .and_then(|()| fetch(&mut linker))
        .map_err(|e| Cause::Engine(format!("{e:#}")))?;
    linker
        .instantiate_pre(component)
        .map_err(|e| Cause::WrongType {
            interface: format!("{}` or `{}", contract::LOG, contract::FETCH),
            reason: format!("{e:#}"),
        })
}

fn grant_fetch(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    fetch::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

/// Where a guest may not wait there is a `fetch` that ends the call.
fn deny_fetch(linker: &mut Linker<State>) -> wasmtime::Result<()> {
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
