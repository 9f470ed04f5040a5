//! A gateway at work, from its start to its end: [`RunningGateway`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lamina_base::service_manager::{ServiceManager, ServiceState};
use tokio::signal::unix::Signal;
use tokio_util::task::AbortOnDropHandle;

use super::ports::RunningPorts;
use super::reload::ConfigReloader;
use super::upgrade::{ReplacingProcess, UpgradeGiver};
use super::warming::WarmKeeper;
use super::{spawn, upkeep, watchdog};
use crate::acme::AcmeManager;
use crate::admin::phase::{ServingPhase, ServingPhaseSender};
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::http::endpoint::Endpoint;
use crate::proxy::Proxy;

/// How long a drain waits for writes to the second tier and for events to the other nodes.
const FINISH: Duration = Duration::from_secs(3);
/// How long requests to the admin listener may take while the process ends.
const ADMIN_DRAIN: Duration = Duration::from_millis(100);
/// The same while another process has taken its place.
const ADMIN_ROOM: Duration = Duration::from_secs(5);

/// A gateway at work.
pub struct RunningGateway {
    pub(super) ports: Arc<RunningPorts>,
    pub(super) admin_ports: Arc<RunningPorts>,
    pub(super) reloader: Arc<ConfigReloader>,
    pub(super) giver: Arc<UpgradeGiver>,
    pub(super) cache: Arc<Cache>,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) phase: ServingPhaseSender,
    pub(super) proxy: Arc<Proxy>,
    pub(super) warm: Arc<WarmKeeper>,
    pub(super) acme: Option<Arc<AcmeManager>>,
    pub(super) drain_limit: Arc<AtomicU64>,
    /// The addresses of the client listeners with their scheme, in the order of the configuration.
    pub addresses: Vec<(SocketAddr, &'static str)>,
    pub admin: Endpoint,
    /// What the admin listener allows, and to whom.
    pub admin_openness: String,
    pub(super) tasks: GatewayTasks,
}

/// What a gateway does in the background. The tasks end with it.
pub(super) struct GatewayTasks {
    /// Notices changed files. Another process that takes the place of this one does it then.
    pub(super) watching: AbortOnDropHandle<()>,
    /// Obtains certificates, likewise.
    pub(super) obtaining: Option<AbortOnDropHandle<()>>,
    /// Renews local certificates, likewise.
    pub(super) issuing: AbortOnDropHandle<()>,
    /// These run until the end.
    pub(super) _others: Vec<AbortOnDropHandle<()>>,
}

impl GatewayTasks {
    /// Leaves to another process what only one of the two may do.
    fn leave_to_the_next_process(&self) {
        self.watching.abort();
        self.issuing.abort();
        self.obtaining.iter().for_each(AbortOnDropHandle::abort);
    }
}

impl RunningGateway {
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
            self.warm.warm_up(&self.proxy, self.ports.threads()).await;
        }
        self.phase.send_replace(ServingPhase::Serving);
    }

    /// Takes up the configuration at each SIGHUP once the gateway is ready, and tells the service
    /// manager of it. When another process has the place of this one, that gets the signals, also
    /// one that has waited meanwhile. Ends when it is dropped.
    pub fn reload_on_signals(
        &self,
        manager: &ServiceManager,
        hangups: Signal,
    ) -> AbortOnDropHandle<()> {
        let reloading = upkeep::SignalledReloads {
            reloader: Arc::clone(&self.reloader),
            manager: manager.clone(),
            replaced: self.giver.replaced(),
        };
        spawn(reloading.follow(hangups, self.phase.subscribe()))
    }

    /// Tells the service manager from now on that the gateway lives, if it wants to know: as long as
    /// every thread that serves requests, and that of the admin listener, take their turns.
    pub fn give_signs_of_life(&self, manager: &ServiceManager) {
        let admin = self.admin_ports.threads();
        if let (Some(interval), [admin]) = (manager.watchdog_interval(), admin) {
            let serving = self.ports.threads().to_vec();
            let signs = watchdog::give_signs(manager.clone(), interval, serving);
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
        if let Some(acme) = &self.acme {
            acme.leave_orders();
        }
        self.tasks.leave_to_the_next_process();
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
