//! NATS as the event bus: core NATS, or with JetStream.
//!
//! Inside: `config`; `link` (connections, and reconnecting); `core` (at most once); `jetstream`
//! (durable); `stream` (what JetStream needs on the server); `trial` (both under names of their
//! own).

pub mod config;
mod core;
mod jetstream;
mod link;
mod stream;
pub(super) mod trial;

use std::path::Path;
use std::sync::Arc;

use async_nats::ConnectOptions;
use async_nats::rustls::pki_types::CertificateDer;
use async_nats::rustls::pki_types::pem::PemObject;

use super::transport::BusTransport;
use config::NatsMode;

/// Why NATS can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum NatsOpenError {
    #[error("no servers; expected at least one, as in nats://host:4222")]
    Servers,
    #[error(
        "{0:?} is not the address of a NATS server; expected nats://host:4222, or tls://host:4222 \
         for TLS"
    )]
    Server(String),
    #[error("credentials in the URL; expected `username` and `password_file`, or `token_file`")]
    InUrl,
    #[error("{given:?} is not a subject; expected words with dots between them, without wildcards")]
    Subject { key: &'static str, given: String },
    #[error(
        "another login is given beside `username`, `token` or `credentials_file`; expected only \
         one of the three"
    )]
    Ways,
    #[error("`ping_interval` is 0; expected the time between two pings, as in 2s")]
    Ping,
    #[error(
        "no durable name; expected a name that only this node has and that stays the same after a \
         restart, since JetStream remembers under it what this node has read"
    )]
    DurableName,
    #[error(
        "{given:?} is not a name that the server accepts; expected a name without spaces and \
         without . * > / \\"
    )]
    Name { key: &'static str, given: String },
    #[error("`{0}` is out of its range; expected {range}", range = range_of(.0))]
    Number(&'static str),
    #[error("{file}: {reason}")]
    File {
        key: &'static str,
        file: String,
        reason: String,
    },
}

/// The values that a number of the JetStream configuration may have.
fn range_of(key: &str) -> &'static str {
    match key {
        "replicas" => "1 to 5",
        "max_msgs" => "-1 for no limit, or 1 or more",
        _ => "1 or more",
    }
}

impl NatsOpenError {
    /// The key of the configuration that the error is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Servers | Self::Server(_) | Self::InUrl => "servers",
            Self::Subject { key, .. } | Self::File { key, .. } => key,
            Self::Ways => "username",
            Self::Ping => "ping_interval",
            Self::DurableName
            | Self::Name {
                key: "durable_name",
                ..
            } => "jetstream.durable_name",
            Self::Name { .. } => "jetstream.stream",
            Self::Number("replicas") => "jetstream.replicas",
            Self::Number("max_deliver") => "jetstream.max_deliver",
            Self::Number("ack_wait_ms") => "jetstream.ack_wait_ms",
            Self::Number("max_age_ms") => "jetstream.max_age_ms",
            Self::Number(_) => "jetstream.max_msgs",
        }
    }
}

/// Makes a transport that connects by itself, first in `run` and again whenever the connection is
/// lost.
///
/// # Errors
/// When the configuration is not valid for NATS. A server that is down is not an error.
pub fn open(config: &config::NatsConfig) -> Result<Arc<dyn BusTransport>, NatsOpenError> {
    config.check()?;
    if let Some(file) = &config.ca_file {
        certificates(file).map_err(|reason| unreadable("ca_file", file, reason))?;
    }
    if let Some(file) = &config.credentials_file {
        credentials(file).map_err(|reason| unreadable("credentials_file", file, reason))?;
    }
    let config = config.clone();
    Ok(match config.mode {
        NatsMode::Core => Arc::new(core::NatsCoreTransport::new(config)),
        NatsMode::Jetstream => Arc::new(jetstream::JetStreamTransport::new(config)),
    })
}

fn unreadable(key: &'static str, file: &Path, reason: String) -> NatsOpenError {
    let file = file.display().to_string();
    NatsOpenError::File { key, file, reason }
}

fn certificates(file: &Path) -> Result<(), String> {
    let text = std::fs::read(file).map_err(|e| e.to_string())?;
    let mut all = CertificateDer::pem_slice_iter(&text);
    match all.next() {
        None => Err("it contains no certificate".to_owned()),
        Some(first) => std::iter::once(first)
            .chain(all)
            .try_for_each(|one| one.map(drop))
            .map_err(|e| e.to_string()),
    }
}

fn credentials(file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let read = ConnectOptions::with_credentials(&text);
    read.map(drop).map_err(|e| e.to_string())
}
