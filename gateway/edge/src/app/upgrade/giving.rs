//! The side of the old process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lamina_base::descriptor_channel::{DescriptorChannel, MOST_DESCRIPTORS, own_user};
use lamina_base::service_manager::{ServiceManager, ServiceState};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::heard::HeardPublishers;
use super::messages::{
    AT_ONCE, HandedState, NewProcessMessage, OldProcessMessage, PROTOCOL, PortNote, PortPurpose,
    UpgradeOutcome, UpgradeQuestion, UpgradeWish, hear, say,
};
use super::provisional::{PassingOn, PurgeRecording, WrittenCache};
use super::{
    NewProgram, PredecessorPurges, ReplacingProcess, UpgradeSocket, program, purge_log, purges,
};
use crate::app::ports::RunningPorts;
use crate::app::reload::ConfigReloader;
use crate::app::warming::WarmKeeper;
use crate::cache::l2::store::PurgeLogRange;
use crate::cache::successor::SuccessorPurges;
use crate::cluster::{Cluster, DoubtCount, NodeLife};
use crate::config::GatewayConfig;
use crate::http::endpoint::Endpoint;
use crate::http::server::{EarlierProcess, HandedPort, SocketPurpose};
use crate::http::tls::listeners::TlsListeners;
use crate::proxy::Proxy;

/// Hands over when it is asked to.
pub struct UpgradeGiver {
    parts: UpgradeGiverParts,
    runtime: Handle,
    /// Held while a process takes over.
    giving: Mutex<()>,
    /// Held while a program is started for an operator.
    starting: Mutex<()>,
    /// Why the last process was not ready, by its number.
    last_failure: Mutex<Option<(u32, String)>>,
    replaced: watch::Sender<Option<ReplacingProcess>>,
}

/// What is handed over, and who must know of it.
pub struct UpgradeGiverParts {
    pub ports: Arc<RunningPorts>,
    pub admin: Arc<RunningPorts>,
    pub admin_endpoint: Endpoint,
    pub reloader: Arc<ConfigReloader>,
    pub proxy: Arc<Proxy>,
    pub tls: Arc<TlsListeners>,
    pub warm: Arc<WarmKeeper>,
    pub manager: ServiceManager,
    pub generation: u8,
    pub program: NewProgram,
    pub predecessors: PredecessorPurges,
    pub cluster: Option<Arc<Cluster>>,
}

/// The most that are connected at once.
const MOST_CALLERS: usize = 8;
/// The longest time that anybody is given to get ready.
const MOST_TIME: Duration = Duration::from_secs(3_600);
/// How long a process with the name of this one may still be heard on the event bus that leaves.
pub const NAMESAKE_LEAVES: Duration = Duration::from_secs(10);
/// Longer than a process lives that was replaced.
const NAMESAKE_STAYS: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How often it is seen whether a program that was started has ended.
const LOOK: Duration = Duration::from_millis(20);
/// The number of the process whose end ends all others of its container.
const FIRST_PROCESS: u32 = 1;
/// How long the question of the new process may be on its way over the event bus.
const QUESTION_PATIENCE: Duration = Duration::from_millis(200);
/// How long the answer to an operator waits for the new process's own upgrade socket.
const NEXT_SOCKET: Duration = Duration::from_secs(1);
/// The other user who is heard: it may do everything in any case.
const ROOT: u32 = 0;

/// Why the first process of a container can't be replaced.
const OF_CONTAINER: &str = "it is the first process of its container, whose end would end the new one \
                            with it: have the container replaced, or start the gateway by an init as \
                            with `docker run --init`";

