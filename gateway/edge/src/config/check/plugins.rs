//! Checks the plugins and the limits under which they are compiled and run.

use super::collector::FindingCollector;
use super::form;
use crate::config::GatewayConfig;
use crate::config::problem::path;
use crate::units::ByteSize;

/// The least memory that compiles a small plugin.
const LEAST_TO_COMPILE: ByteSize = ByteSize::mib(64);

pub(super) fn check(config: &GatewayConfig, report: &mut FindingCollector) {
    let compile = &config.plugins.compile;
    let at = path(&["plugins", "compile"]);
    if compile.memory < LEAST_TO_COMPILE {
        let message = format!(
            "{} is less than any plugin needs to be compiled; expected {LEAST_TO_COMPILE} or more",
            compile.memory
        );
        report.add(at.key("memory"), message);
    }
    report.positive(at.key("time"), compile.time.0.as_secs());
    for (name, plugin) in &config.plugins.by_name {
        let at = path(&["plugins"]).key(name);
        report.form_of_key(&at, form::name(name));
        if !(plugin.config.is_null() || plugin.config.is_object()) {
            report.add(
                at.key("config"),
                "not a mapping; expected keys and values for the plugin",
            );
        }
        for (n, upstream) in plugin.fetch.iter().enumerate() {
            report.known(
                at.key("fetch").index(n),
                "upstream",
                upstream,
                &config.upstreams,
            );
        }
        let limits = &plugin.limits;
        if limits.recycle_memory > limits.max_memory {
            let message = format!(
                "never reached: above max_memory ({}); expected at most that",
                limits.max_memory
            );
            report.add(at.key("limits").key("recycle_memory"), message);
        }
        report.positive(
            at.key("limits").key("key_timeout"),
            limits.key_timeout.0.as_millis() as u64,
        );
        report.positive(
            at.key("limits").key("load_timeout"),
            limits.load_timeout.0.as_millis() as u64,
        );
        report.positive(at.key("limits").key("max_memory"), limits.max_memory.0);
        if limits.max_memory > config.plugins.max_total_memory {
            let message = format!(
                "never reached: above plugins.max_total_memory ({}), which all instances share; \
                 expected at most that",
                config.plugins.max_total_memory
            );
            report.add(at.key("limits").key("max_memory"), message);
        }
        report.positive(at.key("limits").key("max_stack"), limits.max_stack.0);
        report.positive(at.key("limits").key("max_requests"), limits.max_requests);
        report.positive(
            at.key("limits").key("max_concurrent"),
            limits.max_concurrent as u64,
        );
    }
}
