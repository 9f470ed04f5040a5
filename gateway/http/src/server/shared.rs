//! What all listeners of the process share: [`SharedByListeners`].

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::quic::metrics::QuicMetrics;
use crate::quic_identity::QuicIdentity;
use crate::tls::listeners::TlsListeners;

/// What all listeners of the process share.
#[derive(Clone, Default)]
pub struct SharedByListeners {
    /// The largest request body in bytes that any route allows, now; each route enforces its own
    /// limit.
    pub body_bytes: Arc<AtomicU64>,
    pub tls: Arc<TlsListeners>,
    pub quic: Arc<QuicMetrics>,
    /// What connection ids are made by.
    pub identity: Arc<QuicIdentity>,
}
