//! Listeners at work: their threads, their ports, and how ports come, change and go while requests
//! are served.
//!
//! Other settings for a listener are a new port on the same sockets: connections that come get the
//! new settings, and those that are there end gently, at a request of theirs.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::bind_error::BindError;
use super::bound::has_twin;
use super::port::{OpenedPort, Port, speaks_http3};
use super::quic::{OpenedQuic, QuicTenant, SteeringGroup};
use super::shared::SharedByListeners;
use super::signal::{DrainSignal, DrainStage};
use super::socket::{self, ListeningSocket, OwnAddresses};
use super::thread_work::WorkerThread;
use super::unix::SocketFile;
use super::worker::AcceptOn;
use crate::config::ListenerConfig;
use crate::endpoint::Endpoint;
use crate::tls::certificate::ServerCertificate;

/// How long the connections of a listener that is gone may wait for their next request.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// Listeners at work. Dropping them cuts all connections.
#[must_use = "dropping it stops the listeners"]
pub struct RunningListeners {
    pub(super) stop: Arc<DrainSignal>,
    /// Sends sockets to each worker.
    pub(super) workers: Vec<mpsc::UnboundedSender<AcceptOn>>,
    pub(super) threads: Vec<WorkerThread>,
    pub(super) ports: Vec<RunningPort>,
    /// Replaced and removed ones whose connections may still be there.
    pub(super) retired: Vec<Weak<Port>>,
    /// Closed when the last worker has ended.
    pub(super) alive: mpsc::Receiver<()>,
    pub(super) shared: SharedByListeners,
    /// What is accepted on from [`begin_accepting`](Self::begin_accepting) on.
    pub(super) waiting: Vec<OpenedPort>,
    pub(super) file: Option<SocketFile>,
}

/// A port that workers accept on.
pub(super) struct RunningPort {
    pub(super) port: Arc<Port>,
    /// The settings. None for a listener that keeps those of the start.
    pub(super) listener: Option<ListenerConfig>,
    /// Further descriptors of the TCP sockets, for the port that takes the place of this one.
    pub(super) sockets: Vec<TcpListener>,
    /// The same of a Unix socket.
    pub(super) unix: Option<UnixListener>,
    /// The QUIC sockets of the address, if it has any.
    pub(super) quic: Option<RunningQuic>,
    /// Closed when no worker accepts on the port any more.
    accepting: mpsc::Receiver<()>,
}

/// The QUIC sockets of an address.
#[derive(Clone)]
pub(super) struct RunningQuic {
    /// Whose they are.
    tenancy: Arc<ArcSwap<QuicTenant>>,
    pub(super) group: Arc<SteeringGroup>,
    /// Further descriptors of them, for the next process.
    pub(super) sockets: Arc<[UdpSocket]>,
}

impl RunningListeners {
    /// The threads that serve requests.
    pub fn threads(&self) -> &[WorkerThread] {
        &self.threads
    }

    /// Begins to accept, on listeners that were [started](super::BoundListeners::start_waiting)
    /// without that.
    pub fn begin_accepting(&mut self) {
        for opened in std::mem::take(&mut self.waiting) {
            self.accept_on(opened);
        }
        if let Some(file) = &mut self.file {
            file.own();
        }
    }

    /// Makes room for the process that has taken these ports: nothing more is accepted, on other
    /// ports after what the kernel has accepted already. Each connection ends at a request of its
    /// own, for which it has `gentle`; then those on which nothing is under way are closed. Returns
    /// when no connection is left, or after `patience`.
    pub async fn make_room(&mut self, taken: &[Endpoint], gentle: Duration, patience: Duration) {
        let deadline = Instant::now() + patience;
        for running in &mut self.ports {
            running.release();
            let is_taken = taken.contains(&running.port.endpoint);
            running.port.replaced.store(is_taken, Relaxed);
            running.port.signal.raise(DrainStage::Retire);
        }
        if let Some(file) = self.file.as_mut().filter(|_| !taken.is_empty()) {
            file.give_up();
        }
        // A timeout is no error: the next stage ends the connections that are left.
        let _ = timeout(gentle.min(patience), self.empty()).await;
        self.raise(DrainStage::Drain);
        let _ = timeout_at(deadline, self.empty()).await;
    }

