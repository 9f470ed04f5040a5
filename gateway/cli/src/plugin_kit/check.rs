//! `lamina plugin check FILE`: what the file exports, imports and needs, and whether a gateway
//! would accept it with the YAML that is printed.
//!
//! The file is not only inspected but also started, as a gateway does it: its `describe` runs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::Value;

use super::opened::{self, InspectedPlugin, PluginCallMode, UPSTREAM};
use lamina_plugin_host::config::CompileConfig;
use lamina_plugin_host::{CONTRACT, ComponentSummary, Hook, Manifest, PluginFault, RequiredGrants};

/// The most exports, and the most imports, that get a line of their own: the report has at most
/// forty lines.
const MAX_NAMES: usize = 6;
/// The most lines of a reason that are shown.
const MAX_LINES: usize = 10;
/// The most characters of a name or a list that are shown.
const MAX_WIDTH: usize = 240;

/// The result of the check. Its `Display` is for people, and fits on a screen of forty lines.
pub struct PluginCheckReport {
    file: String,
    config: Value,
    /// None if the file is not a component.
    anatomy: Option<ComponentSummary>,
    outcome: Result<AcceptedPlugin, PluginFault>,
}

struct AcceptedPlugin {
    manifest: Manifest,
    hooks: Vec<Hook>,
}

/// Inspects a file, compiled within these limits, and starts it with this `config`.
pub async fn check(
    file: &Path,
    config: Option<Value>,
    compile: CompileConfig,
) -> PluginCheckReport {
    let config = config.unwrap_or_else(opened::no_config);
    let (anatomy, outcome) = match opened::open_within(file, compile).await {
        Err(cause) => (None, Err(cause)),
        Ok(opened) => {
            let outcome = accept(&opened, &config).await;
            (Some(opened.anatomy), outcome)
        }
    };
    PluginCheckReport {
        file: file.display().to_string(),
        config,
        anatomy,
        outcome,
    }
}

async fn accept(opened: &InspectedPlugin, config: &Value) -> Result<AcceptedPlugin, PluginFault> {
    let yaml = opened.yaml(config, &[], &PluginCallMode::default());
    let configs = BTreeMap::from([("plugin".to_owned(), yaml)]);
    let plugins = opened::start(configs, opened::nowhere()).await?;
    let plugin = plugins.get("plugin").expect("it was just loaded");
    let hooks = Hook::ALL.into_iter().filter(|hook| plugin.has(*hook));
    Ok(AcceptedPlugin {
        manifest: plugin.manifest(),
        hooks: hooks.collect(),
    })
}

impl PluginCheckReport {
    /// Whether a gateway would accept it.
    pub fn is_accepted(&self) -> bool {
        self.outcome.is_ok()
    }
}

impl fmt::Display for PluginCheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.file)?;
        if let Some(anatomy) = &self.anatomy {
            write_anatomy(f, anatomy)?;
        }
        match &self.outcome {
            Ok(accepted) => {
                write_manifest(f, accepted)?;
                writeln!(f, "\nA gateway accepts it with this in its YAML:\n")?;
                self.write_yaml(f, accepted)
            }
            Err(cause) => {
                writeln!(f, "\nA gateway refuses it: {}", reason(cause))?;
                match advice(cause) {
                    Some(advice) => writeln!(f, "What to do: {advice}"),
                    None => Ok(()),
                }
            }
        }
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, says: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {name:10}{says}")
}

fn write_anatomy(f: &mut fmt::Formatter<'_>, anatomy: &ComponentSummary) -> fmt::Result {
    let form = match anatomy.is_component {
        true => "a component",
        false => "a core module, which the gateway turns into a component",
    };
    let kib = anatomy.bytes.div_ceil(1024);
    line(f, "size", format_args!("{kib} KiB, {form}"))?;
    line(f, "sha256", &anatomy.sha256)?;
    let contract = match anatomy.handles_http {
        true => "wasi:http/incoming-handler@0.2",
        false => CONTRACT,
    };
    line(f, "contract", contract)?;
    write_names(f, "exports", &anatomy.exports)?;
    write_names(f, "imports", &anatomy.imports)
}

/// Writes names, one on each line, but only so many that the report fits on the screen.
fn write_names(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    let shown = match names.len() {
        ..=MAX_NAMES => names.len(),
        _ => MAX_NAMES - 1,
    };
    let mut what = what;
    for name in &names[..shown] {
        line(f, std::mem::take(&mut what), shortened(name))?;
    }
    match names.len() - shown {
        0 => Ok(()),
        more => line(
            f,
            "",
            format_args!("and {more} more; `wasm-tools component wit FILE` prints them all"),
        ),
    }
}

/// A reason, shortened to fit on the screen.
fn reason(cause: &PluginFault) -> String {
    let text = cause.to_string();
    let mut lines: Vec<_> = text.lines().take(MAX_LINES).map(shortened).collect();
    let more = text.lines().count() - lines.len();
    if more > 0 {
        lines.push(format!("… and {more} lines more"));
    }
    lines.join("\n")
}