impl UpgradeGiver {
    pub fn new(parts: UpgradeGiverParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            runtime: Handle::current(),
            giving: Mutex::default(),
            starting: Mutex::default(),
            last_failure: Mutex::default(),
            replaced: watch::Sender::new(None),
        })
    }

    /// The process that has taken the place of this one, once there is one.
    pub fn replaced(&self) -> watch::Receiver<Option<ReplacingProcess>> {
        self.replaced.subscribe()
    }

    /// Waits until the operator who has asked for another process has the answer.
    pub async fn answered(self: Arc<Self>) {
        let waits = move || drop(self.starting.try_lock_for(AT_ONCE));
        // It does not panic.
        let _ = tokio::task::spawn_blocking(waits).await;
    }

    /// Listens to whoever connects, until this process is replaced.
    pub async fn serve(self: Arc<Self>, socket: UpgradeSocket) {
        let callers = Arc::new(Semaphore::new(MOST_CALLERS));
        let socket = Arc::new(socket);
        let mut replaced = self.replaced();
        loop {
            let accepted = tokio::select! {
                accepted = socket.listener.accept() => Some(accepted),
                _ = replaced.wait_for(Option::is_some) => None,
            };
            let Some(accepted) = accepted else {
                // Its file is removed only if the new process puts none in its place.
                let waits = move || socket.await_next(NEXT_SOCKET);
                let _ = tokio::task::spawn_blocking(waits).await;
                return;
            };
            let Ok(place) = Arc::clone(&callers).acquire_owned().await else {
                return;
            };
            let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a caller on the upgrade socket was lost");
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            let (this, socket) = (Arc::clone(&self), Arc::clone(&socket));
            // Not of the runtime's own: those must not be waited for at the end.
            let talk = move || {
                let _place = place;
                let answered = DescriptorChannel::over(stream)
                    .and_then(|channel| this.answer(&channel, &socket));
                if let Err(error) = answered {
                    tracing::warn!(%error, "a caller on the upgrade socket was not answered");
                }
            };
            let named = thread::Builder::new().name("upgrade".to_owned());
            if let Err(error) = named.spawn(talk) {
                tracing::warn!(%error, "a caller on the upgrade socket was not heard");
            }
        }
    }

    fn answer(&self, channel: &DescriptorChannel, socket: &UpgradeSocket) -> io::Result<()> {
        let peer = channel.peer()?;
        if peer.user != own_user() && peer.user != ROOT {
            tracing::warn!(
                user = peer.user,
                process = peer.process,
                "another user was refused on the upgrade socket"
            );
            return refuse(channel, "it belongs to another user");
        }
        let question = match hear::<UpgradeQuestion>(channel, AT_ONCE) {
            Ok((question, _)) => question,
            Err(error) => return refuse(channel, &format!("not understood: {error}")),
        };
        if question.protocol != PROTOCOL {
            let why = format!(
                "it speaks form {PROTOCOL} of the take-over, and was asked in form {}",
                question.protocol
            );
            return refuse(channel, &why);
        }
        if std::process::id() == FIRST_PROCESS {
            return refuse(channel, OF_CONTAINER);
        }
        match question.asks {
            UpgradeWish::TakeOver {
                version,
                within,
                hears_purges,
            } => {
                let within = Duration::from_millis(within).min(MOST_TIME);
                let taker = TakingProcess {
                    process: peer.process,
                    handle: program::handle(peer.process).map(Arc::new),
                    version,
                    hears_purges,
                };
                self.give(channel, taker, within)
            }
            UpgradeWish::Upgrade {
                binary,
                config,
                within,
            } => {
                let Some(_one) = self.starting.try_lock() else {
                    return refuse(channel, "another upgrade is under way");
                };
                tracing::info!(
                    binary = %binary.display(),
                    user = peer.user,
                    "an operator wants this gateway to be replaced"
                );
                let deadline = Instant::now() + Duration::from_millis(within).min(MOST_TIME);
                let started = self.parts.program.start(&binary, config, socket.path());
                let outcome = match started {
                    Ok(program) => self.await_take_over(program, deadline),
                    Err(error) => Err(format!("the new program can't be started: {error}")),
                };
                match outcome {
                    Ok(outcome) => {
                        socket.await_next(NEXT_SOCKET);
                        say(channel, &OldProcessMessage::Upgraded(outcome), &[])
                    }
                    Err(why) => {
                        tracing::error!(why, "not replaced: this gateway goes on");
                        refuse(channel, &why)
                    }
                }
            }
        }
    }

    /// Waits until a program that was started has taken the place of this process.
    fn await_take_over(
        &self,
        mut program: super::program::StartedProgram,
        deadline: Instant,
    ) -> Result<UpgradeOutcome, String> {
        let process = program.process();
        loop {
            if let Some(now) = self.replaced.borrow().clone() {
                if !started_by(now.process, process) {
                    return Err(format!("the process {} was quicker", now.process));
                }
                program.let_go();
                return Ok(UpgradeOutcome {
                    process: now.process,
                    version: now.version,
                    old_process: std::process::id(),
                    old_version: env!("CARGO_PKG_VERSION").to_owned(),
                });
            }
            if let Some(status) = program.ended() {
                // What it has said before its end is perhaps just being heard.
                drop(self.giving.try_lock_for(AT_ONCE));
                let said = self.last_failure.lock().take();
                let said = said.filter(|(of, _)| *of == process);
                return Err(match said {
                    Some((_, why)) => format!("the new program is not ready: {why}"),
                    None => format!(
                        "the new program ended before it was ready ({status}); what it said is in \
                         the log of the gateway"
                    ),
                });
            }
            if Instant::now() >= deadline {
                // It holds what was handed over until it is ended, which dropping it does.
                return Err("the new program was not ready in time, and was ended".to_owned());
            }
            thread::sleep(LOOK);
        }
    }

    /// Hands over to the process at the other end.
    fn give(
        &self,
        channel: &DescriptorChannel,
        taker: TakingProcess,
        within: Duration,
    ) -> io::Result<()> {
        let Some(one) = self.giving.try_lock() else {
            return refuse(channel, "another process is about to take over");
        };
        if self.replaced.borrow().is_some() {
            return refuse(channel, "another process has taken over");
        }
        let process = taker.process;
        tracing::info!(
            process,
            version = taker.version,
            "another process wants to take over"
        );
        self.expect_namesake_for(within + NAMESAKE_LEAVES);
        match self.try_give(channel, taker, within) {
            Ok((now, purges)) => {
                self.expect_namesake_for(NAMESAKE_STAYS);
                tracing::info!(
                    process = now.process,
                    version = now.version,
                    "another process has taken over: this one drains"
                );
                self.replaced.send_replace(Some(now));
                drop(one);
                purges::tell(channel, &purges);
                Ok(())
            }
            Err(why) => {
                self.expect_namesake_for(NAMESAKE_LEAVES);
                tracing::error!(
                    process,
                    why,
                    "the other process has not taken over: this one goes on"
                );
                *self.last_failure.lock() = Some((process, why.clone()));
                refuse(channel, &why)
            }
        }
    }

    /// The other process has the name of this one on the event bus.
    fn expect_namesake_for(&self, span: Duration) {
        if let Some(cluster) = &self.parts.cluster {
            cluster.expect_namesake_for(span);
        }
    }

    fn try_give(
        &self,
        channel: &DescriptorChannel,
        taker: TakingProcess,
        within: Duration,
    ) -> Result<(ReplacingProcess, Arc<SuccessorPurges>), String> {
        let deadline = Instant::now() + within;
        let reloader = &self.parts.reloader;
        let held = async { timeout(within, reloader.hold()).await };
        let held = self.runtime.block_on(held);
        let _same_config = held.map_err(|_| "a reload takes too long".to_owned())?;
        let cache = &self.parts.proxy.cache;
        let written_at = cache.order();
        let recording = PurgeRecording::begin(cache);
        let cluster = self.parts.cluster.as_ref();
        let doubts = cluster.map(|cluster| cluster.doubts_so_far());
        let written = WrittenCache::write(&self.parts.warm, within);
        let broke_off = |error: io::Error| format!("it broke off: {error}");
        let ports = self.handed().map_err(|error| error.to_string())?;
        let log = match taker.hears_purges {
            true => self.purge_log(),
            false => None,
        };
        self.send_state(channel, &ports, log.as_ref())
            .map_err(broke_off)?;
        drop((ports, log));
        let left = deadline.saturating_duration_since(Instant::now());
        let (taken, life) = match hear(channel, left).map_err(broke_off)?.0 {
            NewProcessMessage::Ready { taken, life } => (taken, life),
            NewProcessMessage::Failed { why } => return Err(why),
            NewProcessMessage::Serving | NewProcessMessage::Purged => {
                return Err("it serves before its time".to_owned());
            }
        };
        let taken: Vec<Endpoint> = taken.iter().filter_map(|text| text.parse().ok()).collect();
        // Before anything is passed on, since it may take a moment.
        if let (Some(cluster), Some(life)) = (cluster, &life) {
            let heard = async { cluster.await_successor(life, QUESTION_PATIENCE).await };
            self.runtime.block_on(heard);
        }
        let passing = PassingOn::begin(&self.parts, &self.runtime, &taken);
        // First, so that what is counted is among what is told.
        let heard = cluster.zip(doubts).zip(life);
        let heard = heard.and_then(|((cluster, doubts), life)| {
            heard_for(cluster, doubts, &life, &reloader.config())
        });
        // What is purged from here on, the other process is told when it serves.
        let kept = recording.purges.kept();
        let told = taker.hears_purges.then_some(kept.len());
        let purged = cache.order() != written_at;
        let yours = OldProcessMessage::Yours {
            purged,
            told,
            heard,
        };
        say(channel, &yours, &passing.earlier()).map_err(broke_off)?;
        for purge in kept.iter().take(told.unwrap_or_default()) {
            say(channel, &purges::said(purge), &[]).map_err(broke_off)?;
        }
        match hear(channel, AT_ONCE).map_err(broke_off)?.0 {
            NewProcessMessage::Serving => {}
            NewProcessMessage::Failed { why } => return Err(why),
            NewProcessMessage::Ready { .. } | NewProcessMessage::Purged => {
                return Err("it is ready twice".to_owned());
            }
        }
        // From here on there is no way back.
        reloader.leave_to_the_next_process();
        passing.stays();
        let purges = recording.stays();
        written.stays();
        self.parts
            .manager
            .tell(ServiceState::Replaced { by: taker.process });
        if let Err(error) = say(channel, &OldProcessMessage::Released, &[]) {
            tracing::warn!(%error, "the new process was not told that it is alone");
        }
        let now = ReplacingProcess {
            process: taker.process,
            handle: taker.handle,
            version: taker.version,
            taken,
        };
        Ok((now, purges))
    }

    /// Duplicates of all sockets.
    fn handed(&self) -> io::Result<Vec<HandedPort>> {
        let UpgradeGiverParts {
            ports,
            admin,
            admin_endpoint,
            ..
        } = &self.parts;
        let (clients, admins) = (SocketPurpose::Clients, SocketPurpose::Admin);
        let clients = ports.hand_over(clients, admin_endpoint);
        let admins = admin.hand_over(admins, admin_endpoint);
        self.runtime.block_on(async {
            let mut all = clients.await?;
            all.extend(admins.await?);
            Ok(all)
        })
    }

    /// The purge log of a second tier that this process has alone.
    fn purge_log(&self) -> Option<PurgeLogRange> {
        let tier = self.parts.proxy.cache.second_tier()?;
        let log = self.runtime.block_on(tier.log_for_successor(AT_ONCE / 2))?;
        purge_log::can_be_said(&log).then_some(log)
    }

    fn send_state(
        &self,
        channel: &DescriptorChannel,
        ports: &[HandedPort],
        log: Option<&PurgeLogRange>,
    ) -> io::Result<()> {
        let state = HandedState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.parts.generation,
            secret: self.parts.tls.secret().octets().to_vec(),
            ports: ports.iter().map(PortNote::of).collect(),
            purge_log: log.is_some(),
        };
        let descriptors: Vec<BorrowedFd<'_>> = ports.iter().flat_map(descriptors).collect();
        let (first, more) = descriptors.split_at(descriptors.len().min(MOST_DESCRIPTORS));
        say(channel, &OldProcessMessage::State(state), first)?;
        for some in more.chunks(MOST_DESCRIPTORS) {
            say(channel, &OldProcessMessage::Descriptors, some)?;
        }
        match log {
            Some(log) => purge_log::say_log(channel, log),
            None => Ok(()),
        }
    }
}