    /// Waits until nothing is accepted any more and no connection is left.
    async fn empty(&mut self) {
        let retired: Vec<_> = self.retired.iter().filter_map(Weak::upgrade).collect();
        let empty = join_all(retired.iter().map(|port| port.is_empty()));
        let idle = join_all(self.ports.iter_mut().map(RunningPort::idle));
        tokio::join!(idle, empty);
    }

    /// Stops accepting, lets the requests under way finish (HTTP/1: `Connection: close`; HTTP/2:
    /// GOAWAY), and cuts the connections that are left after `timeout`. Waits for upgraded
    /// connections as well.
    pub async fn drain(mut self, timeout: Duration) {
        self.quiesce(timeout).await;
        self.cut().await;
    }

    /// The first half of [`drain`](Self::drain): returns when no connection is left, or after
    /// `timeout`. Tasks that run on after their answers are not stopped.
    pub async fn quiesce(&mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.ports.iter_mut().for_each(RunningPort::release);
        self.raise(DrainStage::Drain);
        // A timeout is no error: `cut` ends the connections that are left.
        let _ = timeout_at(deadline, self.empty()).await;
    }

    /// The second half of [`drain`](Self::drain): ends all that is left.
    pub async fn cut(mut self) {
        self.raise(DrainStage::Cut);
        let _ = self.alive.recv().await;
    }

    /// Lets every worker accept on a port.
    pub(super) fn accept_on(&mut self, opened: OpenedPort) {
        let standing = None;
        let running = self.begin(opened, standing);
        self.ports.push(running);
    }

    /// Lets every worker accept on a port. `standing` are the QUIC sockets that its address has.
    fn begin(&self, opened: OpenedPort, standing: Option<RunningQuic>) -> RunningPort {
        let OpenedPort {
            port,
            sockets,
            quic,
            listener,
        } = opened;
        let (accepts, accepting) = mpsc::channel(1);
        // Without further descriptors the port can't be changed, which is said when it is tried.
        let (mut kept, mut unix) = (Vec::new(), None);
        for socket in &sockets {
            match socket {
                ListeningSocket::Tcp(socket) => {
                    if let Err(error) = socket::begin(socket) {
                        let address = port.address;
                        tracing::error!(%address, %error, "nobody can connect to this listener");
                    }
                    kept.extend(socket.try_clone());
                }
                ListeningSocket::Unix(socket) => unix = socket.try_clone().ok(),
            }
        }
        for (socket, worker) in sockets.into_iter().zip(self.workers.iter().cycle()) {
            // A worker exists until it is stopped, so this does not fail.
            let _ = worker.send(AcceptOn::Stream {
                port: Arc::clone(&port),
                socket,
                _accepts: accepts.clone(),
            });
        }
        let tenant = Arc::new(QuicTenant {
            port: Arc::clone(&port),
            _accepts: accepts,
        });
        let speaks_http3 = listener.as_ref().is_some_and(speaks_http3);
        let running = match (standing, quic) {
            _ if !speaks_http3 => None,
            (Some(standing), _) => {
                standing.tenancy.store(tenant);
                Some(standing)
            }
            (None, Some(opened)) => Some(self.begin_quic(opened, tenant)),
            (None, None) => None,
        };
        RunningPort {
            port,
            listener,
            sockets: kept,
            unix,
            quic: running,
            accepting,
        }
    }

    fn begin_quic(&self, opened: OpenedQuic, tenant: Arc<QuicTenant>) -> RunningQuic {
        let running = RunningQuic {
            tenancy: Arc::new(ArcSwap::new(tenant)),
            group: opened.group,
            sockets: opened.kept.into(),
        };
        // The n-th sockets of QUIC must go to the n-th worker.
        for (socket, worker) in opened.workers.into_iter().zip(self.workers.iter()) {
            let _ = worker.send(AcceptOn::Quic {
                tenancy: Arc::clone(&running.tenancy),
                socket,
            });
        }
        running
    }

