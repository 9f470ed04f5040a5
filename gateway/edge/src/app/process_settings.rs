//! What stands from the start to the end of the process and follows each configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::{GatewayStartError, shared_redis, spawn};
use crate::config::GatewayConfig;
use crate::http::server::raise_limit;
use crate::http::tls::config::KeyLogSwitch;
use crate::http::tls::listeners::TlsListeners;
use crate::shared_tickets::SharedTicketKeeper;

/// Settings that others read while they work.
pub struct ProcessSettings {
    tls: Arc<TlsListeners>,
    drain_limit: Arc<AtomicU64>,
    writes_key_log: Arc<AtomicBool>,
    /// Brings the secrets of session tickets that nodes share. None if no listener shares any.
    sharing: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl ProcessSettings {
    pub fn new(tls: &Arc<TlsListeners>, drain_limit: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            tls: Arc::clone(tls),
            drain_limit,
            writes_key_log: Arc::default(),
            sharing: Mutex::default(),
        })
    }

    /// Whether secrets of TLS sessions are written to a file.
    pub fn writes_key_log(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.writes_key_log)
    }

    /// What brings the secrets of session tickets that nodes share, by this configuration. None if no
    /// listener shares any.
    ///
    /// # Errors
    /// If they can't be shared as it says.
    pub fn sharing(
        &self,
        config: &GatewayConfig,
    ) -> Result<Option<SharedTicketKeeper>, GatewayStartError> {
        let redis = shared_redis(config)?;
        let secret = config.ticket_seal_key();
        let keeper = SharedTicketKeeper::open(&config.listeners, redis, secret, &self.tls);
        Ok(keeper.map_err(crate::acme::AcmeOpenError::from)?)
    }

    /// Follows this configuration.
    pub fn follow(&self, config: &GatewayConfig, sharing: Option<SharedTicketKeeper>) {
        *self.sharing.lock() = sharing.map(|keeper| spawn(keeper.run()));
        let drain = config.server.drain_timeout.0.as_millis();
        let drain = u64::try_from(drain).unwrap_or(u64::MAX);
        self.drain_limit.store(drain, Relaxed);
        self.writes_key_log.store(warns_of_key_log(config), Relaxed);
        raise_limits(config);
    }
}

/// Raises the limit of file descriptors as far as the system allows. Warns if that is too few for
/// the configured connections.
fn raise_limits(config: &GatewayConfig) {
    let limits = config.listeners.iter().map(|listener| &listener.limits);
    let connections: usize = limits.map(|limits| limits.max_connections).sum();
    let Some(descriptors) = raise_limit() else {
        return;
    };
    if descriptors < connections as u64 {
        tracing::warn!(
            descriptors,
            connections,
            "the process may open fewer file descriptors than max_connections: accepting \
             connections will pause before that limit; raise the limit of open files"
        );
    }
}

/// Whether secrets of TLS sessions are written to a file; warns of it.
fn warns_of_key_log(config: &GatewayConfig) -> bool {
    let tls = config.listeners.iter().filter_map(|one| one.tls.as_ref());
    let logs = tls.map(|tls| tls.keylog).any(|log| log == KeyLogSwitch::On);
    if logs {
        tracing::warn!(
            "tls.keylog is on: whoever reads the file of SSLKEYLOGFILE can decrypt the traffic"
        );
    }
    logs
}
