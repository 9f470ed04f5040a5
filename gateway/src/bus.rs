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
pub mod transport;

use std::sync::Arc;

use config::Bus;
use transport::Transport;

/// Why the bus can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("bus.nats")]
    Nats(#[from] nats::OpenError),
}

/// The transport that is configured; it does not connect yet.
///
/// # Errors
/// What can't be meant, or a file that can't be read.
pub fn open(config: &Bus) -> Result<Option<Arc<dyn Transport>>, OpenError> {
    if let Some(nats) = &config.nats {
        return Ok(Some(nats::open(nats)?));
    }
    Ok(None)
}
