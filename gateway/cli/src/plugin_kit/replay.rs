//! `lamina plugin replay FILE --call call.json`: makes a failed call again, offline.
//!
//! A gateway records the inputs of failed calls. `GET /v1/plugins/NAME/calls` returns them as JSON:
//! one call, a list of calls, or an object with the list as `calls`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::cases::{CaseFetchAnswer, CaseRequest, CaseResponse, HookName};
use super::opened::{self, PluginCallMode};
use super::run::{HookInvocation, StubUpstreams, upstreams};
use super::test::{fault_text, open};
use crate::output;
use lamina_plugin_host::Hook;

/// A recorded call. Fields that are not listed here are for people.
#[derive(Deserialize)]
struct RecordedCall {
    hook: HookName,
    inputs: ReplayInputs,
    /// Its error at the gateway.
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    config: Option<Value>,
}

#[derive(Deserialize)]
struct ReplayInputs {
    #[serde(flatten)]
    request: ReplayRequest,
    #[serde(default)]
    response: Option<CaseResponse>,
    #[serde(default)]
    fetch: BTreeMap<String, CaseFetchAnswer>,
}

/// The fields of [`CaseRequest`], among other fields.
#[derive(Deserialize)]
struct ReplayRequest {
    #[serde(default)]
    method: Option<String>,
    url: String,
    #[serde(default)]
    headers: super::cases::CaseHeaders,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    client: Option<std::net::IpAddr>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReplayFile {
    Many { calls: Vec<RecordedCall> },
    List(Vec<RecordedCall>),
    One(Box<RecordedCall>),
}

/// Makes the calls of a file again and prints their results. Returns whether all of them gave a
/// decision.
///
/// # Errors
/// Returns a message if the calls can't be read or the file is not a plugin.
pub async fn replay(file: &Path, calls: &Path, config: Option<Value>) -> Result<bool, String> {
    let text = std::fs::read_to_string(calls).map_err(|e| format!("{}: {e}", calls.display()))?;
    let kept = match read(&text).map_err(|why| format!("{}: {why}", calls.display()))? {
        ReplayFile::Many { calls } | ReplayFile::List(calls) => calls,
        ReplayFile::One(call) => vec![*call],
    };
    if kept.is_empty() {
        return Err(format!("{}: the file contains no call", calls.display()));
    }
    let opened = open(file).await?;
    let mut well = true;
    for call in kept {
        let config = config.as_ref().or(call.config.as_ref()).cloned();
        let config = config.unwrap_or_else(opened::no_config);
        let upstreams_known = upstreams(call.inputs.fetch.keys());
        let answers = StubUpstreams::default();
        answers.answer(&call.inputs.fetch);
        // Each call gets a new instance, as after a failed call.
        let yaml = opened.yaml(&config, &upstreams_known, &PluginCallMode::default());
        let configs = BTreeMap::from([("plugin".to_owned(), yaml)]);
        let plugins = opened::start(configs, answers.fetch()).await;
        let plugins = plugins.map_err(|cause| fault_text(file, &cause))?;
        let plugin = plugins.get("plugin").expect("it was just loaded");
        let hook = Hook::from(call.hook);
        if !plugin.has(hook) {
            return Err(format!(
                "{}: it has no hook `{hook}`; is this the plugin whose call failed?",
                file.display()
            ));
        }
        let asked = call.inputs.request.asked();
        output::line(format_args!("{hook}  {} {}", asked.method, asked.url));
        if let Some(error) = &call.error {
            output::line(format_args!("  at the gateway  {error}"));
        }
        let (request, response) = (&asked, call.inputs.response.as_ref());
        let prepared = HookInvocation {
            hook,
            request,
            response,
        }
        .prepare()?;
        match prepared.call(&plugin).await {
            Ok(decision) => output::line(format_args!("  here            {decision}")),
            Err(error) => {
                well = false;
                output::line(format_args!("  here            {error}"));
            }
        }
        for asked in answers.asked_in_vain() {
            output::line(format_args!(
                "  it requested `{asked}`; put an answer into `inputs.fetch` of the call to \
                 continue from there"
            ));
        }
    }
    Ok(well)
}

fn read(text: &str) -> Result<ReplayFile, String> {
    serde_json::from_str(text).map_err(|error| {
        format!(
            "{error}; expected {{\"hook\": \"key\", \"inputs\": {{\"url\": \"…\", \"headers\": {{}}}}}}, as \
             GET /v1/plugins/NAME/calls gives it"
        )
    })
}

impl ReplayRequest {
    fn asked(self) -> CaseRequest {
        CaseRequest {
            method: self.method.unwrap_or_else(|| "GET".to_owned()),
            url: self.url,
            headers: self.headers,
            body: self.body.unwrap_or_default(),
            client: self.client,
        }
    }
}
