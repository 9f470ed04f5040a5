//! Does a component speak our contract? Its imports and exports are looked at before
//! anything of it runs, so that a refusal can name the interface.

use wasmtime::Engine;
use wasmtime::component::{Component, ComponentExportIndex};

use super::config::{self, Capability, Wasi};
use super::error::Cause;

/// The WIT package.
pub(super) const PACKAGE: &str = "lamina:plugin@1.0.0";
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
/// Types only; nothing to link.
const TYPES: &str = "lamina:plugin/types@1.0.0";
pub(super) const MANIFEST: &str = "lamina:plugin/manifest@1.0.0";
pub(super) const KEY: &str = "lamina:plugin/key@1.0.0";
pub(super) const LOAD: &str = "lamina:plugin/load@1.0.0";
pub(super) const ON_REQUEST: &str = "lamina:plugin/on-request@1.0.0";
pub(super) const ON_RESPONSE: &str = "lamina:plugin/on-response@1.0.0";

/// Where the exported functions of a component are.
#[derive(Clone, Copy)]
pub(super) struct Exports {
    pub(super) describe: ComponentExportIndex,
    pub(super) derive: Option<ComponentExportIndex>,
    pub(super) load: Option<ComponentExportIndex>,
    pub(super) on_request: Option<ComponentExportIndex>,
    pub(super) on_response: Option<ComponentExportIndex>,
}

impl Exports {
    /// Whether there is a hook to call.
    pub(super) fn has_hook(&self) -> bool {
        let hooks = [self.derive, self.load, self.on_request, self.on_response];
        hooks.iter().any(Option::is_some)
    }
}

/// Checks imports and exports by name against what the YAML grants.
pub(super) fn check(
    engine: &Engine,
    component: &Component,
    granted: &config::Plugin,
) -> Result<Exports, Cause> {
    let ty = component.component_type();
    for (name, _) in ty.imports(engine) {
        check_import(name, granted)?;
    }
    for (name, _) in ty.exports(engine) {
        check_export(name)?;
    }
    let describe = function(component, MANIFEST, "describe")?;
    Ok(Exports {
        describe: describe.ok_or_else(|| Cause::MissingExport(MANIFEST.into()))?,
        derive: function(component, KEY, "derive")?,
        load: function(component, LOAD, "load")?,
        on_request: function(component, ON_REQUEST, "handle")?,
        on_response: function(component, ON_RESPONSE, "handle")?,
    })
}

/// The imports that exist, for messages.
pub(super) fn known_imports() -> String {
    [LOG, FETCH, KV, CLOCK, RANDOM]
        .map(|name| format!("`{name}`"))
        .join(", ")
}

/// `kv` of `lamina:plugin/kv@1.0.0`: the name that the YAML grants it by.
pub(super) fn short(interface: &str) -> &str {
    let name = interface.rsplit('/').next().unwrap_or(interface);
    name.split('@').next().unwrap_or(name)
}

fn check_import(name: &str, granted: &config::Plugin) -> Result<(), Cause> {
    let of_yaml = |import, capability| match granted.grant.contains(&capability) {
        true => Ok(()),
        false => Err(Cause::NotGranted { import }),
    };
    match name {
        LOG | TYPES => Ok(()),
        FETCH if !granted.fetch.is_empty() => Ok(()),
        FETCH => Err(Cause::FetchNotGranted),
        KV => of_yaml(KV, Capability::Kv),
        CLOCK => of_yaml(CLOCK, Capability::Clock),
        RANDOM => of_yaml(RANDOM, Capability::Random),
        _ if name.starts_with("wasi:") && granted.wasi == Wasi::Minimal => Ok(()),
        _ if name.starts_with("wasi:") || name.starts_with("wasi_") => {
            Err(Cause::Wasi(name.into()))
        }
        _ if is_other_version(name) => Err(Cause::UnknownVersion(name.into())),
        _ => Err(Cause::UnknownImport(name.into())),
    }
}

/// Exports that we don't know are none of our business, unless they are of another
/// version of our own contract.
fn check_export(name: &str) -> Result<(), Cause> {
    match is_other_version(name) {
        true => Err(Cause::UnknownVersion(name.into())),
        false => Ok(()),
    }
}

fn is_other_version(name: &str) -> bool {
    name.starts_with("lamina:plugin/") && name.split_once('@').map(|(_, v)| v) != Some(VERSION)
}

/// The function of an exported interface; `None` when the interface is not exported.
fn function(
    component: &Component,
    interface: &str,
    function: &str,
) -> Result<Option<ComponentExportIndex>, Cause> {
    let Some(instance) = component.get_export_index(None, interface) else {
        return Ok(None);
    };
    let index = component.get_export_index(Some(&instance), function);
    index
        .map(Some)
        .ok_or_else(|| Cause::MissingExport(format!("{interface}#{function}")))
}
