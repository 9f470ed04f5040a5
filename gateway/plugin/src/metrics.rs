//! The Prometheus metrics of plugins. Labels are configured names and fieldless enums; their
//! children are resolved when a plugin is loaded, not when it is called.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::Hook;
use super::error::{CallError, CallErrorKind};

/// From one microsecond (a warm `key`) to ten seconds (the deadline of a `load`).
const BUCKETS: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 2.5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0,
    2.5, 5.0, 10.0,
];

/// The metric families of plugins, made once for the process. A plugin in a later set continues the
/// counters of an earlier plugin with the same name.
#[derive(Clone)]
pub struct PluginFamilies {
    calls: IntCounterVec,
    duration: HistogramVec,
    instances: IntGaugeVec,
    memo: IntCounterVec,
    denied: IntCounterVec,
    impure: IntCounterVec,
}

/// The metrics of one plugin.
pub(super) struct PluginMetrics {
    calls: [HookMetrics; Hook::ALL.len()],
    pub(super) instances: IntGauge,
    pub(super) memo_hits: IntCounter,
    pub(super) memo_misses: IntCounter,
    pub(super) denied: IntCounter,
    pub(super) impure: IntCounter,
}

/// The metrics of one hook of one plugin.
struct HookMetrics {
    ok: IntCounter,
    failed: [IntCounter; CallErrorKind::ALL.len()],
    duration: Histogram,
}

impl PluginFamilies {
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let duration = HistogramOpts::new(
            "lamina_plugin_call_duration_seconds",
            "Duration of calls into plugins.",
        );
        let families = Self {
            calls: counter(
                "lamina_plugin_calls_total",
                "Calls into plugins.",
                &["plugin", "phase", "outcome"],
            )?,
            duration: HistogramVec::new(duration.buckets(BUCKETS.to_vec()), &["plugin", "phase"])?,
            instances: IntGaugeVec::new(
                Opts::new("lamina_plugin_instances", "Live instances of plugins."),
                &["plugin"],
            )?,
            memo: counter(
                "lamina_plugin_memo_total",
                "Look-ups of remembered keys.",
                &["plugin", "result"],
            )?,
            denied: counter(
                "lamina_plugin_denied_fetches_total",
                "Fetches of plugins that were refused because their target is not granted.",
                &["plugin"],
            )?,
            impure: counter(
                "lamina_plugin_impure_total",
                "Keys that were derived again from the same inputs and were different.",
                &["plugin"],
            )?,
        };
        let all: [Box<dyn Collector>; 6] = [
            Box::new(families.calls.clone()),
            Box::new(families.duration.clone()),
            Box::new(families.instances.clone()),
            Box::new(families.memo.clone()),
            Box::new(families.denied.clone()),
            Box::new(families.impure.clone()),
        ];
        all.into_iter()
            .try_for_each(|family| registry.register(family))?;
        Ok(families)
    }

    pub(super) fn of(&self, plugin: &str) -> PluginMetrics {
        PluginMetrics {
            calls: Hook::ALL.map(|hook| self.calls(plugin, hook)),
            instances: self.instances.with_label_values(&[plugin]),
            memo_hits: self.memo.with_label_values(&[plugin, "hit"]),
            memo_misses: self.memo.with_label_values(&[plugin, "miss"]),
            denied: self.denied.with_label_values(&[plugin]),
            impure: self.impure.with_label_values(&[plugin]),
        }
    }

    fn calls(&self, plugin: &str, hook: Hook) -> HookMetrics {
        let phase = hook.as_str();
        HookMetrics {
            ok: self.calls.with_label_values(&[plugin, phase, "ok"]),
            failed: CallErrorKind::ALL.map(|kind| {
                self.calls
                    .with_label_values(&[plugin, phase, kind.as_str()])
            }),
            duration: self.duration.with_label_values(&[plugin, phase]),
        }
    }
}

impl PluginMetrics {
    /// Counts a call that was not made because the plugin is set aside.
    pub(super) fn not_called(&self, hook: Hook) {
        let kind = CallErrorKind::Quarantined as usize;
        self.calls[hook as usize].failed[kind].inc();
    }

    /// Counts a call that took `seconds`.
    pub(super) fn called<T>(&self, hook: Hook, result: &Result<T, CallError>, seconds: f64) {
        let calls = &self.calls[hook as usize];
        match result {
            Ok(_) => calls.ok.inc(),
            Err(error) => calls.failed[error.kind() as usize].inc(),
        }
        calls.duration.observe(seconds);
    }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}
