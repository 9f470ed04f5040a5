//! Checks the meaning of a configuration whose syntax and types are correct.
//!
//! All errors are reported together, each with its own path. This reads no clock, no file and no
//! network: the secrets have been read before.

use super::GatewayConfig;
use super::problem::{ConfigFinding, ConfigPath, path};
use crate::units::ByteSize;

pub use rules::compress::warnings as compress_warnings;
pub use upstreams::{listed_targets, named_twice};

use collector::FindingCollector;

mod admin_listener;
mod automatic;
mod cache_tiers;
mod collector;
mod event_bus;
mod form;
mod listener_tls;
mod listeners;
mod plugins;
mod policy;
mod purge_method;
mod routes;
mod rules;
mod upstreams;

/// The least bytes of a `seal_key`.
const MIN_SEAL_KEY: usize = 16;

/// With less memory, not even a few answers under way would fit, and nothing could be loaded.
const LEAST_HELD: ByteSize = ByteSize::mib(1);
/// The most requests that may be kept in memory as the last ones.
const MOST_RECENT: usize = 10_000;

/// Finds everything in `config` that cannot work or cannot be intended.
pub fn check(config: &GatewayConfig) -> Vec<ConfigFinding> {
    let mut report = FindingCollector::default();
    server(config, &mut report);
    listeners::check(config, &mut report);
    upstreams::check(config, &mut report);
    cache_tiers::check(config, &mut report);
    policy::check(
        &config.defaults.policy,
        &Default::default(),
        &path(&["defaults"]),
        &mut report,
    );
    if let Some(given) = &config.defaults.compress {
        let at = path(&["defaults", "compress"]);
        rules::compress::check(given, &at, &mut report);
    }
    rules::limits::check_named(config, &mut report);
    routes::check(config, &mut report);
    plugins::check(config, &mut report);
    if let Some(given) = &config.bus {
        event_bus::check(config, given, &mut report);
    }
    automatic::check(config, &mut report);
    admin_listener::check(&config.admin, &path(&["admin"]), &mut report);
    purge_method::check(config, &mut report);
    recent_requests(config, &mut report);
    report.findings
}

fn server(config: &GatewayConfig, report: &mut FindingCollector) {
    if let Some(threads) = config.server.threads.filter(|n| !(1..=1024).contains(n)) {
        report.add(
            path(&["server", "threads"]),
            format!("{threads} threads; expected 1 to 1024, or no key for one per core"),
        );
    }
    let held = config.server.max_held_bytes;
    if held.0 < LEAST_HELD.0 {
        report.add(
            path(&["server", "max_held_bytes"]),
            format!(
                "{held} is too little for the answers that are being sent; expected {LEAST_HELD} \
                 or more"
            ),
        );
    }
}

fn recent_requests(config: &GatewayConfig, report: &mut FindingCollector) {
    let (recent, at) = (
        &config.telemetry.recent_requests,
        path(&["telemetry", "recent_requests"]),
    );
    if recent.keep > MOST_RECENT {
        let message = format!(
            "{} requests would take too much memory; expected at most {MOST_RECENT}, or 0 to \
             keep none",
            recent.keep
        );
        report.add(at.key("keep"), message);
    }
    if recent.one_hit_in == 0 {
        let message = "0 is not valid; expected 1 to keep each hit, or more to keep fewer";
        report.add(at.key("one_hit_in"), message);
    }
}

/// Checks a seal key: whoever gets sealed events or records can try keys without limit.
fn seal_key(key: &Option<String>, at: &ConfigPath, report: &mut FindingCollector) {
    let bytes = key.as_ref().map_or(usize::MAX, |key| key.trim().len());
    if bytes < MIN_SEAL_KEY {
        let message = format!(
            "{bytes} bytes can be guessed; expected {MIN_SEAL_KEY} or more random bytes, as from \
             `openssl rand -hex 32`, the same on all nodes"
        );
        report.add(at.clone(), message);
    }
}

/// A small number as a word.
fn in_words(number: usize) -> String {
    let words = ["none", "one", "two", "three", "four", "five", "six"];
    let word = words.get(number);
    word.map_or_else(|| number.to_string(), |word| (*word).to_owned())
}
