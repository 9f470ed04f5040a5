//! The composition root: it turns a configuration into a running gateway. It is the one place that
//! names every concrete type.

pub mod certificates;
mod joining;
mod ports;
pub mod process;
mod process_settings;
pub mod reload;
mod watchdog;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use lamina_base::service_manager::descriptors::InheritedDescriptor;
use lamina_base::service_manager::{self, ServiceManager, ServiceState};
use tokio_util::task::AbortOnDropHandle;

use crate::acme::{AcmeManager, AcmeOpenError, AcmeRedisSettings};
use crate::admin::{
    self, AdminGate, AdminReload, AdminReloadAnswer, AdminService, AdminWorkLimits,
};
use crate::cache::Cache;
use crate::cache::l2::description::{SharedStoreSettings, StoreOpenError};
use crate::cache::l2::store::Store;
use crate::certificate_review::ListenerCertificates;
use crate::cluster::Cluster;
use crate::config::GatewayConfig;
use crate::description::InvalidSetting;
use crate::http::config::ReservedListener;
use crate::http::endpoint::Endpoint;
use crate::http::memory::{self, HeldGauge};
use crate::http::server::{
    BindError, BoundListeners, HandlerAnswer, InheritedSockets, RunningListeners,
    SharedByListeners, WorkerThread,
};
use crate::http::tls::listeners::TlsListeners;
use crate::local_authority::{self, LocalCertificateError};
use crate::origin::BuildError;
use crate::plugin::LoadError;
use crate::proxy::Generation;
use crate::proxy::route::RouteError;
use crate::rate_limit::RateLimiter;
use crate::telemetry::logs::LogWriterGuard;
use crate::telemetry::metrics::Registry;

use ports::RunningPorts;
use process::ProcessState;
use process_settings::ProcessSettings;
use reload::{ConfigOrigin, ConfigReloader, ReloadAct, ReloadParts, ReloadTrigger};

pub use joining::seal_keys;

/// What a start needs besides the configuration.
pub struct StartOptions<'a> {
    pub logs: &'a LogWriterGuard,
    pub manager: ServiceManager,
    /// What was open before the process began.
    pub inherited: Vec<InheritedDescriptor>,
    /// Where the configuration comes from when it is read again.
    pub origin: ConfigOrigin,
    /// In milliseconds: how long a drain may take. It follows the configuration.
    pub drain_limit: Arc<AtomicU64>,
}

