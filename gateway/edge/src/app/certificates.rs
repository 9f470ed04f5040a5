//! The certificates of the listeners without the listeners: what `validate` and `doctor` look at.

use std::sync::Arc;

use super::{GatewayStartError, shared_redis};
use crate::acme::{AcmeManager, MissingCertificates};
use crate::certificate_review::ListenerCertificates;
use crate::config::GatewayConfig;
use crate::http::server;
use crate::http::tls::listeners::TlsListeners;
use crate::http::tls::obtained::names_of;
use crate::telemetry::metrics::{self, Registry};

/// The certificates that a start would use, with those that were obtained.
pub struct CertificatesInUse {
    pub listeners: Vec<ListenerCertificates>,
    /// Names for which none was obtained yet.
    pub missing: Option<MissingCertificates>,
}

/// Opens TLS of every listener, with what is there.
///
/// # Errors
/// If a file can't be used.
pub(super) fn open(
    config: &GatewayConfig,
    tls: &Arc<TlsListeners>,
) -> Result<Vec<ListenerCertificates>, GatewayStartError> {
    let mut all = Vec::new();
    for (n, listener) in config.listeners.iter().enumerate() {
        let opened = server::open_tls(listener, tls).map_err(|error| error.of_listener(n))?;
        all.extend(opened.map(|opened| ListenerCertificates {
            listener: n,
            address: listener.address,
            certificates: opened.certificates(),
            unusable: opened.unusable(),
        }));
    }
    Ok(all)
}

/// What obtains certificates, with those that are stored already. None if none are to be obtained.
pub(super) async fn obtaining(
    config: &GatewayConfig,
    tls: &Arc<TlsListeners>,
    registry: &Registry,
) -> Result<Option<Arc<AcmeManager>>, GatewayStartError> {
    match &config.acme {
        Some(acme) => {
            let settings = shared_redis(config)?;
            let listeners = &config.listeners;
            let opened = AcmeManager::open(acme, listeners, settings, tls, registry).await?;
            Ok(Some(opened))
        }
        None => Ok(None),
    }
}

/// Reads all certificates, also those that were obtained and stored. Obtains and writes none.
///
/// # Errors
/// If files or the storage can't be used.
pub async fn in_use(config: &GatewayConfig) -> Result<CertificatesInUse, GatewayStartError> {
    let tls = Arc::new(TlsListeners::default());
    let registry = metrics::registry()?;
    let has_storage = config
        .acme
        .as_ref()
        .is_some_and(|acme| acme.is_storage_there());
    let acme = match has_storage {
        true => obtaining(config, &tls, &registry).await?,
        false => None,
    };
    Ok(CertificatesInUse {
        listeners: open(config, &tls)?,
        missing: match acme {
            Some(acme) => acme.missing(),
            None => MissingCertificates::of(names_to_obtain(config)),
        },
    })
}

fn names_to_obtain(config: &GatewayConfig) -> Vec<String> {
    let tls = config.listeners.iter().filter_map(|one| one.tls.as_ref());
    let sources = tls.flat_map(|tls| &tls.certificates);
    let obtained = sources.filter(|source| source.acme.is_some());
    obtained.flat_map(names_of).collect()
}
