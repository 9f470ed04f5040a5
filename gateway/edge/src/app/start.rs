//! The start of a gateway, one step after another: [`start`].

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use lamina_base::service_manager::ServiceManager;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::opening::{self, SocketSources};
use super::ports::RunningPorts;
use super::process::ProcessState;
use super::process_settings::ProcessSettings;
use super::reload::outcome::{ReloadAct, with_causes};
use super::reload::{ConfigOrigin, ConfigReloader, ReloadParts};
use super::running::{GatewayTasks, RunningGateway};
use super::upgrade::{
    HandedCache, HandedKnowledge, NAMESAKE_LEAVES, PredecessorPurges, TakeOver, TakeOverError,
    UpgradeGiver, UpgradeGiverParts, UpgradeSocket,
};
use super::{
    GatewayStartError, StartOptions, certificates, joining, open_store_after, self_check, spawn,
    upkeep,
};
use crate::acme::AcmeManager;
use crate::admin::phase::{ServingPhase, ServingPhaseSender};
use crate::admin::{AdminGate, AdminReload, AdminReloadFunction, AdminService, AdminWorkLimits};
use crate::cache::l2::description::StoreOwnerBefore;
use crate::cluster::{Cluster, NodeBefore};
use crate::config::GatewayConfig;
use crate::http::endpoint::Endpoint;
use crate::http::memory::{self, HeldGauge};
use crate::http::server::{BoundListeners, HandedPort, HandlerAnswer, SharedByListeners};
use crate::local_authority;
use crate::proxy::Proxy;
use crate::telemetry::logs::LogWriterGuard;

/// Longer than a take-over may take.
const LONGEST_TAKE_OVER: Duration = Duration::from_secs(7_200);

/// How long a process that takes the place of another one waits until it hears the event bus: it knows
/// by what the other one has heard that it has missed nothing only if it hears the bus itself.
const BUS_PATIENCE: Duration = Duration::from_secs(2);

/// How long the start waits for the second tier's purge log: once the log is known, the first
/// requests can use entries of the second tier.
const KNOWN: Duration = Duration::from_millis(500);

/// Opens the listeners, or takes them over, and starts to serve.
///
/// # Errors
/// See [`GatewayStartError`]; after an error nothing keeps running.
pub(super) async fn start(
    config: &GatewayConfig,
    mut options: StartOptions<'_>,
) -> Result<RunningGateway, GatewayStartError> {
    let mut take_over = options.take_over.take();
    let handed = take_over.as_mut().map(TakeOver::take_ports);
    let started = start_in_place_of(take_over.as_ref(), handed, config, options).await;
    if let (Some(take_over), Err(error)) = (&take_over, &started) {
        take_over.failed(with_causes(error));
    }
    started
}

