//! What a gateway does again and again while it runs: it maintains its cache, counts the nodes that
//! share its limits, renews local certificates, and reloads its configuration at each SIGHUP. Also
//! what the process must outlive.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lamina_base::service_manager::{self, ServiceManager, ServiceState};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::reload::ConfigReloader;
use super::reload::outcome::{ReloadAct, ReloadError, ReloadTrigger};
use super::upgrade::ReplacingProcess;
use crate::admin::phase::{ServingPhase, ServingPhaseReceiver};
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::local_authority;
use crate::rate_limit::RateLimiter;

/// How often the cache is maintained and gauges are updated.
const TEND: Duration = Duration::from_secs(1);
/// How often local certificates are looked at.
const ISSUE_AGAIN: Duration = Duration::from_secs(12 * 3_600);

/// Makes it an error of the write, as a full disk is, that a file may not grow any more (`ulimit -f`,
/// `LimitFSIZE=`). Without this the kernel ends the process there, with the first word that it says if
/// its log is such a file. Needs a tokio runtime.
///
/// # Errors
/// If the signal can't be handled.
pub fn outlive_file_size_limits() -> io::Result<()> {
    let size = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // The handler stays, whether or not anybody waits for the signal.
    signal(size).map(drop)
}

/// Takes up the configuration, and plugin files with it, at each SIGHUP.
pub(super) struct SignalledReloads {
    pub(super) reloader: Arc<ConfigReloader>,
    pub(super) manager: ServiceManager,
    pub(super) replaced: watch::Receiver<Option<ReplacingProcess>>,
}

impl SignalledReloads {
    /// Follows the signals for ever.
    pub(super) async fn follow(self, mut hangups: Signal, mut phase: ServingPhaseReceiver) {
        // A signal from before is kept until then.
        let ready = phase.wait_for(|phase| *phase != ServingPhase::Warming);
        if ready.await.is_err() {
            return;
        }
        while hangups.recv().await.is_some() {
            if self.replaced.borrow().is_none() {
                let mut replaced = self.replaced.clone();
                tokio::select! {
                    () = self.reload() => {}
                    // The other process may have read the files before they were changed.
                    _ = replaced.wait_for(Option::is_some) => {}
                }
            }
            let now = self.replaced.borrow().clone();
            if let Some(now) = now {
                pass_on(&now);
            }
        }
    }

    async fn reload(&self) {
        tracing::info!("SIGHUP: reloading the configuration and the plugins");
        self.manager.tell(ServiceState::Reloading {
            since: service_manager::monotonic_now(),
        });
        let outcome = self
            .reloader
            .reload(ReloadTrigger::Signal, ReloadAct::Apply);
        let status = match outcome.await {
            // The process that is about to be told takes it up.
            Err(ReloadError::Replaced) => return std::future::pending().await,
            Ok(report) => format!("Serving by the configuration {}", report.hash_after),
            Err(error) => format!("Serving by the configuration before: {error}"),
        };
        self.manager.tell(ServiceState::Ready { status: &status });
    }
}

/// Has the process that serves now take its configuration up.
fn pass_on(now: &ReplacingProcess) {
    let process = now.process;
    tracing::info!(
        process,
        "SIGHUP: it is passed on to the process that serves now"
    );
    if let Err(error) = now.signal(rustix::process::Signal::HUP) {
        tracing::warn!(process, %error, "SIGHUP could not be passed on");
    }
}

/// Issues local certificates again before they end.
pub(super) async fn issue_again(reloader: Arc<ConfigReloader>) {
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
pub(super) async fn tend(cache: Arc<Cache>, sweep: Duration) {
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
pub(super) async fn count_nodes(cluster: Arc<Cluster>, limiter: Arc<RateLimiter>) {
    let mut ticks = tokio::time::interval(TEND);
    loop {
        ticks.tick().await;
        if cluster.standing().hears {
            limiter.set_nodes(cluster.nodes(Instant::now()).len() + 1);
        }
    }
}
