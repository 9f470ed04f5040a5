//! Finds out what a plugin's file has and needs before any of its code runs, and holds instances so
//! that their memory can be measured. For the plugin kit (`lamina plugin …`), not for serving.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wasmtime::component::Component;

use super::compile::Compiler;
use super::config::{self, Capability};
use super::contract::HANDLER;
use super::error::{CallError, PluginFault};
use super::guest::Guest;
use super::{Hook, Plugin, artifact, contract, engine};

/// What the imports and exports of a file show.
#[derive(Clone, Debug)]
pub struct ComponentSummary {
    /// The size of the file in bytes.
    pub bytes: usize,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Whether the file is a component; if not, it is a core module that was made a component.
    pub is_component: bool,
    /// The hooks that are exported; a key that the manifest declares is not among them.
    pub hooks: Vec<Hook>,
    /// Whether it is a loader through a `wasi:http` handler.
    pub handles_http: bool,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// What the YAML must grant, according to the imports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequiredGrants {
    /// Whether it needs upstreams in `fetch`.
    pub fetch: bool,
    pub grant: Vec<Capability>,
    /// Whether it needs `wasi: minimal`.
    pub wasi: bool,
}

/// Instances that exist until this is dropped.
pub struct LiveInstances(Vec<Guest>);

/// Examines a file. None of its code runs, but it is compiled, or taken from `cache_dir` if it was
/// compiled before.
///
/// # Errors
/// When it is not a component and can't be made one. Whether the gateway accepts it is decided by
/// [`super::PluginSet::load`].
pub async fn inspect(
    file: &Path,
    compiler: &Compiler,
    cache_dir: Option<&Path>,
) -> Result<ComponentSummary, PluginFault> {
    let wasm: Arc<[u8]> = artifact::read(file)?.into();
    let engine = engine::start(&BTreeMap::<String, config::PluginConfig>::new())
        .map_err(|e| PluginFault::Engine(format!("{e:#}")))?;
    let component: Component = artifact::compile(&engine, compiler, &wasm, cache_dir).await?;
    let ty = component.component_type();
    let imports: Vec<String> = ty.imports(&engine).map(|(name, _)| name.into()).collect();
    let exports: Vec<String> = ty.exports(&engine).map(|(name, _)| name.into()).collect();
    let handles_http = exports.iter().any(|name| name.starts_with(HANDLER));
    let has = |hook: Hook| match hook {
        Hook::Load if handles_http => true,
        hook => exports.iter().any(|name| name == contract::interface(hook)),
    };
    Ok(ComponentSummary {
        bytes: wasm.len(),
        sha256: artifact::digest(&wasm),
        is_component: !artifact::is_core_module(&wasm),
        hooks: Hook::ALL.into_iter().filter(|hook| has(*hook)).collect(),
        handles_http,
        imports,
        exports,
    })
}

impl ComponentSummary {
    /// What the YAML must grant for these imports.
    pub fn wants(&self) -> RequiredGrants {
        let imports = |name: &str| self.imports.iter().any(|import| import == name);
        let by_name = [
            (contract::KV, Capability::Kv),
            (contract::CLOCK, Capability::Clock),
            (contract::RANDOM, Capability::Random),
        ];
        let grant = by_name.into_iter().filter(|(name, _)| imports(name));
        let wasi = |prefix: &str| self.imports.iter().any(|name| name.starts_with(prefix));
        RequiredGrants {
            fetch: imports(contract::FETCH) || wasi("wasi:http/outgoing-handler"),
            grant: grant.map(|(_, capability)| capability).collect(),
            wasi: wasi("wasi:") && !self.handles_http,
        }
    }
}

impl Plugin {
    /// Starts `count` instances of the serving version, and holds them.
    ///
    /// # Errors
    /// When an instance does not start.
    pub async fn hold(&self, count: usize) -> Result<LiveInstances, CallError> {
        let version = self.versions.current.load_full();
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            let guest = match version.loader.is_some() {
                true => version.blueprint.start_async().await?,
                false => version.blueprint.start()?.0,
            };
            held.push(guest);
        }
        Ok(LiveInstances(held))
    }
}

impl LiveInstances {
    /// The linear memory of the largest instance in bytes, which `max_memory` limits. Most of it
    /// may never have been used.
    pub fn linear_memory(&self) -> usize {
        let each = self.0.iter().map(Guest::linear_memory);
        each.max().unwrap_or(0)
    }
}