    /// Leaves the datagrams of these listeners to the process that has taken them.
    pub fn leave_datagrams(&self, taken: &[Endpoint]) {
        for group in self.groups(taken) {
            group.hand_over();
        }
    }

    /// Reads them again.
    pub fn take_datagrams_back(&self) {
        let all: Vec<_> = self
            .ports
            .iter()
            .map(|one| one.port.endpoint.clone())
            .collect();
        self.groups(&all).for_each(|group| group.take_back());
    }

    fn groups(&self, of: &[Endpoint]) -> impl Iterator<Item = &Arc<SteeringGroup>> {
        let named = self.ports.iter();
        let named = named.filter(|running| of.contains(&running.port.endpoint));
        named.filter_map(|running| running.quic.as_ref().map(|quic| &quic.group))
    }

    /// Prepares other listeners in place of the present ones: those with the same settings stay,
    /// those with the same address get other settings, new ones are opened. Nothing is accepted on
    /// them yet.
    ///
    /// # Errors
    /// As for [`BoundListeners::bind`](super::BoundListeners::bind); then nothing has changed.
    pub fn prepare(&self, wanted: &[ListenerConfig]) -> Result<PreparedListeners, BindError> {
        let mut present: Vec<Option<&RunningPort>> = self.ports.iter().map(Some).collect();
        let addresses = self.ports.iter().map(|running| running.port.address);
        let mut own = OwnAddresses {
            served: addresses.collect(),
            opened: Vec::new(),
        };
        let mut ports = Vec::new();
        for (n, listener) in wanted.iter().enumerate() {
            let at = present.iter().position(|running| {
                let before = running.and_then(|running| running.listener.as_ref());
                before.is_some_and(|before| before.address == listener.address)
            });
            let running = at.and_then(|at| present[at].take().map(|running| (at, running)));
            let (workers, shared) = (self.workers.len(), &self.shared);
            let prepared = match running {
                Some((at, running)) if running.listener.as_ref() == Some(listener) => {
                    Ok(PreparedPort::Same(at))
                }
                Some((at, running)) => {
                    let opened = OpenedPort::replacing(running, listener, workers, shared, &own);
                    opened.map(|opened| PreparedPort::Changed(at, opened))
                }
                None => OpenedPort::of(listener, workers, shared, &own).map(PreparedPort::New),
            };
            if let Ok(PreparedPort::New(opened)) = &prepared {
                own.opened.push(opened.port.address);
            }
            match prepared.map_err(|error| error.of_listener(n)) {
                Err(BindError::NotHere { address }) if has_twin(address, wanted) => {
                    tracing::warn!(%address, "this machine has no IPv6: the listener is left out");
                }
                prepared => ports.push(prepared?),
            }
        }
        Ok(PreparedListeners(ports))
    }

    /// Accepts on the prepared listeners, and on no others any more. Returns the ports that are
    /// replaced or gone, whose connections are to be ended by [`RetiredPort::end`].
    pub fn commit(&mut self, prepared: PreparedListeners) -> Vec<RetiredPort> {
        let mut before: Vec<Option<RunningPort>> = self.ports.drain(..).map(Some).collect();
        let mut retired = Vec::new();
        for port in prepared.0 {
            let running = match port {
                PreparedPort::Same(at) => before[at].take(),
                PreparedPort::New(opened) => Some(self.begin(opened, None)),
                PreparedPort::Changed(at, opened) => before[at].take().map(|mut old| {
                    let standing = old.quic.take();
                    let running = self.begin(opened, standing);
                    retired.push(RetiredPort::new(old, PortEnd::Replaced));
                    running
                }),
            };
            self.ports.extend(running);
        }
        let gone = before.into_iter().flatten();
        retired.extend(gone.map(|old| RetiredPort::new(old, PortEnd::Removed)));
        self.retired.retain(|port| port.strong_count() > 0);
        let now = retired.iter().map(|one| Arc::downgrade(&one.running.port));
        self.retired.extend(now);
        retired
    }

