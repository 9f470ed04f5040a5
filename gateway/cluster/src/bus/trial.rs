//! The configured transport under names that no gateway has: what `lamina doctor` makes its
//! round trips with, while gateways run over the same broker.
//!
//! Channel, subject and exchange are the configured ones, since the rights to them and what they are
//! on the server is what is tried. What keeps messages for one node (a durable consumer, a
//! queue) is the trial's own: that of a gateway would lose what is read here. Where the
//! broker has nothing yet, nothing is left there either.

use std::sync::Arc;

use super::config::BusConfig;
use super::transport::BusTransport;
use super::{BusOpenError, nats, open, rabbitmq};

/// A trial, until it is cleared up.
pub struct BusTrial {
    bus: BusConfig,
    place: TrialResources,
}

/// What was made on the broker, and is to go.
enum TrialResources {
    /// Nothing that outlives a connection.
    Nowhere,
    Nats(Box<nats::trial::NatsTrial>),
    Rabbitmq(Box<rabbitmq::trial::RabbitMqTrial>),
}

/// Something on the broker that was looked at.
#[derive(Debug)]
pub struct BrokerFinding {
    /// In a word or two.
    pub what: &'static str,
    pub says: String,
    /// The key of the configuration that it disagrees with, as `nats.jetstream.stream`.
    pub fault: Option<&'static str>,
}

impl BusTrial {
    /// Looks at what there is. The caller bounds it by a deadline.
    ///
    /// # Errors
    /// Why the broker says nothing, or why a gateway could not work over it.
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

    /// One end; `name` is another one for each.
    ///
    /// # Errors
    /// What can't be meant, or a file that can't be read.
    pub fn open(&self, name: &str) -> Result<Option<Arc<dyn BusTransport>>, BusOpenError> {
        let mut bus = self.bus.clone();
        match &self.place {
            TrialResources::Nowhere => {}
            TrialResources::Nats(trial) => bus.nats = Some(trial.end(name)),
            TrialResources::Rabbitmq(trial) => bus.rabbitmq = Some(trial.end()),
        }
        open(&bus)
    }

    /// Takes away what was made under these names. The ends are to be dropped before; the caller bounds it
    /// by a deadline.
    ///
    /// # Errors
    /// Why something may be left.
    pub async fn clear(&self, names: &[&str]) -> Result<(), String> {
        match &self.place {
            TrialResources::Nowhere => Ok(()),
            TrialResources::Nats(trial) => trial.clear(names).await,
            TrialResources::Rabbitmq(trial) => trial.clear().await,
        }
    }
}
