//! Plugins over the admin listener: the state of each, and what an operator can do with it.

use std::time::UNIX_EPOCH;

use http::StatusCode;
use serde_json::{Value, json};

use crate::plugin::{FailedCall, PluginReloadOutcome, PluginSet, PluginStatus};
use crate::proxy::Proxy;

/// Every plugin.
pub fn list(plugins: &PluginSet) -> Value {
    let reports: Vec<Value> = plugins
        .iter()
        .map(|plugin| status_of(plugin.report()))
        .collect();
    json!({"plugins": reports})
}

/// The last failed calls of the plugin with this name, newest first. Each can be run again with
/// `lamina plugin replay`.
pub fn calls(plugins: &PluginSet, name: &str) -> (StatusCode, Value) {
    let Some(plugin) = plugins.get(name) else {
        return unknown(plugins, name);
    };
    let config = plugin.shown_config();
    let failed_call = |call: FailedCall| {
        let at = call.at.duration_since(UNIX_EPOCH);
        json!({
            "hook": call.hook.as_str(),
            "inputs": call.inputs,
            "error": call.error,
            "config": config,
            "at": at.map_or(0, |at| at.as_secs()),
            "number": call.number,
            "sha256": &*call.sha256,
        })
    };
    let calls = plugin.failed_calls().into_iter().map(failed_call);
    (StatusCode::OK, calls.collect())
}

/// Loads the file of the plugin with this name again.
pub async fn reload(plugins: &PluginSet, name: &str) -> (StatusCode, Value) {
    let Some(plugin) = plugins.get(name) else {
        return unknown(plugins, name);
    };
    match plugin.reload().await {
        Ok(outcome) => {
            let mut body = status_of(plugin.report());
            body["swapped"] = json!(matches!(outcome, PluginReloadOutcome::Swapped(_)));
            (StatusCode::OK, body)
        }
        Err(error) => {
            let body = json!({"error": error.to_string(), "serves": status_of(plugin.report())});
            (StatusCode::UNPROCESSABLE_ENTITY, body)
        }
    }
}

/// Puts the plugin with this name into quarantine, and tells which routes answer with errors
/// meanwhile.
///
/// There is no second confirmation: an operator who quarantines a plugin is in a hurry, pages of
/// other sites can't send this request, and `resume` reverts it.
pub fn quarantine(plugins: &PluginSet, name: &str, proxy: &Proxy) -> (StatusCode, Value) {
    let Some(plugin) = plugins.get(name) else {
        return unknown(plugins, name);
    };
    plugin.set_aside();
    let mut body = status_of(plugin.report());
    body["failing_routes"] = json!(proxy.generation().routes_that_fail_without(name));
    (StatusCode::OK, body)
}

/// Lets the plugin with this name serve again.
pub fn resume(plugins: &PluginSet, name: &str) -> (StatusCode, Value) {
    let Some(plugin) = plugins.get(name) else {
        return unknown(plugins, name);
    };
    plugin.resume();
    (StatusCode::OK, status_of(plugin.report()))
}

fn unknown(plugins: &PluginSet, name: &str) -> (StatusCode, Value) {
    let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name()).collect();
    let error = format!(
        "there is no plugin {name:?}; there are {}",
        names.join(", ")
    );
    (StatusCode::NOT_FOUND, json!({"error": error}))
}

fn status_of(report: PluginStatus) -> Value {
    let made = report.made.duration_since(UNIX_EPOCH);
    let mut status = json!({
        "plugin": report.plugin,
        "number": report.number,
        "name": report.name,
        "version": report.version,
        "sha256": report.sha256,
        "loaded_at": made.map_or(0, |made| made.as_secs()),
        "hooks": report.hooks,
        "instances": report.instances,
        "impure": report.impure,
        "state": if report.aside.is_some() { "quarantined" } else { "serving" },
    });
    if let Some(gone) = report.gave_way {
        status["gave_way"] = json!({
            "number": gone.number,
            "version": gone.version,
            "sha256": &*gone.sha256,
            "reason": gone.reason,
        });
    }
    if let Some(aside) = report.aside {
        status["quarantine"] = json!({
            "reason": aside.reason,
            "since_s": aside.since.as_secs(),
            "probe_in_s": aside.probe_in.map(|left| left.as_secs()),
        });
    }
    status
}
