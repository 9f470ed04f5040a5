//! `lamina plugin …`: what an author of a plugin needs, from an empty folder to a file that
//! a gateway takes.
//!
//! `command` is its command line. One file a subcommand: `new`, `build`, `check`, `test`, `bench`, `replay`. What they share:
//! `opened` (a file made callable, with all that it wants granted), `cases` (the files of
//! `test`), `run` (one call), `told` (a decision as JSON), `compare` (with what was expected),
//! `sdk` (where the SDK is), `language` (whose project it is). Files are called through the
//! same [`lamina_plugin_host::PluginsConfig`] that serves, so the kit and a gateway can't disagree.

mod bench;
mod build;
mod cases;
mod check;
mod command;
mod compare;
mod language;
mod new;
mod opened;
mod replay;
mod run;
mod sdk;
mod test;
mod told;

use serde_json::Value;

pub use command::PluginCommand;
use language::TemplateLanguage;
use new::FirstHook;

/// The `config` that was given: JSON, or `@file` with JSON or YAML in it.
///
/// # Errors
/// In words, when it can't be read or is neither.
fn config(given: &str) -> Result<Value, String> {
    let text = match given.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?,
        None => given.to_owned(),
    };
    // JSON is YAML.
    serde_yaml::from_str(&text).map_err(|error| {
        format!("{given:?} is not JSON: {error}; give '{{\"drop\": [\"utm_*\"]}}' or @config.json")
    })
}
