//! The event bus: it carries the events of one node to all other nodes.
//!
//! Inside: `transport` (the trait) and its four kinds `redis`, `nats` (core and JetStream) and
//! `rabbitmq`; `event` (the events and their bytes); `outbox` (publishes in the background and
//! retries until the broker has taken the event) and `inbox` (turns received bytes into events to
//! apply: namespace, seals, own echo, duplicates and replays); `seal` (proves which nodes an event
//! comes from) and `replay` (recognizes an event that came before); `trial` (the transport under
//! names of its own, for `lamina doctor`). The module `cluster` applies the events.

pub mod config;
mod dedupe;
pub mod event;
pub mod inbox;
pub mod nats;
pub mod outbox;
pub mod rabbitmq;
pub mod redis;
mod refusals;
mod replay;
pub mod seal;
pub mod transport;
pub mod trial;

use std::path::PathBuf;
use std::sync::Arc;

use config::BusConfig;
use transport::BusTransport;

/// Why the bus can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum BusOpenError {
    #[error(transparent)]
    Redis(#[from] redis::RedisBusOpenError),
    #[error(transparent)]
    Nats(#[from] nats::NatsOpenError),
    #[error(transparent)]
    Rabbitmq(#[from] rabbitmq::RabbitMqOpenError),
}

impl BusOpenError {
    /// The section of the configuration that the error is about, and the key in it.
    pub fn place(&self) -> (&'static str, &'static str) {
        match self {
            Self::Redis(error) => ("redis", error.key()),
            Self::Nats(error) => ("nats", error.key()),
            Self::Rabbitmq(error) => ("rabbitmq", error.key()),
        }
    }
}

impl BusConfig {
    /// The files that this configuration names, except those that hold secrets.
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let nats = self.nats.as_mut();
        let nats = nats.map(|nats| [nats.ca_file.as_mut(), nats.credentials_file.as_mut()]);
        let rabbitmq = self.rabbitmq.as_mut().and_then(|r| r.ca_file.as_mut());
        let nats = nats.into_iter().flatten().flatten();
        let redis = self.redis.as_mut().and_then(|r| r.ca_file.as_mut());
        nats.chain(rabbitmq).chain(redis)
    }

    /// The number of transports that are configured.
    pub fn transports(&self) -> usize {
        let given = [
            self.redis.is_some(),
            self.nats.is_some(),
            self.rabbitmq.is_some(),
        ];
        given.into_iter().filter(|given| *given).count()
    }

    /// Checks whether the transport's configuration is valid, as far as that is known without
    /// reading files or using the network.
    ///
    /// # Errors
    /// The first setting that is not valid.
    pub fn check(&self) -> Result<(), BusOpenError> {
        if let Some(redis) = &self.redis {
            redis.check()?;
        }
        if let Some(nats) = &self.nats {
            nats.check()?;
        }
        if let Some(rabbitmq) = &self.rabbitmq {
            rabbitmq.check()?;
        }
        Ok(())
    }
}

/// Makes the configured transport, if there is one. It does not connect yet.
///
/// # Errors
/// When a setting is not valid, or a file can't be read.
pub fn open(config: &BusConfig) -> Result<Option<Arc<dyn BusTransport>>, BusOpenError> {
    if let Some(redis) = &config.redis {
        return Ok(Some(redis::open(redis)?));
    }
    if let Some(nats) = &config.nats {
        return Ok(Some(nats::open(nats)?));
    }
    if let Some(rabbitmq) = &config.rabbitmq {
        return Ok(Some(rabbitmq::open(rabbitmq)?));
    }
    Ok(None)
}
