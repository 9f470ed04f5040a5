//! The configured transport under names that no gateway uses: `lamina doctor` makes its round trips
//! with it, while gateways run over the same broker.
//!
//! Channel, subject and exchange are the configured ones, because the trial tests the rights to
//! them and how they are set up on the server. What keeps messages for one node (a durable
//! consumer, a queue) is the trial's own: if the trial read from a gateway's queue, that gateway
//! would lose the messages. Where the broker has nothing yet, the trial leaves nothing behind.

use std::sync::Arc;

use super::config::BusConfig;
use super::transport::BusTransport;
use super::{BusOpenError, nats, open, rabbitmq};

/// A trial, until [`clear`](Self::clear) removes what it made.
pub struct BusTrial {
    bus: BusConfig,
    place: TrialResources,
}

/// What was made on the broker and must be removed.
enum TrialResources {
    /// Nothing that outlives a connection.
    Nowhere,
    Nats(Box<nats::trial::NatsTrial>),
    Rabbitmq(Box<rabbitmq::trial::RabbitMqTrial>),
}

/// One thing that was examined on the broker.
#[derive(Debug)]
pub struct BrokerFinding {
    /// Its name, in a word or two.
    pub what: &'static str,
    pub says: String,
    /// The key of the configuration that it disagrees with, for example `nats.jetstream.stream`.
    pub fault: Option<&'static str>,
}

impl BusTrial {
    /// Examines what is on the broker. The caller sets a deadline.
    ///
    /// # Errors
    /// Why the broker does not answer, or why a gateway could not work with it.
    pub async fn prepare(
        bus: &BusConfig,
        mark: &str,
    ) -> Result<(Self, Vec<BrokerFinding>), String> {
        let (place, seen) = if let Some(nats) = &bus.nats {
            let (trial, seen) = nats::trial::NatsTrial::prepare(nats, mark).await?;
            (TrialResources::Nats(Box::new(trial)), seen)
        } else if let Some(rabbitmq) = &bus.rabbitmq {
            let (trial, seen) = rabbitmq::trial::RabbitMqTrial::prepare(rabbitmq).await?;
            (TrialResources::Rabbitmq(Box::new(trial)), seen)
        } else {
            (TrialResources::Nowhere, Vec::new())
        };
        let bus = bus.clone();
        Ok((Self { bus, place }, seen))
    }

    /// Makes one end of the trial. Each end needs another `name`.
    ///
    /// # Errors
    /// When a setting is not valid, or a file can't be read.
    pub fn open(&self, name: &str) -> Result<Option<Arc<dyn BusTransport>>, BusOpenError> {
        let mut bus = self.bus.clone();
        match &self.place {
            TrialResources::Nowhere => {}
            TrialResources::Nats(trial) => bus.nats = Some(trial.end(name)),
            TrialResources::Rabbitmq(trial) => bus.rabbitmq = Some(trial.end()),
        }
        open(&bus)
    }

    /// Removes what was made under these names. The ends must be dropped before. The caller sets a
    /// deadline.
    ///
    /// # Errors
    /// Why something may still be there.
    pub async fn clear(&self, names: &[&str]) -> Result<(), String> {
        match &self.place {
            TrialResources::Nowhere => Ok(()),
            TrialResources::Nats(trial) => trial.clear(names).await,
            TrialResources::Rabbitmq(trial) => trial.clear().await,
        }
    }
}
