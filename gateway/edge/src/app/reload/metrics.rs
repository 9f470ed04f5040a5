//! The metrics of the configuration and of its changes.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::telemetry::metrics::Registry;

/// The metrics, created once for the process.
pub struct ReloadMetrics {
    info: IntGaugeVec,
    success: IntGauge,
    changed_at: IntGauge,
    reloads: IntCounterVec,
    pub old_engines: IntGauge,
}

impl ReloadMetrics {
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            info: IntGaugeVec::new(
                Opts::new(
                    "lamina_config_info",
                    "1 for the configuration that is in use, with the beginning of its hash.",
                ),
                &["hash"],
            )?,
            success: IntGauge::new(
                "lamina_config_last_reload_success",
                "0 if the last attempt to take up the configuration has failed, else 1; it is 1 again when the files say what is in use.",
            )?,
            changed_at: IntGauge::new(
                "lamina_config_last_reload_seconds",
                "When the configuration was last taken up, at the start or later, in seconds since 1970.",
            )?,
            reloads: IntCounterVec::new(
                Opts::new(
                    "lamina_config_reloads_total",
                    "Attempts to take up the configuration while the gateway runs, by what came of them: applied, invalid, not_live, failed or busy.",
                ),
                &["outcome"],
            )?,
            old_engines: IntGauge::new(
                "lamina_config_old_engines",
                "Configurations that were replaced and that requests still run on.",
            )?,
        };
        registry.register(Box::new(metrics.info.clone()))?;
        registry.register(Box::new(metrics.success.clone()))?;
        registry.register(Box::new(metrics.changed_at.clone()))?;
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.old_engines.clone()))?;
        Ok(metrics)
    }

    /// Notes that the configuration with this hash is in use from now on.
    pub fn in_use(&self, hash: &str) {
        self.info.reset();
        self.info.with_label_values(&[hash]).set(1);
        self.success.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        self.changed_at.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// Counts an attempt. `outcome` is one of the words of the metric.
    pub fn count(&self, outcome: &str) {
        self.reloads.with_label_values(&[outcome]).inc();
    }

    /// Notes that the files say what is in use, so that nothing waits to be taken up.
    pub fn repaired(&self) {
        self.success.set(1);
    }

    /// Notes that the configuration could not be taken up.
    pub fn failed(&self) {
        self.success.set(0);
    }
}
