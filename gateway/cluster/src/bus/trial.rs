//! The configured transport under names that no gateway uses: `lamina doctor` makes its round trips
//! with it, while gateways run over the same broker.
//!
//! Channel, subject and exchange are the configured ones, because the trial tests the rights to
//! them and how they are set up on the server. What keeps messages for one node (a durable
//! consumer, a queue) is the trial's own: if the trial read from a gateway's queue, that gateway
//! would lose the messages. Where the broker has nothing yet, the trial leaves nothing behind.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::transport::BusTransport;
use crate::description::InvalidSetting;

/// A trial, until [`clear`](Self::clear) removes what it made.
pub trait TransportTrial: Send + Sync {
    /// Makes one end of the trial. Each end needs another `name`.
    ///
    /// # Errors
    /// When a setting is not valid, or a file can't be read.
    fn open(&self, name: &str) -> Result<Arc<dyn BusTransport>, InvalidSetting>;

    /// Removes what was made under these names. The ends must be dropped before. The caller sets a
    /// deadline.
    ///
    /// # Errors
    /// Why something may still be there.
    fn clear<'a>(&'a self, names: &'a [&'a str]) -> BoxFuture<'a, Result<(), String>>;
}

/// A trial that can begin, and what was found on the broker before it.
pub type PreparedTrial = (Box<dyn TransportTrial>, Vec<BrokerFinding>);

/// One thing that was examined on the broker.
#[derive(Debug)]
pub struct BrokerFinding {
    /// Its name, in a word or two.
    pub what: &'static str,
    pub says: String,
    /// The key of the configuration that it disagrees with, for example `nats.jetstream.stream`.
    pub fault: Option<&'static str>,
}
