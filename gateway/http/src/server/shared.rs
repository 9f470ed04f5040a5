//! What all listeners of the process share: [`SharedByListeners`].

use std::sync::Arc;

use super::quic::metrics::QuicMetrics;
use crate::quic_identity::QuicIdentity;
use crate::tls::listeners::TlsListeners;

/// What all listeners of the process share.
#[derive(Clone, Default)]
pub struct SharedByListeners {
    pub tls: Arc<TlsListeners>,
    pub quic: Arc<QuicMetrics>,
    /// What connection ids are made by.
    pub identity: Arc<QuicIdentity>,
}
