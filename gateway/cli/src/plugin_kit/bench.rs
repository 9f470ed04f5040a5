//! `lamina plugin bench FILE`: what a call costs in a fresh instance, in a reused one, and with a
//! remembered key; and how much memory an instance holds.
//!
//! Calls are made one after the other on one thread, through the gateway's own code. The requests
//! come from a file of cases, or a few are made up.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cases::{CaseFile, CaseRequest, PluginTestCase};
use super::opened::{self, InspectedPlugin, PluginCallMode};
use super::run::{HookInvocation, PreparedInvocation, StubUpstreams, upstreams};
use super::test::{fault_text, open};
use lamina_plugin_host::config::Isolation;
use lamina_plugin_host::{Hook, Plugin};

/// The number of instances that are held to measure their memory.
const HELD: usize = 16;
/// The three kinds of calls, in the order of the table's columns.
const WAYS: [&str; 3] = ["fresh", "reused", "remembered"];

/// The cost of calls. Its `Display` is a table.
pub struct CallCostTable {
    rows: Vec<CallCostRow>,
    /// Bytes of linear memory of one instance, and how many bytes of memory the process uses for
    /// it.
    linear: usize,
    resident: Option<usize>,
}

struct CallCostRow {
    hook: Hook,
    /// Microseconds for each call, in the order of [`WAYS`].
    micros: [Option<f64>; 3],
}

/// Calls every hook, for `seconds` in total.
///
/// # Errors
/// Returns a message if the file is not a plugin or if a call fails.
pub async fn bench(
    file: &Path,
    cases: Option<&Path>,
    config: Option<Value>,
    seconds: f64,
) -> Result<CallCostTable, String> {
    let cases = cases.map(CaseFile::read).transpose()?;
    let opened = open(file).await?;
    let config = config.or_else(|| cases.as_ref()?.config.clone());
    let config = config.unwrap_or_else(opened::no_config);
    let cases = cases.map_or_else(Vec::new, |cases| cases.cases);
    let answers = StubUpstreams::default();
    // The `config` of a single case is ignored: all calls go to one plugin.
    answers.answer(&cases.iter().flat_map(|case| case.fetch.clone()).collect());
    let granted = upstreams(cases.iter().flat_map(|case| case.fetch.keys()));
    let configs = configs(&opened, &config, &granted);
    let plugins = opened::start(configs, answers.fetch()).await;
    let plugins = plugins.map_err(|cause| fault_text(file, &cause))?;
    let ways = WAYS.map(|way| plugins.get(way).expect("it was just loaded"));
    let (linear, resident) = weigh(&ways[1]).await?;
    let hooks: Vec<Hook> = Hook::ALL
        .into_iter()
        .filter(|hook| ways[1].has(*hook))
        .collect();
    let parts = hooks.len().max(1) * WAYS.len();
    let each = Duration::try_from_secs_f64(seconds / parts as f64)
        .map_err(|_| format!("--seconds {seconds}: expected a time, as 3 or 0.5"))?;
    let mut rows = Vec::new();
    for hook in hooks {
        let calls = calls(&cases, hook)?;
        let mut micros = [None; 3];
        for (at, plugin) in ways.iter().enumerate() {
            // Only keys are remembered.
            if WAYS[at] != "remembered" || hook == Hook::Key {
                let measured = measure(plugin, &calls, each).await;
                micros[at] =
                    Some(measured.map_err(|why| format!("{}: `{hook}`: {why}", file.display()))?);
            }
        }
        rows.push(CallCostRow { hook, micros });
    }
    Ok(CallCostTable {
        rows,
        linear,
        resident,
    })
}

fn configs(
    opened: &InspectedPlugin,
    config: &Value,
    granted: &[String],
) -> BTreeMap<String, lamina_plugin_host::config::PluginConfig> {
    let way = |name: &str| PluginCallMode {
        isolation: match name {
            "fresh" => Isolation::PerRequest,
            _ => Isolation::Reuse,
        },
        remembers: name == "remembered",
    };
    let all = WAYS.map(|name| (name.to_owned(), opened.yaml(config, granted, &way(name))));
    BTreeMap::from(all)
}

