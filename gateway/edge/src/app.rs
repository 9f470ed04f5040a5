//! The composition root: it turns a configuration into a running gateway. It is the one place that
//! names every concrete type.

pub mod certificates;
mod joining;
mod opening;
mod ports;
pub mod process;
mod process_settings;
pub mod reload;
mod running;
mod self_check;
mod start;
mod start_error;
pub mod upgrade;
mod upkeep;
mod warming;
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use lamina_base::service_manager::ServiceManager;
use lamina_base::service_manager::descriptors::InheritedDescriptor;
use tokio_util::task::AbortOnDropHandle;

use crate::acme::{AcmeOpenError, AcmeRedisSettings};
use crate::cache::l2::description::{SharedStoreSettings, StoreOwnerBefore};
use crate::cache::l2::store::Store;
use crate::certificate_review::ListenerCertificates;
use crate::config::GatewayConfig;
use crate::proxy::Generation;
use crate::telemetry::logs::LogWriterGuard;

use process::ProcessState;
use reload::ConfigOrigin;
use upgrade::{NewProgram, TakeOver};

pub use joining::seal_keys;
pub use running::RunningGateway;
pub use start_error::GatewayStartError;
pub use upkeep::outlive_file_size_limits;

/// What a start needs besides the configuration.
pub struct StartOptions<'a> {
    pub logs: &'a LogWriterGuard,
    pub manager: ServiceManager,
    /// What was open before the process began.
    pub inherited: Vec<InheritedDescriptor>,
    /// The process whose place this one takes, if it does.
    pub take_over: Option<TakeOver>,
    /// How the next process is started.
    pub next: NewProgram,
    /// Where the configuration comes from when it is read again.
    pub origin: ConfigOrigin,
    /// In milliseconds: how long a drain may take. It follows the configuration.
    pub drain_limit: Arc<AtomicU64>,
}

/// What a configuration makes, without a store and without listeners.
pub struct GatewayPlan {
    pub generation: Arc<Generation>,
    /// The certificates of the listeners with TLS that come from files.
    pub certificates: Vec<ListenerCertificates>,
}

/// Makes all that `validate` and `explain` need of a configuration, in which the paths of plugin
/// files are already resolved.
///
/// # Errors
/// See [`GatewayStartError`].
pub async fn build(config: &GatewayConfig) -> Result<GatewayPlan, GatewayStartError> {
    let process = ProcessState::new(config, None)?;
    Ok(GatewayPlan {
        certificates: certificates::open(config, &process.tls)?,
        generation: process.generation(config, None).await?,
    })
}

impl RunningGateway {
    /// Opens the listeners, or takes them over, and starts to serve.
    ///
    /// # Errors
    /// See [`GatewayStartError`]; after an error nothing keeps running.
    pub async fn start(
        config: &GatewayConfig,
        options: StartOptions<'_>,
    ) -> Result<Self, GatewayStartError> {
        start::start(config, options).await
    }
}

/// The Redis that nodes share, if there is one.
fn shared_redis(config: &GatewayConfig) -> Result<Option<AcmeRedisSettings>, AcmeOpenError> {
    let namespace = config.bus.as_ref().and_then(|bus| bus.namespace.as_deref());
    let shared = config.cache.l2.shared_redis(namespace);
    let settings = shared.map(|shared| AcmeRedisSettings::new(&shared.settings, shared.prefix));
    Ok(settings.transpose()?)
}

/// Opens the store of the second tier.
///
/// # Errors
/// When the store can't be opened.
pub fn open_store(config: &GatewayConfig) -> Result<Option<Arc<dyn Store>>, GatewayStartError> {
    open_store_after(config, StoreOwnerBefore::Nobody)
}

fn open_store_after(
    config: &GatewayConfig,
    before: StoreOwnerBefore,
) -> Result<Option<Arc<dyn Store>>, GatewayStartError> {
    let l2 = &config.cache.l2;
    let Some(store) = l2.store() else {
        return Ok(None);
    };
    let common = SharedStoreSettings {
        secret: l2.seal_key.as_deref(),
        max_life: l2.max_life.0,
        namespace: config.bus.as_ref().and_then(|bus| bus.namespace.as_deref()),
        before,
    };
    Ok(Some(store.open(common)?))
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(work))
}
