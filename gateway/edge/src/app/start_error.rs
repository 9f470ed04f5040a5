//! Why a gateway can't start, and whether its configuration or the machine is the cause.

use super::upgrade::{TakeOverError, UpgradeSocketError};
use crate::acme::AcmeOpenError;
use crate::cache::l2::description::StoreOpenError;
use crate::description::InvalidSetting;
use crate::http::server::BindError;
use crate::local_authority::LocalCertificateError;
use crate::origin::BuildError;
use crate::plugin::LoadError;
use crate::proxy::route::RouteError;

/// Why a gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayStartError {
    #[error("a listener can't be opened")]
    Bind(#[from] BindError),
    #[error("the admin listener can't be opened")]
    Admin(#[source] BindError),
    #[error("upstreams")]
    Upstream(#[from] BuildError),
    #[error("plugins")]
    Plugin(#[from] LoadError),
    #[error("routes")]
    Route(#[from] RouteError),
    #[error("purge_method")]
    PurgeMethod(#[from] crate::proxy::TokenError),
    #[error(transparent)]
    Store(#[from] StoreOpenError),
    #[error("bus")]
    Bus(#[source] InvalidSetting),
    #[error("acme")]
    Acme(#[from] AcmeOpenError),
    #[error(transparent)]
    UpgradeSocket(#[from] UpgradeSocketError),
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    #[error(transparent)]
    LocalCertificate(#[from] LocalCertificateError),
    #[error("metrics")]
    Metrics(#[from] prometheus::Error),
}

impl GatewayStartError {
    /// The key of the configuration that is the cause, as in `listeners[0].tls.default`, and what
    /// is wrong with it. None if it is not known.
    pub fn key_and_cause(&self) -> Option<(String, String)> {
        match self {
            Self::Bind(BindError::Tls {
                listener: Some(n),
                source,
                ..
            }) => {
                let key = format!("listeners[{n}].tls.{}", source.key);
                Some((key, source.fault.to_string()))
            }
            Self::Acme(AcmeOpenError::Issuer { issuer, source }) => {
                let key = format!("acme.issuers.{issuer}.ca_file");
                Some((key, source.to_string()))
            }
            Self::Acme(AcmeOpenError::Ask(error)) => {
                Some(("acme.on_demand.ask".to_owned(), error.to_string()))
            }
            _ => None,
        }
    }

    /// Whether the configuration is the cause, and not the machine.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Upstream(_)
            | Self::Plugin(_)
            | Self::Route(_)
            | Self::PurgeMethod(_)
            | Self::Bus(_)
            | Self::Bind(
                BindError::Tls { .. } | BindError::NoListener { .. } | BindError::NoHttp3 { .. },
            ) => true,
            Self::Acme(
                AcmeOpenError::Issuer { .. } | AcmeOpenError::Ask(_) | AcmeOpenError::Redis(_),
            ) => true,
            Self::Store(error) => error.is_configuration(),
            Self::Bind(_)
            | Self::Admin(_)
            | Self::Acme(_)
            | Self::LocalCertificate(_)
            | Self::UpgradeSocket(_)
            | Self::TakeOver(_)
            | Self::Metrics(_) => false,
        }
    }
}