/// A gateway at work.
pub struct RunningGateway {
    ports: Arc<RunningPorts>,
    threads: Vec<WorkerThread>,
    reloader: Arc<ConfigReloader>,
    admin_listener: RunningListeners,
    cache: Arc<Cache>,
    cluster: Option<Arc<Cluster>>,
    ready: Arc<AtomicBool>,
    drain_limit: Arc<AtomicU64>,
    /// The addresses of the client listeners with their scheme, in the order of the configuration.
    pub addresses: Vec<(SocketAddr, &'static str)>,
    pub admin: Endpoint,
    /// What the admin listener allows, and to whom.
    pub admin_openness: String,
    // These tasks end with the gateway.
    _tending: AbortOnDropHandle<()>,
    _watching: AbortOnDropHandle<()>,
    _obtaining: Option<AbortOnDropHandle<()>>,
    _issuing: AbortOnDropHandle<()>,
    _counting: Option<AbortOnDropHandle<()>>,
}

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
    LocalCertificate(#[from] LocalCertificateError),
    #[error("metrics")]
    Metrics(#[from] prometheus::Error),
}

impl GatewayStartError {
    /// The key of the configuration that is the cause, as in `listeners[0].tls.default`, and what
    /// is wrong with it. None if it is not known.
    pub fn place(&self) -> Option<(String, String)> {
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
            | Self::Bind(BindError::Tls { .. } | BindError::NoListener { .. }) => true,
            Self::Acme(
                AcmeOpenError::Issuer { .. } | AcmeOpenError::Ask(_) | AcmeOpenError::Redis(_),
            ) => true,
            Self::Store(error) => error.is_configuration(),
            Self::Bind(_)
            | Self::Admin(_)
            | Self::Acme(_)
            | Self::LocalCertificate(_)
            | Self::Metrics(_) => false,
        }
    }
}

/// How often the cache is maintained and gauges are updated.
const TEND: Duration = Duration::from_secs(1);
/// How long the start waits for the second tier's purge log: once the log is known, the first
/// requests can use entries of the second tier.
const KNOWN: Duration = Duration::from_millis(500);
/// How long a drain waits for writes to the second tier and for events to the other nodes.
const FINISH: Duration = Duration::from_secs(3);
/// How often local certificates are looked at.
const ISSUE_AGAIN: Duration = Duration::from_secs(12 * 3_600);
/// How long requests to the admin listener may take while the process ends.
const ADMIN_DRAIN: Duration = Duration::from_millis(100);

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
    /// Opens the listeners and starts to serve.
    ///
    /// # Errors
    /// See [`GatewayStartError`]; after an error nothing keeps running.
    pub async fn start(
        config: &GatewayConfig,
        options: StartOptions<'_>,
    ) -> Result<Self, GatewayStartError> {
        let process = Arc::new(ProcessState::new(config, open_store(config)?)?);
        let proxy = process.proxy(config).await?;
        let cache = Arc::clone(&process.cache);
        if let Some(tier) = cache.second_tier()
            && !tier.known(KNOWN).await
        {
            let kind = tier.kind();
            tracing::warn!(
                kind,
                "the second tier does not answer; serving without it for now"
            );
        }
        let cluster = config
            .bus
            .as_ref()
            .map(|bus| joining::join(bus, config, &cache, &process.registry))
            .transpose()?
            .flatten();
        let counting = cluster.as_ref().map(|cluster| {
            let (cluster, limiter) = (Arc::clone(cluster), Arc::clone(&process.limiter));
            spawn(count_nodes(cluster, limiter))
        });
        let threads = config
            .server
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        local_authority::issue_all(config)?;
        let settings = ProcessSettings::new(&process.tls, Arc::clone(&options.drain_limit));
        let shared = SharedByListeners {
            body_bytes: settings.body_bytes(),
            tls: Arc::clone(&process.tls),
            quic: Arc::clone(&process.quic),
        };
        let acme = obtaining(config, &process.tls, &process.registry).await?;
        settings.follow(config, settings.sharing(config)?);
        memory::PROCESS.set_bound(config.server.max_held_bytes.0);
        let inherited = options.inherited.into_iter();
        let inherited = inherited.map(|one| (one.descriptor, one.name));
        let mut inherited = InheritedSockets::of(inherited)?;
        let listeners = &config.listeners;
        let bound = BoundListeners::bind_or_inherit(listeners, threads, shared, &mut inherited)?;
        let admin_listener = admin_listener(&config.admin);
        let admin_bound = BoundListeners::bind_reserved(&admin_listener, &mut inherited)
            .map_err(GatewayStartError::Admin)?;
        for gone in inherited.finish()? {
            options.manager.let_go(&gone);
        }
        let admin_endpoint = admin_bound.endpoints().next();
        let admin_endpoint = admin_endpoint.unwrap_or(&config.admin.address).clone();
        let gate = AdminGate::new(&config.admin, &admin_endpoint);
        let admin_openness = gate.openness();
        let gate = Arc::new(ArcSwap::from_pointee(gate));
        let ready = Arc::new(AtomicBool::new(true));
        let addresses = bound.addresses_with_scheme();
        let serving = Arc::clone(&proxy);
        let listeners = bound
            .start(move |head, body, entered, early| serving.handle(head, body, entered, early));
        let worker_threads = listeners.threads().to_vec();
        let ports = Arc::new(RunningPorts::new(listeners, options.manager.clone()));
        let reloader = ConfigReloader::new(
            options.origin,
            config,
            ReloadParts {
                process: Arc::clone(&process),
                proxy: Arc::clone(&proxy),
                ports: Arc::clone(&ports),
                settings: Arc::clone(&settings),
                acme: acme.clone(),
                gate: Arc::clone(&gate),
                admin: admin_endpoint.clone(),
                set_level: options.logs.level_setter(),
            },
        )?;
        let refresh = refresh(&process, &reloader, &acme, options.logs)?;
        let asked = Arc::clone(&reloader);
        let admin = Arc::new(AdminService {
            proxy: Arc::clone(&proxy),
            cluster: cluster.clone(),
            registry: process.registry.clone(),
            recent: Arc::clone(&process.recent),
            gate,
            work_limits: AdminWorkLimits::default(),
            ready: Arc::clone(&ready),
            acme: acme.clone(),
            keylog: settings.writes_key_log(),
            refresh,
            reload: Box::new(move |wanted| answer_reload(Arc::clone(&asked), wanted).boxed()),
        });
        Ok(Self {
            threads: worker_threads,
            ports,
            admin_listener: admin_bound.start(move |head, body, entered, _| {
                let request = http::Request::from_parts(head, body);
                HandlerAnswer::later(Arc::clone(&admin).handle(request, entered.peer))
            }),
            cache: Arc::clone(&cache),
            cluster,
            ready,
            drain_limit: options.drain_limit,
            addresses,
            admin: admin_endpoint,
            admin_openness,
            _tending: spawn(tend(cache, config.cache.purge_log.sweep_interval.0)),
            _watching: spawn(Arc::clone(&reloader).watch()),
            _obtaining: acme.map(|acme| spawn(acme.run())),
            _issuing: spawn(issue_again(Arc::clone(&reloader))),
            _counting: counting,
            reloader,
        })
    }

