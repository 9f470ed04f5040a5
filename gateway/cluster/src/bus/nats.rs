//! NATS as the event bus: core NATS, or with JetStream.
//!
//! Inside: `config`, with its `check`; `description`, with its `promises`; `link` (one connection);
//! `transport` (one connection after another, in either mode), with `replacement` (a connection in the
//! place of a silent one); `core` (at most once); `jetstream`
//! (durable), `stream` (what JetStream needs on the server) and `memory` (what was seen of the stream); `trial` (both under names of their
//! own).

mod check;
pub mod config;
mod core;
mod description;
mod jetstream;
mod link;
mod memory;
mod promises;
mod replacement;
mod stream;
mod transport;
mod trial;

use std::path::Path;
use std::sync::Arc;

use async_nats::ConnectOptions;
use async_nats::rustls::pki_types::CertificateDer;
use async_nats::rustls::pki_types::pem::PemObject;

use super::transport::BusTransport;
use crate::tls::read_regular;
use config::NatsMode;
pub use config::NatsOpenError;
use core::NatsCoreSession;
use jetstream::JetStreamSession;
use transport::NatsTransport;

/// Makes a transport that connects by itself, first in `run` and again whenever the connection is
/// lost.
///
/// # Errors
/// When the configuration is not valid for NATS. A server that is down is not an error.
pub fn open(config: &config::NatsConfig) -> Result<Arc<dyn BusTransport>, NatsOpenError> {
    check::check(config)?;
    if let Some(file) = &config.ca_file {
        certificates(file).map_err(|reason| unreadable("ca_file", file, reason))?;
    }
    if let Some(file) = &config.credentials_file {
        let read = credentials(file).map(|text| ConnectOptions::with_credentials(&text));
        let read = read.and_then(|read| read.map(drop).map_err(|e| e.to_string()));
        read.map_err(|reason| unreadable("credentials_file", file, reason))?;
    }
    let config = config.clone();
    Ok(match config.mode {
        NatsMode::Core => Arc::new(NatsTransport::new(NatsCoreSession::new(config))),
        NatsMode::Jetstream => Arc::new(NatsTransport::new(JetStreamSession::new(config))),
    })
}

fn unreadable(key: &'static str, file: &Path, reason: String) -> NatsOpenError {
    let file = file.display().to_string();
    NatsOpenError::File { key, file, reason }
}

fn certificates(file: &Path) -> Result<(), String> {
    let text = read_regular(file).map_err(|e| e.to_string())?;
    let mut all = CertificateDer::pem_slice_iter(&text);
    match all.next() {
        None => Err("it contains no certificate".to_owned()),
        Some(first) => std::iter::once(first)
            .chain(all)
            .try_for_each(|one| one.map(drop))
            .map_err(|e| e.to_string()),
    }
}

fn credentials(file: &Path) -> Result<String, String> {
    let text = read_regular(file).map_err(|e| e.to_string())?;
    String::from_utf8(text).map_err(|e| e.to_string())
}