/// The process that wants to take over.
struct TakingProcess {
    process: u32,
    handle: Option<Arc<OwnedFd>>,
    version: String,
    /// Whether it hears the purge log, and what is purged until it serves.
    hears_purges: bool,
}

fn descriptors(port: &HandedPort) -> impl Iterator<Item = BorrowedFd<'_>> {
    let sockets = port.streams.iter().chain(&port.datagrams);
    let ways = port.earlier.iter().map(|earlier| earlier.way().as_fd());
    sockets.chain(&port.lock).map(AsFd::as_fd).chain(ways)
}

/// Whether a process is this program, or was started by it: a script may stand before the gateway.
fn started_by(mut process: u32, first: u32) -> bool {
    while process != first {
        match program::parent(process) {
            Some(parent) if parent > FIRST_PROCESS => process = parent,
            _ => return false,
        }
    }
    true
}

/// What was heard on the bus since that count, for that process. None: it may be incomplete.
fn heard_for(
    cluster: &Cluster,
    doubts: DoubtCount,
    taker: &NodeLife,
    config: &GatewayConfig,
) -> Option<HeardPublishers> {
    let heard = cluster.heard_since(doubts, taker).and_then(|heard| {
        let told = HeardPublishers::new(heard, config);
        told.ok_or("there are too many nodes to tell of")
    });
    if let Err(why) = heard {
        tracing::info!(
            why,
            "the new process is not told what was heard on the event bus: it validates what it begins with"
        );
    }
    heard.ok()
}

fn refuse(channel: &DescriptorChannel, why: &str) -> io::Result<()> {
    let why = why.to_owned();
    // The other end may be what has failed.
    let _ = say(channel, &OldProcessMessage::Refused { why }, &[]);
    channel.close();
    Ok(())
}

impl PortNote {
    fn of(port: &HandedPort) -> Self {
        Self {
            purpose: match port.purpose {
                SocketPurpose::Clients => PortPurpose::Clients,
                SocketPurpose::Admin => PortPurpose::Admin,
            },
            configured: port.configured.to_string(),
            bound: port.bound.to_string(),
            streams: port.streams.len(),
            datagrams: port.datagrams.len(),
            locks: usize::from(port.lock.is_some()),
            earlier: port
                .earlier
                .iter()
                .map(EarlierProcess::generation)
                .collect(),
        }
    }
}