    /// Takes up the configuration at each SIGHUP, and tells the service manager of it. Ends with the
    /// gateway.
    pub fn reload_on_signals(&self, manager: &ServiceManager) -> AbortOnDropHandle<()> {
        spawn(reload_on_signals(
            Arc::clone(&self.reloader),
            manager.clone(),
        ))
    }

    /// Tells the service manager from now on that the gateway lives, if it wants to know: as long as
    /// every thread that serves requests, and that of the admin listener, take their turns.
    pub fn give_signs_of_life(&self, manager: &ServiceManager) {
        let serving = &self.threads;
        if let (Some(interval), [admin]) =
            (manager.watchdog_interval(), self.admin_listener.threads())
        {
            let signs = watchdog::give_signs(manager.clone(), interval, serving.to_vec());
            admin.run(signs);
        }
    }

    /// Reports not ready, lets requests that are under way finish, then ends. All this takes at
    /// most `drain_timeout`, of which a tenth is reserved for what is sent out after the last
    /// request.
    pub async fn drain(self) {
        let limit = Duration::from_millis(self.drain_limit.load(Ordering::Relaxed));
        let deadline = Instant::now() + limit;
        self.ready.store(false, Ordering::Release);
        let kept = FINISH.min(limit / 10);
        let mut listeners = self.ports.close().await;
        if let Some(listeners) = &mut listeners {
            listeners.quiesce(limit - kept).await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let left = FINISH.min(left);
        let told = async {
            if let Some(cluster) = &self.cluster {
                cluster.finish(left).await;
            }
        };
        let written = async {
            if let Some(tier) = self.cache.second_tier() {
                tier.finish(left).await;
            }
        };
        tokio::join!(told, written);
        // Not earlier: a load writes to the second tier on its own worker.
        if let Some(listeners) = listeners {
            listeners.cut().await;
        }
        self.admin_listener.drain(ADMIN_DRAIN.min(left)).await;
    }
}

/// What obtains certificates, with those that are stored already. None if none are to be obtained.
async fn obtaining(
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
    let l2 = &config.cache.l2;
    let Some(store) = l2.store() else {
        return Ok(None);
    };
    let common = SharedStoreSettings {
        secret: l2.seal_key.as_deref(),
        max_life: l2.max_life.0,
        namespace: config.bus.as_ref().and_then(|bus| bus.namespace.as_deref()),
    };
    Ok(Some(store.open(common)?))
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// Brings gauges up to date before a scrape.
fn refresh(
    process: &Arc<ProcessState>,
    reloader: &Arc<ConfigReloader>,
    acme: &Option<Arc<AcmeManager>>,
    logs: &LogWriterGuard,
) -> prometheus::Result<Box<dyn Fn() + Send + Sync>> {
    let dropped = logs.register(&process.registry)?;
    let held = HeldGauge::register(&process.registry)?;
    let (process, reloader, acme) = (Arc::clone(process), Arc::clone(reloader), acme.clone());
    Ok(Box::new(move || {
        process.cache.tend();
        dropped.update();
        process.tls.update();
        process.origins.update();
        held.update();
        reloader.update_metrics();
        acme.iter().for_each(|acme| acme.update_metrics());
    }))
}

/// Takes up the configuration for an operator, or plans it.
async fn answer_reload(reloader: Arc<ConfigReloader>, wanted: AdminReload) -> AdminReloadAnswer {
    let act = match wanted {
        AdminReload::Apply => ReloadAct::Apply,
        AdminReload::Plan(file) => ReloadAct::Plan(file),
    };
    reloader.answer(act).await
}

/// Takes up the configuration, and plugin files with it, at each SIGHUP.
async fn reload_on_signals(reloader: Arc<ConfigReloader>, manager: ServiceManager) {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            return tracing::error!(
                %error,
                "SIGHUP can't be handled, so it will not reload the configuration"
            );
        }
    };
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: reloading the configuration and the plugins");
        manager.tell(ServiceState::Reloading {
            since: service_manager::monotonic_now(),
        });
        let outcome = reloader.reload(ReloadTrigger::Signal, ReloadAct::Apply);
        let status = match outcome.await {
            Ok(report) => format!("Serving by the configuration {}", report.hash_after),
            Err(error) => format!("Serving by the configuration before: {error}"),
        };
        manager.tell(ServiceState::Ready { status: &status });
    }
}

