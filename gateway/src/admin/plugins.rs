//! Plugins over the admin listener: how each is, and what an operator does about it.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use http::StatusCode;
use serde_json::{Value, json};

use crate::plugin::{FailedCall, Plugin, Plugins, Reloaded, Report};

/// Every plugin.
pub fn list(plugins: &Plugins) -> Value {
    let reports: Vec<Value> = plugins.iter().map(|plugin| told(plugin.report())).collect();
    json!({"plugins": reports})
}

/// `/v1/plugins/NAME/VERB`, as name and verb.
pub fn target(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/v1/plugins/")?.rsplit_once('/')
}

/// The last calls of the plugin of this name that failed, the newest first; each can be
/// run again with `lamina plugin replay`.
pub fn calls(plugins: &Plugins, name: &str) -> (StatusCode, Value) {
    let Some(plugin) = plugins.get(name) else {
        return unknown(plugins, name);
    };
    let config = plugin.shown_config();
    let told = |call: FailedCall| {
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
    let calls = plugin.failed_calls().into_iter().map(told);
    (StatusCode::OK, calls.collect())
}

/// Does what `verb` says to the plugin of this name.
pub async fn act(plugins: &Plugins, name: &str, verb: &str) -> (StatusCode, Value) {
    let Some(plugin) = plugins.get(name) else {
        return unknown(plugins, name);
    };
    match verb {
        "reload" => reload(&plugin).await,
        "quarantine" => {
            plugin.set_aside();
            tracing::warn!(plugin = name, "an operator set a plugin aside");
            (StatusCode::OK, told(plugin.report()))
        }
        "resume" => {
            plugin.resume();
            tracing::info!(plugin = name, "an operator resumed a plugin");
            (StatusCode::OK, told(plugin.report()))
        }
        _ => {
            let error = format!(
                "{verb:?} is nothing to do; there are reload, quarantine, resume, and calls to GET"
            );
            (StatusCode::NOT_FOUND, json!({"error": error}))
        }
    }
}

fn unknown(plugins: &Plugins, name: &str) -> (StatusCode, Value) {
    let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name()).collect();
    let error = format!(
        "there is no plugin {name:?}; there are {}",
        names.join(", ")
    );
    (StatusCode::NOT_FOUND, json!({"error": error}))
}

async fn reload(plugin: &Arc<Plugin>) -> (StatusCode, Value) {
    match plugin.reload().await {
        Ok(outcome) => {
            let mut body = told(plugin.report());
            body["swapped"] = json!(matches!(outcome, Reloaded::Swapped(_)));
            (StatusCode::OK, body)
        }
        Err(error) => {
            let body = json!({"error": error.to_string(), "serves": told(plugin.report())});
            (StatusCode::UNPROCESSABLE_ENTITY, body)
        }
    }
}

fn told(report: Report) -> Value {
    let made = report.made.duration_since(UNIX_EPOCH);
    let mut told = json!({
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
        told["gave_way"] = json!({
            "number": gone.number,
            "version": gone.version,
            "sha256": &*gone.sha256,
            "reason": gone.reason,
        });
    }
    if let Some(aside) = report.aside {
        told["quarantine"] = json!({
            "reason": aside.reason,
            "since_s": aside.since.as_secs(),
            "probe_in_s": aside.probe_in.map(|left| left.as_secs()),
        });
    }
    told
}
