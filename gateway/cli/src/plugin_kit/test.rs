//! `lamina plugin test FILE --cases cases.yaml`: calls hooks with given requests and compares the
//! results.
//!
//! Cases with the same configuration share one instance, as requests do in a gateway. Keys are not
//! remembered, so every case makes a call. The result of each case is printed at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::cases::{CaseFile, PluginTestCase};
use super::check;
use super::compare::differences;
use super::opened::{self, InspectedPlugin, PluginCallMode};
use super::run::{HookInvocation, StubUpstreams, upstreams};
use crate::output;
use lamina_plugin_host::{Hook, Plugin, PluginSet};

/// How many cases there were, and how many failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TestScore {
    pub cases: usize,
    pub failed: usize,
}

/// Runs the cases of a file and prints one line for each case. `config` replaces that of the file.
///
/// # Errors
/// Returns a message if the cases can't be read or the file is not a plugin.
pub async fn test(file: &Path, cases: &Path, config: Option<Value>) -> Result<TestScore, String> {
    let cases = CaseFile::read(cases)?;
    let opened = open(file).await?;
    let general = config.or_else(|| cases.config.clone());
    let granted = granted(&cases, general.as_ref());
    let mut bench = PluginTestBench {
        opened,
        granted,
        upstreams: StubUpstreams::default(),
        started: BTreeMap::new(),
    };
    let mut score = TestScore::default();
    for case in &cases.cases {
        score.cases += 1;
        let faults = bench.run(case, general.as_ref()).await;
        output::text(format_args!(
            "{:4}  {}\n{faults}",
            if faults.is_empty() { "ok" } else { "FAIL" },
            case.name
        ));
        score.failed += usize::from(!faults.is_empty());
    }
    output::line(format_args!(
        "{} cases, {} failed",
        score.cases, score.failed
    ));
    Ok(score)
}

/// Inspects a file. An error comes with advice about what to do.
pub(super) async fn open(file: &Path) -> Result<InspectedPlugin, String> {
    opened::open(file)
        .await
        .map_err(|cause| fault_text(file, &cause))
}

/// The message about a refusal.
pub(super) fn fault_text(file: &Path, cause: &lamina_plugin_host::PluginFault) -> String {
    let advice =
        check::advice(cause).map_or(String::new(), |advice| format!("\nWhat to do: {advice}"));
    format!("{}: {cause}{advice}", file.display())
}

/// The upstreams that plugins may call: those that have answers, and those that the configurations
/// name, so that a missing answer is `unavailable` and not `denied`.
fn granted(cases: &CaseFile, general: Option<&Value>) -> Vec<String> {
    let listed = cases.cases.iter().flat_map(|case| case.fetch.keys());
    let mut names = BTreeSet::from_iter(upstreams(listed));
    let configs = cases.cases.iter().filter_map(|case| case.config.as_ref());
    configs
        .chain(general)
        .for_each(|config| texts(config, &mut names));
    names.into_iter().collect()
}

fn texts(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => _ = found.insert(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(values) => values.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

struct PluginTestBench {
    opened: InspectedPlugin,
    granted: Vec<String>,
    upstreams: StubUpstreams,
    /// The plugins that were started, by the text of their configuration.
    started: BTreeMap<String, Result<PluginSet, String>>,
}

impl PluginTestBench {
    /// Describes what is wrong with a case, in lines. Empty if the case passes.
    async fn run(&mut self, case: &PluginTestCase, general: Option<&Value>) -> String {
        let nothing = opened::no_config();
        let config = case.config.as_ref().or(general).unwrap_or(&nothing);
        let (hook, upstreams) = (Hook::from(case.hook), self.upstreams.clone());
        let call = HookInvocation {
            hook,
            request: &case.request,
            response: case.response.as_ref(),
        };
        let call = match call.prepare() {
            Ok(call) => call,
            Err(why) => return format!("        {why}\n"),
        };
        let plugin = match self.plugin(config).await {
            Ok(plugin) => plugin,
            Err(why) => return format!("        with the config {config}: {why}\n"),
        };
        if !plugin.has(hook) {
            let has = plugin.report().hooks.join(", ");
            return format!("        the plugin has no hook `{hook}`; it has: {has}\n");
        }
        upstreams.answer(&case.fetch);
        let got = call.tell(&plugin).await;
        let mut faults: String = differences(&case.expect, &got)
            .iter()
            .map(ToString::to_string)
            .collect();
        if !faults.is_empty() {
            for asked in upstreams.asked_in_vain() {
                faults.push_str(&format!(
                    "        it asked `{asked}`, which `fetch` does not list: unavailable\n"
                ));
            }
        }
        faults
    }

    async fn plugin(&mut self, config: &Value) -> Result<Arc<Plugin>, String> {
        let name = config.to_string();
        if !self.started.contains_key(&name) {
            let yaml = self
                .opened
                .yaml(config, &self.granted, &PluginCallMode::default());
            let configs = BTreeMap::from([("plugin".to_owned(), yaml)]);
            let plugins = opened::start(configs, self.upstreams.fetch()).await;
            let plugins = plugins.map_err(|cause| cause.to_string());
            self.started.insert(name.clone(), plugins);
        }
        match &self.started[&name] {
            Ok(plugins) => Ok(plugins.get("plugin").expect("it was just loaded")),
            Err(why) => Err(why.clone()),
        }
    }
}
