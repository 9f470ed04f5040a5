//! The composition root: it turns a configuration into a running gateway. It is the one place that
//! names every concrete type.

pub mod certificates;
mod joining;
mod opening;
mod ports;
pub mod process;
mod process_settings;
pub mod reload;
mod self_check;
pub mod upgrade;
mod warming;
mod watchdog;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use lamina_base::service_manager::descriptors::InheritedDescriptor;
use lamina_base::service_manager::{self, ServiceManager, ServiceState};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::acme::{AcmeManager, AcmeOpenError, AcmeRedisSettings};
use crate::admin::phase::{ServingPhase, ServingPhaseReceiver, ServingPhaseSender};
use crate::admin::{AdminGate, AdminReload, AdminReloadAnswer, AdminService, AdminWorkLimits};
use crate::cache::Cache;
use crate::cache::l2::description::{SharedStoreSettings, StoreOpenError, StoreOwnerBefore};
use crate::cache::l2::store::Store;
use crate::certificate_review::ListenerCertificates;
use crate::cluster::Cluster;
use crate::config::GatewayConfig;
use crate::description::InvalidSetting;
use crate::http::endpoint::Endpoint;
use crate::http::memory::{self, HeldGauge};
use crate::http::server::{BindError, HandedPort, HandlerAnswer, SharedByListeners, WorkerThread};
use crate::http::tls::listeners::TlsListeners;
use crate::local_authority::{self, LocalCertificateError};
use crate::origin::BuildError;
use crate::plugin::LoadError;
use crate::proxy::route::RouteError;
use crate::proxy::{Generation, Proxy};
use crate::rate_limit::RateLimiter;
use crate::telemetry::logs::LogWriterGuard;
use crate::telemetry::metrics::Registry;

use opening::{OpenedListeners, SocketSources};
use ports::RunningPorts;
use process::ProcessState;
use process_settings::ProcessSettings;
use reload::{ConfigOrigin, ConfigReloader, ReloadAct, ReloadParts, ReloadTrigger, with_causes};
use upgrade::{
    HandedCache, NewProgram, ReplacingProcess, TakeOver, TakeOverError, UpgradeGiver,
    UpgradeGiverParts, UpgradeSocketError,
};
use warming::WarmKeeper;

pub use joining::seal_keys;

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

/// A gateway at work.
pub struct RunningGateway {
    ports: Arc<RunningPorts>,
    threads: Vec<WorkerThread>,
    reloader: Arc<ConfigReloader>,
    admin_ports: Arc<RunningPorts>,
    admin_threads: Vec<WorkerThread>,
    giver: Arc<UpgradeGiver>,
    cache: Arc<Cache>,
    cluster: Option<Arc<Cluster>>,
    phase: ServingPhaseSender,
    proxy: Arc<Proxy>,
    warm: Arc<WarmKeeper>,
    drain_limit: Arc<AtomicU64>,
    /// The addresses of the client listeners with their scheme, in the order of the configuration.
    pub addresses: Vec<(SocketAddr, &'static str)>,
    pub admin: Endpoint,
    /// What the admin listener allows, and to whom.
    pub admin_openness: String,
    // These tasks end with the gateway.
    _tending: AbortOnDropHandle<()>,
    watching: AbortOnDropHandle<()>,
    obtaining: Option<AbortOnDropHandle<()>>,
    issuing: AbortOnDropHandle<()>,
    _keeping: AbortOnDropHandle<()>,
    _counting: Option<AbortOnDropHandle<()>>,
    _giving: Option<AbortOnDropHandle<()>>,
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
            | Self::UpgradeSocket(_)
            | Self::TakeOver(_)
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
/// The same while another process has taken its place.
const ADMIN_ROOM: Duration = Duration::from_secs(5);

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
        mut options: StartOptions<'_>,
    ) -> Result<Self, GatewayStartError> {
        let mut take_over = options.take_over.take();
        let handed = take_over.as_mut().map(TakeOver::take_ports);
        let started = Self::begin(config, options, take_over.as_ref(), handed).await;
        if let (Some(take_over), Err(error)) = (&take_over, &started) {
            take_over.failed(with_causes(error));
        }
        started
    }

