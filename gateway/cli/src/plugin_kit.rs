//! `lamina plugin …`: everything that the author of a plugin needs, from an empty folder to a file
//! that a gateway accepts.
//!
//! `command` is its command line. Each subcommand has a file: `new`, `build`, `check`, `test`,
//! `bench`, `replay`. They share `opened` (a file made callable, with everything that it wants
//! granted), `cases` (the files of `test`), `run` (one call), `told` (a decision as JSON),
//! `compare` (with the expected decision), `sdk` (where the SDK is) and `language` (the language of
//! a project). Files are called through the same [`lamina_plugin_host::PluginSet`] that a gateway
//! uses, so the kit and a gateway can't disagree.

mod bench;
mod build;
mod cases;
mod check;
mod command;
mod compare;
mod decision_json;
mod language;
mod new;
mod opened;
mod replay;
mod run;
mod sdk;
mod test;

use serde_json::Value;

pub use command::PluginCommand;
use language::TemplateLanguage;
use new::FirstHook;

/// Reads the `config` that was given: JSON, or `@file` with JSON or YAML in it.
///
/// # Errors
/// Returns a message if it can't be read or is neither JSON nor YAML.
fn config(given: &str) -> Result<Value, String> {
    let text = match given.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?,
        None => given.to_owned(),
    };
    // Every JSON text is YAML, too.
    serde_yaml::from_str(&text).map_err(|error| {
        format!("{given:?} is not JSON: {error}; give '{{\"drop\": [\"utm_*\"]}}' or @config.json")
    })
}