async fn start_in_place_of(
    take_over: Option<&TakeOver>,
    handed: Option<Vec<HandedPort>>,
    config: &GatewayConfig,
    options: StartOptions<'_>,
) -> Result<RunningGateway, GatewayStartError> {
    let StartOptions {
        manager,
        drain_limit,
        ..
    } = options;
    let engine = StartedEngine::open(config, take_over, &drain_limit).await?;
    let sources = SocketSources {
        inherited: options.inherited,
        handed,
        manager: &manager,
    };
    let opened = opening::open(config, sources, engine.shared_by_listeners())?;
    let addresses = opened.bound.addresses_with_scheme();
    let ports = ports_for_clients(opened.bound, &engine.proxy, &manager);
    let endpoint = opened.admin_bound.endpoints().next();
    let endpoint = endpoint.unwrap_or(&config.admin.address).clone();
    let source = (config, options.origin);
    let control = StartedControl::new(&engine, &ports, endpoint, source, options.logs)?;
    let admin_ports = ports_for_admin(opened.admin_bound, &control.admin);
    if let Some(take_over) = take_over {
        engine
            .process
            .warm
            .warm_up(&engine.proxy, ports.threads())
            .await;
        if let Some(cluster) = &engine.cluster {
            cluster.await_bus(BUS_PATIENCE).await;
        }
        control.phase.send_replace(ServingPhase::Serving);
        self_check::check(&control.admin, admin_ports.threads(), ports.threads()).await?;
        let life = engine.cluster.as_ref();
        let life = life.and_then(|cluster| cluster.life_to_tell());
        engine.continue_with(take_over.ready(&opened.taken, life).await?, config);
    }
    // Nothing is accepted as long as the process before may go on.
    let predecessors = match take_over {
        Some(take_over) => engine.release(take_over).await?,
        None => PredecessorPurges::new(Vec::new()),
    };
    ports.begin_accepting().await;
    admin_ports.begin_accepting().await;
    let upgrade_socket = match opened.upgrade_socket.open() {
        // The process before has ended: nobody would serve if this one ended as well.
        Err(error) if take_over.is_some() => {
            let error = with_causes(&error);
            tracing::error!(error, "no other process can take the place of this one");
            None
        }
        opened => opened?,
    };
    ports.keep().await;
    let (process, reloader) = (engine.process, control.reloader);
    let giver = UpgradeGiver::new(UpgradeGiverParts {
        ports: Arc::clone(&ports),
        admin: Arc::clone(&admin_ports),
        admin_endpoint: config.admin.address.clone(),
        reloader: Arc::clone(&reloader),
        proxy: Arc::clone(&engine.proxy),
        tls: Arc::clone(&process.tls),
        warm: Arc::clone(&process.warm),
        manager,
        generation: engine.generation,
        program: options.next,
        predecessors,
        cluster: engine.cluster.clone(),
    });
    let work = GatewayTasks {
        watching: spawn(Arc::clone(&reloader).follow_files()),
        obtaining: engine.acme.clone().map(|acme| spawn(acme.run())),
        issuing: spawn(upkeep::issue_again(Arc::clone(&reloader))),
        _others: work_without_end(config, &process, &giver, engine.counting, upgrade_socket),
    };
    Ok(RunningGateway {
        ports,
        admin_ports,
        giver,
        cache: Arc::clone(&process.cache),
        cluster: engine.cluster,
        phase: control.phase,
        proxy: engine.proxy,
        warm: Arc::clone(&process.warm),
        acme: engine.acme,
        drain_limit,
        addresses,
        admin: control.endpoint,
        admin_openness: control.openness,
        tasks: work,
        reloader,
    })
}

/// What is done beside the requests for as long as the process lives.
fn work_without_end(
    config: &GatewayConfig,
    process: &ProcessState,
    giver: &Arc<UpgradeGiver>,
    counting: Option<AbortOnDropHandle<()>>,
    upgrade_socket: Option<UpgradeSocket>,
) -> Vec<AbortOnDropHandle<()>> {
    let sweep = config.cache.purge_log.sweep_interval.0;
    let mut tasks = vec![
        spawn(upkeep::tend(Arc::clone(&process.cache), sweep)),
        spawn(Arc::clone(&process.warm).keep()),
    ];
    tasks.extend(counting);
    tasks.extend(upgrade_socket.map(|socket| spawn(Arc::clone(giver).serve(socket))));
    tasks
}

/// What serves requests, before a listener is open.
struct StartedEngine {
    process: Arc<ProcessState>,
    proxy: Arc<Proxy>,
    cluster: Option<Arc<Cluster>>,
    /// Counts the nodes that share limits.
    counting: Option<AbortOnDropHandle<()>>,
    settings: Arc<ProcessSettings>,
    acme: Option<Arc<AcmeManager>>,
    /// Which process in the sequence of take-overs this is.
    generation: u8,
}

