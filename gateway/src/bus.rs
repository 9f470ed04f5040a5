//! The event bus: what one node tells all others.
//!
//! Inside: `transport` (the trait) and its four kinds `redis`, `nats` (core and JetStream) and
//! `rabbitmq`; `event` (what is said, and its bytes); `outbox` (publishing behind the
//! caller, tried again until it is out) and `inbox` (from bytes to what is to be applied:
//! namespace, own echo, duplicates, holes). What is done about an event is `cluster`'s.

pub mod config;
mod dedupe;
pub mod event;
pub mod inbox;
pub mod nats;
pub mod outbox;
pub mod redis;
pub mod transport;

use std::sync::Arc;

use config::Bus;
use transport::Transport;

/// Why the bus can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Redis(#[from] redis::OpenError),
    #[error(transparent)]
    Nats(#[from] nats::OpenError),
}

impl OpenError {
    /// The part of the configuration that it is about, and the key in it.
    pub fn place(&self) -> (&'static str, &'static str) {
        match self {
            Self::Redis(error) => ("redis", error.key()),
            Self::Nats(error) => ("nats", error.key()),
        }
    }
}

impl Bus {
    /// How many transports are given.
    pub fn transports(&self) -> usize {
        usize::from(self.redis.is_some()) + usize::from(self.nats.is_some())
    }

    /// Whether the transport can be meant, as far as can be told without files and network.
    ///
    /// # Errors
    /// What can't be.
    pub fn check(&self) -> Result<(), OpenError> {
        if let Some(redis) = &self.redis {
            redis.check()?;
        }
        if let Some(nats) = &self.nats {
            nats.check()?;
        }
        Ok(())
    }
}

/// The transport that is configured; it does not connect yet.
///
/// # Errors
/// What can't be meant, or a file that can't be read.
pub fn open(config: &Bus) -> Result<Option<Arc<dyn Transport>>, OpenError> {
    if let Some(redis) = &config.redis {
        return Ok(Some(redis::open(redis)?));
    }
    if let Some(nats) = &config.nats {
        return Ok(Some(nats::open(nats)?));
    }
    Ok(None)
}
