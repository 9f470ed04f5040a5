//! The event bus: what one node tells all others.
//!
//! Inside: `transport` (the trait) and its four kinds `redis`, `nats` (core and JetStream) and
//! `rabbitmq`; `event` (what is said, and its bytes); `outbox` (publishing behind the
//! caller, tried again until it is out) and `inbox` (from bytes to what is to be applied:
//! namespace, seals, own echo, duplicates and replays); `seal` (who said an event) and `replay`
//! (whether it was said before); `trial` (the transport under names of its own, for
//! `lamina doctor`). What is done about an event is `cluster`'s.

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
    /// The part of the configuration that it is about, and the key in it.
    pub fn place(&self) -> (&'static str, &'static str) {
        match self {
            Self::Redis(error) => ("redis", error.key()),
            Self::Nats(error) => ("nats", error.key()),
            Self::Rabbitmq(error) => ("rabbitmq", error.key()),
        }
    }
}

impl BusConfig {
    /// Files that it names, but for those with secrets.
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let nats = self.nats.as_mut();
        let nats = nats.map(|nats| [nats.ca_file.as_mut(), nats.credentials_file.as_mut()]);
        let rabbitmq = self.rabbitmq.as_mut().and_then(|r| r.ca_file.as_mut());
        let nats = nats.into_iter().flatten().flatten();
        let redis = self.redis.as_mut().and_then(|r| r.ca_file.as_mut());
        nats.chain(rabbitmq).chain(redis)
    }

    /// How many transports are given.
    pub fn transports(&self) -> usize {
        let given = [
            self.redis.is_some(),
            self.nats.is_some(),
            self.rabbitmq.is_some(),
        ];
        given.into_iter().filter(|given| *given).count()
    }

    /// Whether the transport can be meant, as far as can be told without files and network.
    ///
    /// # Errors
    /// What can't be.
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

/// The transport that is configured; it does not connect yet.
///
/// # Errors
/// What can't be meant, or a file that can't be read.
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
