//! Checks whether a component follows our contract or `wasi:http`. Its imports and exports are
//! examined before any of its code runs, so that a refusal can name the interface.

use wasmtime::Engine;
use wasmtime::component::{Component, ComponentExportIndex};

use super::Hook;
use super::config::{self, Capability, WasiAccess};
use super::error::PluginFault;

/// The WIT package.
pub const PACKAGE: &str = "lamina:plugin@1.0.0";
/// Its version.
pub(super) const VERSION: &str = "1.0.0";
/// The import for log lines.
pub(super) const LOG: &str = "lamina:plugin/log@1.0.0";
/// The import for requests to upstreams.
pub(super) const FETCH: &str = "lamina:plugin/fetch@1.0.0";
/// The imports that the YAML grants by name.
pub(super) const KV: &str = "lamina:plugin/kv@1.0.0";
pub(super) const CLOCK: &str = "lamina:plugin/clock@1.0.0";
pub(super) const RANDOM: &str = "lamina:plugin/random@1.0.0";
/// The interface that a component of `wasi:http` exports.
pub(super) const HANDLER: &str = "wasi:http/incoming-handler@0.2.";
/// Types only; nothing to link.
const TYPES: &str = "lamina:plugin/types@1.0.0";
pub(super) const MANIFEST: &str = "lamina:plugin/manifest@1.0.0";
pub(super) const KEY: &str = "lamina:plugin/key@1.0.0";
pub(super) const LOAD: &str = "lamina:plugin/load@1.0.0";
pub(super) const ON_REQUEST: &str = "lamina:plugin/on-request@1.0.0";
pub(super) const ON_RESPONSE: &str = "lamina:plugin/on-response@1.0.0";

/// The exported functions of a component.
#[derive(Clone, Copy)]
pub(super) struct Exports {
    /// None where the component is a `wasi:http` handler, which has no manifest.
    pub(super) describe: Option<ComponentExportIndex>,
    pub(super) derive: Option<ComponentExportIndex>,
    pub(super) load: Option<ComponentExportIndex>,
    pub(super) on_request: Option<ComponentExportIndex>,
    pub(super) on_response: Option<ComponentExportIndex>,
    /// Whether it answers requests through `wasi:http`.
    pub(super) handles_http: bool,
    /// Whether it imports WASI.
    pub(super) uses_wasi: bool,
}

impl Exports {
    /// Whether it exports any hook.
    pub(super) fn has_hook(&self) -> bool {
        let hooks = [self.derive, self.load, self.on_request, self.on_response];
        self.loads() || hooks.iter().any(Option::is_some)
    }

    /// Whether it can load responses.
    pub(super) fn loads(&self) -> bool {
        self.load.is_some() || self.handles_http
    }
}

/// Checks imports and exports by name against what the YAML grants.
pub(super) fn check(
    engine: &Engine,
    component: &Component,
    granted: &config::PluginConfig,
) -> Result<Exports, PluginFault> {
    let ty = component.component_type();
    let handles_http = ty
        .exports(engine)
        .any(|(name, _)| name.starts_with(HANDLER));
    if !handles_http {
        let exports = ty.exports(engine).map(|(name, _)| name);
        foreign(exports)?;
    }
    let may_use_wasi = handles_http || granted.wasi == WasiAccess::Minimal;
    for (name, _) in ty.imports(engine) {
        check_import(name, granted, may_use_wasi)?;
    }
    for (name, _) in ty.exports(engine) {
        check_export(name)?;
    }
    let describe = function(component, MANIFEST, "describe")?;
    if describe.is_none() && !handles_http {
        return Err(PluginFault::MissingExport(MANIFEST.into()));
    }
    Ok(Exports {
        describe,
        derive: function(component, KEY, "derive")?,
        load: function(component, LOAD, "load")?,
        on_request: function(component, ON_REQUEST, "handle")?,
        on_response: function(component, ON_RESPONSE, "handle")?,
        handles_http,
        uses_wasi: ty
            .imports(engine)
            .any(|(name, _)| name.starts_with("wasi:")),
    })
}