/// The calls of one hook: those of the cases, or one that is made up.
fn calls(cases: &[PluginTestCase], hook: Hook) -> Result<Vec<PreparedInvocation>, String> {
    let of_hook = cases.iter().filter(|case| Hook::from(case.hook) == hook);
    let mut calls = Vec::new();
    for case in of_hook {
        let (request, response) = (&case.request, case.response.as_ref());
        let call = HookInvocation {
            hook,
            request,
            response,
        }
        .prepare();
        calls.push(call.map_err(|why| format!("{}: {why}", case.name))?);
    }
    if calls.is_empty() {
        let (request, answer) = made_up();
        let response = Some(&answer);
        calls.push(
            HookInvocation {
                hook,
                request: &request,
                response,
            }
            .prepare()?,
        );
    }
    Ok(calls)
}

fn made_up() -> (CaseRequest, super::cases::CaseResponse) {
    let request = json!({
        "url": "http://shop.example/search?q=tea&page=2&utm_source=letter",
        "headers": {
            "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
            "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "accept-language": "de-DE,de;q=0.9,en;q=0.5",
            "accept-encoding": "gzip, br",
            "cookie": "session=0123456789abcdef; currency=EUR",
        },
    });
    let answer = json!({"status": 200, "headers": {"content-type": "text/html", "cache-control": "max-age=60"}});
    let read = "its form is that of a case";
    (
        serde_json::from_value(request).expect(read),
        serde_json::from_value(answer).expect(read),
    )
}

/// Microseconds for each call, measured for the time `each` and at least one round of the calls.
async fn measure(
    plugin: &Arc<Plugin>,
    calls: &[PreparedInvocation],
    each: Duration,
) -> Result<f64, String> {
    let round = async || -> Result<(), String> {
        for call in calls {
            call.call(plugin).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    round().await?;
    let (began, mut rounds) = (Instant::now(), 0_u32);
    while rounds == 0 || began.elapsed() < each {
        round().await?;
        rounds += 1;
    }
    let made = f64::from(rounds) * calls.len() as f64;
    Ok(began.elapsed().as_secs_f64() * 1e6 / made)
}

/// Bytes of linear memory of one instance, and bytes of memory that the process uses for it.
async fn weigh(plugin: &Plugin) -> Result<(usize, Option<usize>), String> {
    let before = resident();
    let held = plugin.hold(HELD).await.map_err(|error| error.to_string())?;
    let linear = held.linear_memory();
    let each = match (before, resident()) {
        (Some(before), Some(after)) => Some(after.saturating_sub(before) / HELD),
        _ => None,
    };
    Ok((linear, each))
}

/// Bytes of memory that this process uses, as Linux reports it.
fn resident() -> Option<usize> {
    let told = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

impl CallCostTable {
    /// The table for programs.
    pub fn json(&self) -> Value {
        let row = |row: &CallCostRow| {
            let columns = WAYS.iter().zip(row.micros);
            let columns = columns.map(|(way, micros)| (format!("{way}_us"), json!(micros)));
            (row.hook.to_string(), Value::Object(columns.collect()))
        };
        json!({
            "hooks": Value::Object(self.rows.iter().map(row).collect()),
            "instance": {"linear_bytes": self.linear, "resident_bytes": self.resident},
        })
    }
}

impl fmt::Display for CallCostTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:10}{:>12}{:>12}{:>12}   µs a call",
            "hook", WAYS[0], WAYS[1], WAYS[2]
        )?;
        for row in &self.rows {
            write!(f, "{:10}", row.hook.as_str())?;
            for micros in row.micros {
                match micros {
                    Some(micros) => write!(f, "{micros:12.2}")?,
                    None => write!(f, "{:>12}", "-")?,
                }
            }
            writeln!(f)?;
        }
        write!(
            f,
            "{:10}{} KiB linear",
            "instance",
            self.linear.div_ceil(1024)
        )?;
        match self.resident {
            Some(bytes) => writeln!(f, ", {} KiB in use when fresh", bytes.div_ceil(1024)),
            None => writeln!(f),
        }
    }
}