    async fn begin(
        config: &GatewayConfig,
        options: StartOptions<'_>,
        take_over: Option<&TakeOver>,
        handed: Option<Vec<HandedPort>>,
    ) -> Result<Self, GatewayStartError> {
        let before = match take_over {
            Some(_) => StoreOwnerBefore::ReplacedProcess,
            None => StoreOwnerBefore::Nobody,
        };
        let process = Arc::new(ProcessState::new(
            config,
            open_store_after(config, before)?,
        )?);
        if let Some(secret) = take_over.and_then(TakeOver::secret) {
            process.tls.inherit_secret(secret);
        }
        let generation = take_over.map_or(0, TakeOver::generation);
        let proxy = process.proxy(config).await?;
        let (warm, wanted) = (Arc::clone(&process.warm), config.cache.warm.clone());
        let beginning = Arc::clone(&warm);
        let begun = tokio::task::spawn_blocking(move || beginning.begin(wanted.as_ref()));
        if begun.await.is_err() {
            tracing::error!("reading cache.warm.file broke off; it is not used");
        }
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
        local_authority::issue_all(config)?;
        let settings = ProcessSettings::new(&process.tls, Arc::clone(&options.drain_limit));
        let acme = obtaining(config, &process.tls, &process.registry).await?;
        settings.follow(config, settings.sharing(config)?);
        memory::PROCESS.set_bound(config.server.max_held_bytes.0);
        let OpenedListeners {
            bound,
            admin_bound,
            upgrade_socket,
            taken,
        } = opening::open(
            config,
            SocketSources {
                inherited: options.inherited,
                handed,
                manager: &options.manager,
            },
            SharedByListeners {
                body_bytes: settings.body_bytes(),
                tls: Arc::clone(&process.tls),
                quic: Arc::clone(&process.quic),
                identity: Arc::new(process.tls.secret().quic_identity(generation)),
            },
        )?;
        let admin_endpoint = admin_bound.endpoints().next();
        let admin_endpoint = admin_endpoint.unwrap_or(&config.admin.address).clone();
        let gate = AdminGate::new(&config.admin, &admin_endpoint);
        let admin_openness = gate.openness();
        let gate = Arc::new(ArcSwap::from_pointee(gate));
        let (phase, asked_phase) = watch::channel(match warm.is_wanted() {
            true => ServingPhase::Warming,
            false => ServingPhase::Serving,
        });
        let addresses = bound.addresses_with_scheme();
        let serving = Arc::clone(&proxy);
        let listeners = bound.start_waiting(move |head, body, entered, early| {
            serving.handle(head, body, entered, early)
        });
        let threads = listeners.threads().to_vec();
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
            phase: asked_phase,
            acme: acme.clone(),
            keylog: settings.writes_key_log(),
            refresh,
            reload: Box::new(move |wanted| answer_reload(Arc::clone(&asked), wanted).boxed()),
        });
        let answering = Arc::clone(&admin);
        let admin_listener = admin_bound.start_waiting(move |head, body, entered, _| {
            let request = http::Request::from_parts(head, body);
            HandlerAnswer::later(Arc::clone(&answering).handle(request, entered.peer))
        });
        let admin_threads = admin_listener.threads().to_vec();
        let no_manager = ServiceManager::default();
        let admin_ports = Arc::new(RunningPorts::new(admin_listener, no_manager));
        if let Some(take_over) = take_over {
            warm.warm_up(&proxy, &threads).await;
            phase.send_replace(ServingPhase::Serving);
            self_check::check(&admin, &admin_threads, &threads).await?;
            if take_over.ready(&taken).await? == HandedCache::Purged {
                warm.doubt();
            }
        }
        ports.begin_accepting().await;
        admin_ports.begin_accepting().await;
        let upgrade_socket = upgrade_socket.open()?;
        if let Some(take_over) = take_over
            && let Err(error) = take_over.serving().await
        {
            // It has heard it, or has ended: this process serves in any case.
            tracing::warn!(%error, "the process before did not say that it ends");
        }
        ports.keep().await;
        let giver = UpgradeGiver::new(UpgradeGiverParts {
            ports: Arc::clone(&ports),
            admin: Arc::clone(&admin_ports),
            admin_endpoint: config.admin.address.clone(),
            reloader: Arc::clone(&reloader),
            proxy: Arc::clone(&proxy),
            tls: Arc::clone(&process.tls),
            warm: Arc::clone(&warm),
            manager: options.manager,
            generation,
            program: options.next,
        });
        Ok(Self {
            threads,
            ports,
            admin_ports,
            admin_threads,
            giver: Arc::clone(&giver),
            cache: Arc::clone(&cache),
            cluster,
            phase,
            proxy,
            _keeping: spawn(Arc::clone(&warm).keep()),
            warm,
            drain_limit: options.drain_limit,
            addresses,
            admin: admin_endpoint,
            admin_openness,
            _tending: spawn(tend(cache, config.cache.purge_log.sweep_interval.0)),
            watching: spawn(Arc::clone(&reloader).watch()),
            obtaining: acme.map(|acme| spawn(acme.run())),
            issuing: spawn(issue_again(Arc::clone(&reloader))),
            _counting: counting,
            _giving: upgrade_socket.map(|socket| spawn(giver.serve(socket))),
            reloader,
        })
    }

    /// Waits until another process has taken the place of this one.
    pub async fn replaced(&self) -> ReplacingProcess {
        let mut replaced = self.giver.replaced();
        let now = replaced.wait_for(Option::is_some).await;
        let now = now.ok().and_then(|now| now.clone());
        match now {
            Some(now) => now,
            // Nobody can ask this process to hand over any more.
            None => std::future::pending().await,
        }
    }

    /// Fills L1 with what the process before has left, within the configured time. Until then the
    /// gateway does not report ready, but who comes is served.
    pub async fn warm_up(&self, manager: &ServiceManager) {
        if self.warm.is_wanted() {
            let within = self.warm.patience();
            manager.tell(ServiceState::Warming { within });
            self.warm.warm_up(&self.proxy, &self.threads).await;
        }
        self.phase.send_replace(ServingPhase::Serving);
    }

    /// Takes up the configuration at each SIGHUP once the gateway is ready, and tells the service
    /// manager of it. Ends with the gateway.
    pub fn reload_on_signals(&self, manager: &ServiceManager) -> AbortOnDropHandle<()> {
        spawn(reload_on_signals(
            Arc::clone(&self.reloader),
            manager.clone(),
            self.phase.subscribe(),
        ))
    }

    /// Tells the service manager from now on that the gateway lives, if it wants to know: as long as
    /// every thread that serves requests, and that of the admin listener, take their turns.
    pub fn give_signs_of_life(&self, manager: &ServiceManager) {
        let serving = &self.threads;
        if let (Some(interval), [admin]) = (manager.watchdog_interval(), &*self.admin_threads) {
            let signs = watchdog::give_signs(manager.clone(), interval, serving.to_vec());
            admin.run(signs);
        }
    }

    /// Reports not ready, lets requests that are under way finish, then ends. All this takes at
    /// most `drain_timeout`, of which a tenth is reserved for what is sent out after the last
    /// request, and another one for what the next process begins with, if that is wanted.
    pub async fn drain(self) {
        let limit = Duration::from_millis(self.drain_limit.load(Ordering::Relaxed));
        let deadline = Instant::now() + limit;
        self.phase.send_replace(ServingPhase::Draining);
        let kept = FINISH.min(limit / 10);
        let for_warm = match self.warm.is_wanted() {
            true => kept,
            false => Duration::ZERO,
        };
        let mut listeners = self.ports.close().await;
        if let Some(listeners) = &mut listeners {
            listeners.quiesce(limit - kept - for_warm).await;
        }
        let left = (deadline - for_warm).saturating_duration_since(Instant::now());
        let left = FINISH.min(left);
        self.finish(left).await;
        // Not earlier: a load writes to the second tier on its own worker.
        if let Some(listeners) = listeners {
            listeners.cut().await;
        }
        if let Some(admin) = self.admin_ports.close().await {
            admin.drain(ADMIN_DRAIN.min(left)).await;
        }
        // Nothing can be purged here any more.
        let left = deadline.saturating_duration_since(Instant::now());
        self.warm.leave(left).await;
    }

    /// Makes room for the process that has taken the place of this one: each connection ends at a
    /// request of its own, for which it has `drain_timeout`, and tunnels go on for
    /// `old_engine_max`.
    pub async fn make_room(self, now: &ReplacingProcess) {
        let gentle = Duration::from_millis(self.drain_limit.load(Ordering::Relaxed));
        let patience = self.reloader.config().server.old_engine_max.0.max(gentle);
        self.phase.send_replace(ServingPhase::Draining);
        // The other process does all that now.
        self.watching.abort();
        self.issuing.abort();
        self.obtaining.iter().for_each(AbortOnDropHandle::abort);
        let (listeners, admin) = (self.ports.close().await, self.admin_ports.close().await);
        let clients = async {
            let mut listeners = listeners?;
            listeners.make_room(&now.taken, gentle, patience).await;
            Some(listeners)
        };
        let admin = async {
            if let Some(mut admin) = admin {
                admin
                    .make_room(&now.taken, Duration::ZERO, ADMIN_ROOM)
                    .await;
                admin.cut().await;
            }
        };
        let told = async {
            if let Some(cluster) = &self.cluster {
                cluster.fall_silent(FINISH).await;
            }
        };
        let stored = async {
            if let Some(tier) = self.cache.second_tier() {
                tier.finish(FINISH).await;
                tier.close().await;
            }
        };
        let answered = Arc::clone(&self.giver).answered();
        let (listeners, (), (), (), ()) = tokio::join!(clients, admin, told, stored, answered);
        if let Some(listeners) = listeners {
            listeners.cut().await;
        }
    }

    /// Sends out what other nodes and the second tier are to get.
    async fn finish(&self, within: Duration) {
        let told = async {
            if let Some(cluster) = &self.cluster {
                cluster.finish(within).await;
            }
        };
        let written = async {
            if let Some(tier) = self.cache.second_tier() {
                tier.finish(within).await;
            }
        };
        tokio::join!(told, written);
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
async fn reload_on_signals(
    reloader: Arc<ConfigReloader>,
    manager: ServiceManager,
    mut phase: ServingPhaseReceiver,
) {
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
    // A signal from before is kept until then.
    let ready = phase.wait_for(|phase| *phase != ServingPhase::Warming);
    if ready.await.is_err() {
        return;
    }
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