    /// The TCP sockets of each address, as they can be kept for another process.
    pub fn sockets(&self) -> impl Iterator<Item = (SocketAddr, Vec<BorrowedFd<'_>>)> {
        let ports = self
            .ports
            .iter()
            .filter(|running| !running.sockets.is_empty());
        ports.map(|running| {
            let sockets = running.sockets.iter().map(AsFd::as_fd);
            (running.port.address, sockets.collect())
        })
    }

    /// The addresses in the order of the listeners, with the real port in place of port 0, and the
    /// scheme that clients use there.
    pub fn addresses_with_scheme(&self) -> Vec<(SocketAddr, &'static str)> {
        self.ports
            .iter()
            .map(|running| running.port.address_with_scheme())
            .collect()
    }

    /// The certificates that clients are shown, those of one listener after the other.
    pub fn certificates(&self) -> Vec<Arc<ServerCertificate>> {
        let ports = self
            .ports
            .iter()
            .filter_map(|one| one.port.secured.as_ref());
        ports
            .flat_map(|secured| secured.listener.certificates())
            .collect()
    }

    fn raise(&self, stage: DrainStage) {
        for running in &self.ports {
            running.port.signal.raise(stage);
        }
        for port in self.retired.iter().filter_map(Weak::upgrade) {
            port.signal.raise(stage);
        }
        self.stop.raise(stage);
    }
}

impl RunningPort {
    /// Gives up what keeps the port's sockets open. What waits in a socket that is closed is answered
    /// by its worker, which must have the last descriptor.
    fn release(&mut self) {
        self.sockets.clear();
        self.unix = None;
        self.quic = None;
    }

    /// Waits until no worker accepts and every connection has returned its place.
    async fn idle(&mut self) {
        let _ = self.accepting.recv().await;
        self.port.is_empty().await;
    }
}

impl Drop for RunningListeners {
    fn drop(&mut self) {
        self.raise(DrainStage::Cut);
    }
}

/// Listeners that are opened and not accepted on yet. Dropping it closes those that are new.
pub struct PreparedListeners(Vec<PreparedPort>);

/// What becomes of one listener. The numbers are those of the ports at work.
enum PreparedPort {
    Same(usize),
    Changed(usize, OpenedPort),
    New(OpenedPort),
}

/// A port that accepts nothing any more and whose connections are to be ended.
#[must_use = "dropping it leaves the connections to themselves"]
pub struct RetiredPort {
    running: RunningPort,
    end: PortEnd,
}

/// Why a port ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PortEnd {
    /// Another one accepts on the same sockets.
    Replaced,
    /// The listener is gone.
    Removed,
}

impl RetiredPort {
    /// The address, if nobody accepts on it any more.
    pub fn closed_address(&self) -> Option<SocketAddr> {
        (self.end == PortEnd::Removed).then_some(self.running.port.address)
    }

    /// Waits until the workers have closed its sockets of TCP, so that the address is free.
    pub async fn stopped_accepting(&mut self) {
        // They do it at once, unless they are stuck; then the address stays in use.
        let _ = timeout(LAST_CHANCE, self.running.accepting.recv()).await;
    }

    fn new(mut running: RunningPort, end: PortEnd) -> Self {
        running.release();
        let port = &running.port;
        port.replaced.store(end == PortEnd::Replaced, Relaxed);
        port.signal.raise(DrainStage::Retire);
        Self { running, end }
    }

    /// Waits until the connections have ended, each at a request of its own; cuts those that are left
    /// after `patience`.
    pub async fn end(mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        if self.end == PortEnd::Removed {
            let chance = LAST_CHANCE.min(patience);
            if timeout(chance, self.running.idle()).await.is_ok() {
                return;
            }
            self.running.port.signal.raise(DrainStage::Drain);
        }
        // A timeout is no error: the connections that are left are cut by the next statement.
        let _ = timeout_at(deadline, self.running.idle()).await;
        self.running.port.signal.raise(DrainStage::Cut);
    }
}