impl StartedEngine {
    async fn open(
        config: &GatewayConfig,
        take_over: Option<&TakeOver>,
        drain_limit: &Arc<AtomicU64>,
    ) -> Result<Self, GatewayStartError> {
        let process = open_process(config, take_over)?;
        let proxy = process.proxy(config).await?;
        begin_with_what_is_kept(&process, config).await;
        let (cache, registry) = (&process.cache, &process.registry);
        let joined = config.bus.as_ref();
        let before = match take_over {
            Some(_) => NodeBefore::ReplacedProcess,
            None => NodeBefore::Nobody,
        };
        let joined = joined.map(|bus| joining::join(bus, config, cache, registry, before));
        let cluster = joined.transpose()?.flatten();
        if let (Some(cluster), Some(_)) = (&cluster, take_over) {
            // Until this process serves, the one before has its name on the bus, too.
            cluster.expect_namesake_for(LONGEST_TAKE_OVER);
        }
        let counting = cluster.as_ref().map(|cluster| {
            let (cluster, limiter) = (Arc::clone(cluster), Arc::clone(&process.limiter));
            spawn(upkeep::count_nodes(cluster, limiter))
        });
        local_authority::issue_all(config)?;
        let settings = ProcessSettings::new(&process.tls, Arc::clone(drain_limit));
        let acme = certificates::obtaining(config, &process.tls, registry).await?;
        settings.follow(config, settings.sharing(config)?);
        memory::PROCESS.set_bound(config.server.max_held_bytes.0);
        Ok(Self {
            process,
            proxy,
            cluster,
            counting,
            settings,
            acme,
            generation: take_over.map_or(0, TakeOver::generation),
        })
    }

    /// Purges what the process before has purged since it wrote down what this one begins with, and
    /// doubts nothing that it has not doubted.
    fn continue_with(&self, before: HandedKnowledge, config: &GatewayConfig) {
        let cache = &self.process.cache;
        match before.cache {
            HandedCache::Purged(purges) => purges
                .into_iter()
                .for_each(|purge| purge.apply_here_alone(cache)),
            HandedCache::InDoubt => self.process.warm.doubt(),
        }
        if let Some(cluster) = &self.cluster {
            let heard = before.heard.and_then(|heard| heard.over_bus_of(config));
            if cluster.inherit(heard) {
                tracing::info!("the process before has heard all other nodes: nothing is in doubt");
            }
        }
    }

    /// Lets the process before end, and hears from now on what it purges until then.
    ///
    /// # Errors
    /// If it goes on.
    async fn release(&self, before: &TakeOver) -> Result<PredecessorPurges, TakeOverError> {
        match before.serving().await {
            Ok(()) => {}
            Err(refused @ TakeOverError::Refused { .. }) => return Err(refused),
            // It has heard it, or has ended: this process serves in any case.
            Err(error) => {
                tracing::warn!(%error, "the process before did not say that it ends");
            }
        }
        if let Some(cluster) = &self.cluster {
            cluster.expect_namesake_for(NAMESAKE_LEAVES);
        }
        let predecessors = PredecessorPurges::new(before.purge_channels());
        predecessors.resume(&self.process.cache, &Handle::current());
        Ok(predecessors)
    }

    fn shared_by_listeners(&self) -> SharedByListeners {
        let secret = self.process.tls.secret();
        SharedByListeners {
            tls: Arc::clone(&self.process.tls),
            quic: Arc::clone(&self.process.quic),
            identity: Arc::new(secret.quic_identity(self.generation)),
        }
    }
}

/// What operators talk to.
struct StartedControl {
    endpoint: Endpoint,
    openness: String,
    admin: Arc<AdminService>,
    reloader: Arc<ConfigReloader>,
    phase: ServingPhaseSender,
}