/// The imports that exist, for error messages.
pub(super) fn known_imports() -> String {
    [LOG, FETCH, KV, CLOCK, RANDOM]
        .map(|name| format!("`{name}`"))
        .join(", ")
}

/// The interface that a plugin must export for this hook.
pub(super) fn interface(hook: Hook) -> &'static str {
    match hook {
        Hook::Key => KEY,
        Hook::Load => LOAD,
        Hook::Request => ON_REQUEST,
        Hook::Response => ON_RESPONSE,
    }
}

/// `kv` for `lamina:plugin/kv@1.0.0`: the name by which the YAML grants it.
pub(super) fn short(interface: &str) -> &str {
    let name = interface.rsplit('/').next().unwrap_or(interface);
    name.split('@').next().unwrap_or(name)
}

/// Refuses a component that was built for another host, and names that host, recognized by the
/// exports.
fn foreign<'a>(mut exports: impl Iterator<Item = &'a str>) -> Result<(), PluginFault> {
    const HTTP: &str = "build it for `wasi:http/incoming-handler@0.2`, which can be used as a \
                        loader without changes";
    let what = exports.find_map(|name| {
        let is = |prefix: &str| name.starts_with(prefix);
        match () {
            () if is("wasi:http/handler@0.3") => Some("a `wasi:http` 0.3 component"),
            () if is("wasi:http/") => Some("a component of another version of `wasi:http`"),
            () if is("wasi:cli/run@") => {
                Some("a command (`wasi:cli/run`), as `wasm32-wasip2` builds a program")
            }
            () if is("fermyon:spin/") || is("spin:") => Some("a component for Spin"),
            () => None,
        }
    });
    match what {
        Some(what) => Err(PluginFault::Foreign {
            what,
            instead: match what.contains("command") {
                true => {
                    "build a library that exports a hook (`crate-type = [\"cdylib\"]`), or a handler of `wasi:http` 0.2"
                }
                false => HTTP,
            },
        }),
        None => Ok(()),
    }
}

fn check_import(
    name: &str,
    granted: &config::PluginConfig,
    may_use_wasi: bool,
) -> Result<(), PluginFault> {
    let of_yaml = |import, capability| match granted.grant.contains(&capability) {
        true => Ok(()),
        false => Err(PluginFault::NotGranted { import }),
    };
    match name {
        LOG | TYPES => Ok(()),
        FETCH if !granted.fetch.is_empty() => Ok(()),
        FETCH => Err(PluginFault::FetchNotGranted),
        KV => of_yaml(KV, Capability::Kv),
        CLOCK => of_yaml(CLOCK, Capability::Clock),
        RANDOM => of_yaml(RANDOM, Capability::Random),
        _ if name.starts_with("wasi:") && may_use_wasi => Ok(()),
        _ if name.starts_with("wasi:") || name.starts_with("wasi_") => {
            Err(PluginFault::Wasi(name.into()))
        }
        _ if is_other_version(name) => Err(PluginFault::UnknownVersion(name.into())),
        _ => Err(PluginFault::UnknownImport(name.into())),
    }
}

/// Unknown exports are ignored, unless they are of another version of our own contract.
fn check_export(name: &str) -> Result<(), PluginFault> {
    match is_other_version(name) {
        true => Err(PluginFault::UnknownVersion(name.into())),
        false => Ok(()),
    }
}

fn is_other_version(name: &str) -> bool {
    name.starts_with("lamina:plugin/") && name.split_once('@').map(|(_, v)| v) != Some(VERSION)
}

/// The function of an exported interface; `None` if the interface is not exported.
fn function(
    component: &Component,
    interface: &str,
    function: &str,
) -> Result<Option<ComponentExportIndex>, PluginFault> {
    let Some(instance) = component.get_export_index(None, interface) else {
        return Ok(None);
    };
    let index = component.get_export_index(Some(&instance), function);
    index
        .map(Some)
        .ok_or_else(|| PluginFault::MissingExport(format!("{interface}#{function}")))
}
