//! What the rest of the program may ask of a configured transport, and the table of all transports.
//!
//! Whoever adds a transport writes a module whose configuration implements
//! [`TransportDescription`], gives [`BusConfig`] its section, and names that section in the table
//! at the end of this file. Nobody else names a transport.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::config::BusConfig;
use super::transport::{BusTransport, Guarantee};
use super::trial::PreparedTrial;
use crate::description::{InvalidSetting, SectionDescription};
use crate::units::ConfigDuration;

/// A configured transport, before it is opened.
pub trait TransportDescription: SectionDescription + Send + Sync {
    /// Its name in metrics, logs and `lamina doctor`.
    fn kind(&self) -> &'static str;

    /// What it guarantees.
    fn guarantee(&self) -> Guarantee;

    /// Checks whether the configuration is valid, as far as that is known without reading files or
    /// using the network.
    ///
    /// # Errors
    /// The first setting that is not valid.
    fn check(&self) -> Result<(), InvalidSetting>;

    /// Makes the transport. It does not connect yet.
    ///
    /// # Errors
    /// When a setting is not valid, or a file can't be read. A server that is down is not an error.
    fn open(&self) -> Result<Arc<dyn BusTransport>, InvalidSetting>;

    /// How reliably each event arrives, in sentences for `lamina doctor`. `noticed_after`: the time
    /// after which a loss is noticed at the latest.
    fn promises(&self, noticed_after: ConfigDuration) -> Vec<String>;

    /// Examines what is on the broker, and prepares a trial of the transport. `mark` is a text that
    /// no other trial has. The caller sets a deadline.
    ///
    /// # Errors
    /// Why the broker does not answer, or why a gateway could not work with it.
    fn prepare_trial<'a>(&'a self, mark: &'a str) -> BoxFuture<'a, Result<PreparedTrial, String>>;

    /// Whether an end of a trial gets what was published while it was away.
    fn trial_outlasts_absence(&self) -> bool {
        false
    }

    /// Whether the broker would keep a large event of a trial for nodes that are away.
    fn keeps_large_trial_events(&self) -> bool {
        false
    }
}

/// The promise of a transport that keeps nothing.
pub(super) fn at_most_once(by: &str, noticed_after: ConfigDuration) -> String {
    format!(
        "{by} delivers at most once: a purge that was lost is noticed by the next one or a \
         heartbeat, after {noticed_after} at most, and asked for again"
    )
}

impl BusConfig {
    /// The transport that is used, if one is configured.
    pub fn transport(&self) -> Option<&dyn TransportDescription> {
        self.transports().into_iter().next()
    }
}

// The table of all transports. The first one that is configured is used.
lamina_base::described_sections! {
    BusConfig, TransportDescription, TRANSPORTS, transports, transports_mut: redis, nats, rabbitmq
}