impl StartedControl {
    fn new(
        engine: &StartedEngine,
        ports: &Arc<RunningPorts>,
        endpoint: Endpoint,
        (config, origin): (&GatewayConfig, ConfigOrigin),
        logs: &LogWriterGuard,
    ) -> Result<Self, GatewayStartError> {
        let StartedEngine { process, acme, .. } = engine;
        let gate = AdminGate::new(&config.admin, &endpoint);
        let openness = gate.openness();
        let gate = Arc::new(ArcSwap::from_pointee(gate));
        let parts = ReloadParts {
            process: Arc::clone(process),
            proxy: Arc::clone(&engine.proxy),
            ports: Arc::clone(ports),
            settings: Arc::clone(&engine.settings),
            acme: acme.clone(),
            gate: Arc::clone(&gate),
            admin: endpoint.clone(),
            set_level: logs.level_setter(),
        };
        let reloader = ConfigReloader::new(origin, config, parts)?;
        let (phase, asked_phase) = watch::channel(match process.warm.is_wanted() {
            true => ServingPhase::Warming,
            false => ServingPhase::Serving,
        });
        let admin = Arc::new(AdminService {
            proxy: Arc::clone(&engine.proxy),
            cluster: engine.cluster.clone(),
            registry: process.registry.clone(),
            recent: Arc::clone(&process.recent),
            gate,
            work_limits: AdminWorkLimits::default(),
            phase: asked_phase,
            acme: acme.clone(),
            keylog: engine.settings.writes_key_log(),
            refresh: refresh(process, &reloader, acme, logs)?,
            reload: reload_for_operators(&reloader),
        });
        Ok(Self {
            endpoint,
            openness,
            admin,
            reloader,
            phase,
        })
    }
}

/// Opens the store of the second tier and makes the state of the process, which goes on with the
/// secret of the process before.
fn open_process(
    config: &GatewayConfig,
    take_over: Option<&TakeOver>,
) -> Result<Arc<ProcessState>, GatewayStartError> {
    let before = match take_over {
        Some(_) => StoreOwnerBefore::ReplacedProcess,
        None => StoreOwnerBefore::Nobody,
    };
    let process = ProcessState::new(config, open_store_after(config, before)?)?;
    if let Some(secret) = take_over.and_then(TakeOver::secret) {
        process.tls.inherit_secret(secret);
    }
    let log = take_over.and_then(TakeOver::purge_log);
    if let (Some(tier), Some(log)) = (process.cache.second_tier(), log) {
        tier.begin_with_log(log.clone());
    }
    Ok(Arc::new(process))
}

/// Reads what the process before has left in a file, and waits a little for the second tier.
async fn begin_with_what_is_kept(process: &ProcessState, config: &GatewayConfig) {
    let (warm, wanted) = (Arc::clone(&process.warm), config.cache.warm.clone());
    let begun = tokio::task::spawn_blocking(move || warm.begin(wanted.as_ref()));
    if begun.await.is_err() {
        tracing::error!("reading cache.warm.file broke off; it is not used");
    }
    if let Some(tier) = process.cache.second_tier()
        && !tier.known(KNOWN).await
    {
        let kind = tier.kind();
        tracing::warn!(
            kind,
            "the second tier does not answer; serving without it for now"
        );
    }
}

/// Has the worker threads serve clients. Nothing is accepted yet.
fn ports_for_clients(
    bound: BoundListeners,
    proxy: &Arc<Proxy>,
    manager: &ServiceManager,
) -> Arc<RunningPorts> {
    let serving = Arc::clone(proxy);
    let listeners = bound.start_waiting(move |head, body, entered, early| {
        serving.handle(head, body, entered, early)
    });
    Arc::new(RunningPorts::new(listeners, manager.clone()))
}

/// Has a thread of its own serve operators. Nothing is accepted yet.
fn ports_for_admin(bound: BoundListeners, admin: &Arc<AdminService>) -> Arc<RunningPorts> {
    let answering = Arc::clone(admin);
    let listener = bound.start_waiting(move |head, body, entered, _| {
        let request = http::Request::from_parts(head, body);
        HandlerAnswer::later(Arc::clone(&answering).handle(request, entered.peer))
    });
    Arc::new(RunningPorts::new(listener, ServiceManager::default()))
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

/// Takes up the configuration for operators, or plans it.
fn reload_for_operators(reloader: &Arc<ConfigReloader>) -> AdminReloadFunction {
    let reloader = Arc::clone(reloader);
    Box::new(move |wanted, source| {
        let act = match wanted {
            AdminReload::Apply => ReloadAct::Apply,
            AdminReload::Plan(file) => ReloadAct::Plan(file),
        };
        let reloader = Arc::clone(&reloader);
        async move { reloader.answer(act, source).await }.boxed()
    })
}