/// The beginning of a text, shortened to fit on a line.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_WIDTH) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn write_manifest(f: &mut fmt::Formatter<'_>, accepted: &AcceptedPlugin) -> fmt::Result {
    let AcceptedPlugin { manifest, hooks } = accepted;
    line(
        f,
        "name",
        format_args!("{} {}", manifest.name, manifest.version),
    )?;
    let words: Vec<_> = hooks.iter().map(|hook| hook.as_str()).collect();
    line(f, "hooks", words.join(", "))?;
    if manifest.declarative.is_some() {
        line(
            f,
            "key",
            "declared: the gateway derives the key without a call",
        )?;
    } else if hooks.contains(&Hook::Key) {
        line(f, "inputs", shortened(&manifest.needs.to_string()))?;
    }
    match hooks.iter().any(|hook| *hook != Hook::Key) {
        true => line(f, "reads", shortened(&manifest.reads.to_string())),
        false => Ok(()),
    }
}

impl PluginCheckReport {
    fn write_yaml(&self, f: &mut fmt::Formatter<'_>, accepted: &AcceptedPlugin) -> fmt::Result {
        let name = &accepted.manifest.name;
        writeln!(f, "plugins:\n  {name}:\n    file: {}", self.file)?;
        if self.config.as_object().is_some_and(|map| !map.is_empty()) {
            writeln!(f, "    config: {}", self.config)?;
        }
        if let Some(anatomy) = &self.anatomy {
            write_wants(f, &anatomy.wants())?;
        }
        let has = |hook| accepted.hooks.contains(&hook);
        if has(Hook::Request) {
            writeln!(
                f,
                "    on_error: {{request: refuse}}    # or continue: as if there were no plugin"
            )?;
        }
        writeln!(
            f,
            "routes:\n  - name: {name}\n    match: {{path: /*}}\n    upstream: {UPSTREAM}"
        )?;
        if has(Hook::Key) {
            writeln!(f, "    key: {{plugin: {name}}}")?;
        }
        let places = [
            (Hook::Load, "loader"),
            (Hook::Request, "request"),
            (Hook::Response, "response"),
        ];
        let mut places = places.into_iter().filter(|(hook, _)| has(*hook));
        places.try_for_each(|(_, place)| writeln!(f, "    {place}: {{plugin: {name}}}"))
    }
}

fn write_wants(f: &mut fmt::Formatter<'_>, wants: &RequiredGrants) -> fmt::Result {
    if wants.fetch {
        writeln!(
            f,
            "    fetch: [{UPSTREAM}]    # the upstreams that it may ask; name yours"
        )?;
    }
    if !wants.grant.is_empty() {
        let names = wants
            .grant
            .iter()
            .map(|one| format!("{one:?}").to_lowercase());
        writeln!(f, "    grant: [{}]", names.collect::<Vec<_>>().join(", "))?;
    }
    match wants.wasi {
        true => writeln!(
            f,
            "    wasi: minimal    # clocks and randomness, no files, no sockets"
        ),
        false => Ok(()),
    }
}

/// What an author can do if the plugin is refused.
pub(super) fn advice(cause: &PluginFault) -> Option<&'static str> {
    Some(match cause {
        PluginFault::Unreadable { .. } => {
            "`lamina plugin build` writes NAME.wasm into the project; name that file"
        }
        PluginFault::NotWasm => {
            "name the built .wasm file, not its source; `lamina plugin build` makes it"
        }
        PluginFault::NotAComponent(why) if why.contains("wasi_snapshot_preview1") => {
            "build without WASI preview 1: for Rust --target wasm32-unknown-unknown, for C --target=wasm32 -nostdlib"
        }
        PluginFault::NotAComponent(_) => {
            "build it against plugin-sdk/wit; `lamina plugin new --lang rust NAME` writes a project that does"
        }
        PluginFault::UnknownImport(_) => {
            "remove what needs that import, or use an import that exists"
        }
        PluginFault::UnknownVersion(_) => {
            "build it again, against plugin-sdk/wit of this version of Lamina"
        }
        PluginFault::MissingExport(_) => {
            "export it: `manifest`, and one or more of `key`, `load`, `on-request`, `on-response`; what a \
             core module exports is said by the component type that is linked into it, as \
             plugin-sdk/c/key_plugin_component_type.s"
        }
        PluginFault::Config(_) => {
            "pass the configuration that it needs: --config '{\"…\": …}' or --config @file"
        }
        PluginFault::Describe(_) | PluginFault::Start(_) => {
            "its log lines above may say why; plugins in Rust, JavaScript and Python log the \
             cause of a trap"
        }
        PluginFault::Manifest(_) => "change what its `describe` returns",
        PluginFault::WrongType { .. } => "build it against plugin-sdk/wit, unchanged",
        _ => return None,
    })
}