/// Issues local certificates again before they end.
async fn issue_again(reloader: Arc<ConfigReloader>) {
    let mut ticks = tokio::time::interval(ISSUE_AGAIN);
    // The first tick comes at once, when all were just issued.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let config = reloader.config();
        let issued = tokio::task::spawn_blocking(move || local_authority::issue_all(&config)).await;
        if let Ok(Err(error)) = issued {
            tracing::error!(%error, "local certificate not issued again; the next attempt is in 12 hours");
        }
    }
}

/// Maintains the cache in the background.
async fn tend(cache: Arc<Cache>, sweep: Duration) {
    let mut ticks = tokio::time::interval(TEND);
    let mut swept = tokio::time::Instant::now();
    loop {
        ticks.tick().await;
        let due = swept.elapsed() >= sweep;
        let cache = Arc::clone(&cache);
        // A sweep touches every entry, so it must not run on a thread that serves requests.
        let work = tokio::task::spawn_blocking(move || {
            cache.tend();
            if due {
                cache.sweep();
            }
        });
        if work.await.is_err() {
            tracing::error!(
                "the periodic maintenance of the cache failed; it runs again at its next interval"
            );
        }
        if due {
            swept = tokio::time::Instant::now();
        }
    }
}

/// Tells the limits that nodes share how many there are. While the bus is not heard, the number is
/// that from before.
async fn count_nodes(cluster: Arc<Cluster>, limiter: Arc<RateLimiter>) {
    let mut ticks = tokio::time::interval(TEND);
    loop {
        ticks.tick().await;
        if cluster.standing().hears {
            limiter.set_nodes(cluster.nodes(Instant::now()).len() + 1);
        }
    }
}

fn admin_listener(config: &admin::config::AdminConfig) -> ReservedListener {
    ReservedListener {
        endpoint: config.address.clone(),
        socket_mode: config.socket_mode,
        limits: admin::limits(),
    }
}
