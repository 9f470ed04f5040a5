//! The listener: accepts connections, keeps their limits, hands each request to a handler.
//!
//! Inside: `socket` and `unix` open the ports, `worker` is one thread with its runtime,
//! `accept` its loops, `descriptors` what they leave for others, `roster` who gives way to
//! newcomers on a reserved listener. `arrival` tells who comes, `connection` serves one
//! client over a `stream`, `wire` is its transport, `activity` what happens on it, `watch`
//! its deadlines by what the kernel still holds (`send_queue`), `stream_task` those of one HTTP/2 stream, `service` the step from hyper to
//! the handler, `sending` an answer on its way, `early` what is sent before an answer.
//! `signal` tells everybody to drain. What a request may look like is `guard`'s.
//!
//! Decision: one current-thread runtime per worker, each with its own SO_REUSEPORT socket
//! for each port, so that a request stays on the thread (and the core) that accepted it;
//! measured about 8 % less CPU per request than one multi-thread runtime.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use http::Response;
use http::request::Parts;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use self::roster::ConnectionRoster;
use self::signal::{DrainSignal, DrainStage};
use self::socket::ListeningSocket;
use self::unix::SocketFile;
use self::worker::{AcceptOn, Worker};
use super::body::Body;
use super::cidr::CidrError;
use super::config::{ListenerConfig, ListenerLimits, Protocol, ReservedListener};
use super::endpoint::Endpoint;
use super::forward::{ForwardingContext, TrustedProxies};
use super::path::PathRules;

mod accept;
mod activity;
mod arrival;
mod connection;
mod descriptors;
mod early;
mod roster;
mod send_queue;
mod sending;
mod service;
mod signal;
mod socket;
mod stream;
mod stream_task;
#[cfg(test)]
mod tests;
mod unix;
mod watch;
mod wire;
mod worker;

pub use self::descriptors::raise_limit;
pub use self::early::{InterimChannel, InterimSender};

/// What a handler gives for a request.
pub enum HandlerAnswer {
    /// The answer is here: no future is made for it.
    Now(Response<Body>),
    /// It comes.
    Later(BoxFuture<'static, Response<Body>>),
}

impl HandlerAnswer {
    /// An answer that comes from this future.
    pub fn later(answer: impl Future<Output = Response<Body>> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Address and port that the connection comes from; behind a proxy that speaks the
    /// PROXY protocol, the client's. On a Unix socket, where clients have none, 0.0.0.0:0.
    pub address: SocketAddr,
    /// Whether `trusted_proxies` of the listener has the address.
    pub trusted: bool,
    /// Which end of ours it has connected to.
    pub reached: LocalEndpoint,
    /// How the listener that it has connected to reads paths.
    pub path_rules: PathRules,
}

/// How a request came in: by which connection, and what it said of its way here.
#[derive(Clone, Debug)]
pub struct RequestArrival {
    pub peer: Peer,
    pub received: ForwardingContext,
}

/// An end of ours that a connection came in by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalEndpoint {
    /// This address and port of the machine, also where the listener has all addresses.
    Tcp(SocketAddr),
    /// The Unix socket; `user` is whose process has connected, if the kernel tells it.
    Unix { user: Option<u32> },
}

/// Ports that are open; connections wait in the kernel until [`BoundListeners::start`].
pub struct BoundListeners {
    workers: Vec<Worker>,
    ports: Vec<OpenedPort>,
    file: Option<SocketFile>,
}

/// A port with its sockets.
struct OpenedPort {
    port: Arc<Port>,
    sockets: Vec<ListeningSocket>,
}

/// Listeners at work; dropping them cuts all connections.
#[must_use = "dropping it stops the listeners"]
pub struct RunningListeners {
    stop: Arc<DrainSignal>,
    /// Where each worker gets sockets from.
    workers: Vec<mpsc::UnboundedSender<AcceptOn>>,
    ports: Vec<RunningPort>,
    /// Closed when no worker is left.
    alive: mpsc::Receiver<()>,
    _file: Option<SocketFile>,
}

/// A port that workers accept on.
struct RunningPort {
    port: Arc<Port>,
    /// Closed when none of them does any more.
    accepting: mpsc::Receiver<()>,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} is in use: stop the program that listens there, or choose another port")]
    InUse { address: SocketAddr },
    #[error(
        "{address} needs a privilege: choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE"
    )]
    Denied { address: SocketAddr },
    #[error("{address} is no address of this machine: try 0.0.0.0 or 127.0.0.1")]
    NotHere { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Socket {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "{} is in use: stop the program that listens there, or choose another path",
        path.display()
    )]
    UnixInUse { path: PathBuf },
    #[error("{} is there and is no socket: remove it, or choose another path", path.display())]
    NoSocket { path: PathBuf },
    #[error("cannot make the Unix socket {}: does its folder exist, and may this user write there?", path.display())]
    UnixSocket { path: PathBuf, source: io::Error },
    #[error("listener {address}: trusted_proxies")]
    Network {
        address: SocketAddr,
        source: CidrError,
    },
    #[error("cannot start the runtime of a worker thread")]
    Runtime { source: io::Error },
}

/// What stands for an address where a Unix socket has none.
const UNNAMED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What the workers share about one listener.
struct Port {
    endpoint: Endpoint,
    /// The TCP address; where there is none, 0.0.0.0:0.
    address: SocketAddr,
    protocols: Vec<Protocol>,
    limits: Arc<ListenerLimits>,
    /// Bytes of a request body that some route takes, or the listener where none says more.
    body_bytes: u64,
    trust: Arc<TrustedProxies>,
    proxy_protocol: bool,
    path_rules: PathRules,
    /// Tells its loops and its connections to drain, then to stop.
    signal: DrainSignal,
    /// Whether it leaves the last descriptors to others.
    spares: bool,
    /// One for each connection that may be open, over all workers.
    places: Arc<Semaphore>,
    capacity: u32,
    /// Who has a place, on a listener that cuts connections for new ones.
    roster: Option<Arc<ConnectionRoster>>,
}

impl BoundListeners {
    /// Opens every listener, for `threads` workers (at least one). `body_bytes` are what some
    /// route takes of a request body; each says itself what it does not take.
    ///
    /// # Errors
    /// Which address, and what to do about it.
    pub fn bind(
        listeners: &[ListenerConfig],
        threads: usize,
        body_bytes: u64,
    ) -> Result<Self, BindError> {
        let workers = (0..threads.max(1)).map(|_| Worker::new());
        let workers = workers.collect::<Result<Vec<_>, _>>()?;
        let open = |listener| OpenedPort::of(listener, workers.len(), body_bytes);
        let ports = listeners.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self {
            workers,
            ports,
            file: None,
        })
    }

    /// Opens a listener, for one worker, that answers when the others can't: it may take
    /// the descriptors which they leave, and when all its places are taken, who has waited
    /// the longest gives way to who comes.
    ///
    /// # Errors
    /// As for [`BoundListeners::bind`].
    pub fn bind_reserved(reserved: &ReservedListener) -> Result<Self, BindError> {
        let worker = Worker::new()?;
        let (endpoint, listening, file) = match &reserved.endpoint {
            Endpoint::Tcp(address) => {
                let (address, mut sockets) = socket::open(*address, 1)?;
                let socket = sockets.swap_remove(0);
                (Endpoint::Tcp(address), ListeningSocket::Tcp(socket), None)
            }
            Endpoint::Unix(path) => {
                let (socket, file) = unix::open(path, reserved.socket_mode)?;
                let endpoint = reserved.endpoint.clone();
                (endpoint, ListeningSocket::Unix(socket), Some(file))
            }
        };
        let port = OpenedPort {
            port: Arc::new(Port::reserved(endpoint, reserved)),
            sockets: vec![listening],
        };
        Ok(Self {
            workers: vec![worker],
            ports: vec![port],
            file,
        })
    }

    /// The addresses in the order of the listeners, with the port that port 0 became.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports
            .iter()
            .map(|opened| opened.port.address)
            .collect()
    }

    /// Where the listeners can be reached, with the port that port 0 became.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.ports.iter().map(|opened| &opened.port.endpoint)
    }

    /// Begins to accept; `handler` answers each request on the thread that accepted it. It gets
    /// heads that are made one ([`receive`](super::forward::receive)).
    ///
    /// # Panics
    /// When the system refuses a thread.
    pub fn start<H>(self, handler: H) -> RunningListeners
    where
        H: Fn(Parts, Body, RequestArrival, &InterimChannel) -> HandlerAnswer
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let stop = Arc::new(DrainSignal::default());
        let (lives, alive) = mpsc::channel(1);
        let start = |worker: Worker| {
            let (sockets, received) = mpsc::unbounded_channel();
            worker.start(handler.clone(), received, Arc::clone(&stop), lives.clone());
            sockets
        };
        let mut running = RunningListeners {
            workers: self.workers.into_iter().map(start).collect(),
            stop: Arc::clone(&stop),
            ports: Vec::new(),
            alive,
            _file: self.file,
        };
        for opened in self.ports {
            running.accept_on(opened);
        }
        running
    }
}

impl RunningListeners {
    /// Opens one more listener and accepts on it. The address has the port that port 0 became.
    ///
    /// # Errors
    /// As for [`BoundListeners::bind`].
    pub fn open(
        &mut self,
        listener: &ListenerConfig,
        body_bytes: u64,
    ) -> Result<SocketAddr, BindError> {
        let opened = OpenedPort::of(listener, self.workers.len(), body_bytes)?;
        let address = opened.port.address;
        self.accept_on(opened);
        Ok(address)
    }

    /// Accepts for a listener on sockets that somebody else has opened, at least one, such as
    /// the process that this one takes over from. What waits in them is answered here.
    ///
    /// # Errors
    /// When they can't be used.
    pub fn take_over(
        &mut self,
        listener: &ListenerConfig,
        sockets: &[TcpListener],
        body_bytes: u64,
    ) -> Result<SocketAddr, BindError> {
        let opened = OpenedPort::on(listener, sockets, self.workers.len(), body_bytes)?;
        let address = opened.port.address;
        self.accept_on(opened);
        Ok(address)
    }

    /// Ends the listener on this address as [`drain`](Self::drain) does; the others go on.
    /// Nothing happens when there is none.
    pub async fn close(&mut self, address: SocketAddr, timeout: Duration) {
        let here = |running: &RunningPort| running.port.address == address;
        let Some(at) = self.ports.iter().position(here) else {
            return;
        };
        let mut closing = self.ports.swap_remove(at);
        closing.port.signal.raise(DrainStage::Drain);
        // A late end is no error: what is left is cut below.
        let _ = timeout_at(Instant::now() + timeout, closing.idle()).await;
        closing.port.signal.raise(DrainStage::Cut);
    }

    /// Stops accepting, lets what is under way finish (HTTP/1: `Connection: close`;
    /// HTTP/2: GOAWAY), and cuts what is left after `timeout`. Upgraded connections are
    /// waited for as well.
    pub async fn drain(mut self, timeout: Duration) {
        self.quiesce(timeout).await;
        self.cut().await;
    }

    /// The first half of [`drain`](Self::drain): until nobody is served, or the time is over.
    /// The workers go on with what they do behind their answers.
    pub async fn quiesce(&mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.raise(DrainStage::Drain);
        let idle = join_all(self.ports.iter_mut().map(RunningPort::idle));
        // A late end is no error: what is left is cut.
        let _ = timeout_at(deadline, idle).await;
    }

    /// The second half: ends whatever is left.
    pub async fn cut(mut self) {
        self.raise(DrainStage::Cut);
        let _ = self.alive.recv().await;
    }

    /// Has every worker accept on a port.
    fn accept_on(&mut self, opened: OpenedPort) {
        let OpenedPort { port, sockets } = opened;
        let (accepts, accepting) = mpsc::channel(1);
        for (socket, worker) in sockets.into_iter().zip(self.workers.iter().cycle()) {
            // A worker is there until it is stopped.
            let _ = worker.send(AcceptOn {
                port: Arc::clone(&port),
                socket,
                _accepts: accepts.clone(),
            });
        }
        self.ports.push(RunningPort { port, accepting });
    }

    fn raise(&self, stage: DrainStage) {
        for running in &self.ports {
            running.port.signal.raise(stage);
        }
        self.stop.raise(stage);
    }
}

impl RunningPort {
    /// Waits until nobody accepts and every connection has given its place back.
    async fn idle(&mut self) {
        let _ = self.accepting.recv().await;
        let _ = self.port.places.acquire_many(self.port.capacity).await;
    }
}

impl Drop for RunningListeners {
    fn drop(&mut self) {
        self.raise(DrainStage::Cut);
    }
}

impl OpenedPort {
    /// Opens a socket for each of so many workers.
    fn of(listener: &ListenerConfig, workers: usize, body_bytes: u64) -> Result<Self, BindError> {
        let (address, sockets) = socket::open(listener.address, workers)?;
        Ok(Self {
            port: Arc::new(Port::of(listener, address, body_bytes)?),
            sockets: sockets.into_iter().map(ListeningSocket::Tcp).collect(),
        })
    }

    /// On sockets that are open: each worker accepts on some, and none is left out.
    fn on(
        listener: &ListenerConfig,
        sockets: &[TcpListener],
        workers: usize,
        body_bytes: u64,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError::Socket {
            address: listener.address,
            source,
        };
        let first = sockets
            .first()
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let address = first.local_addr().map_err(failed)?;
        let count = sockets.len().max(workers);
        let shared = sockets.iter().cycle().take(count).map(|socket| {
            socket.set_nonblocking(true)?;
            socket.try_clone().map(ListeningSocket::Tcp)
        });
        Ok(Self {
            port: Arc::new(Port::of(listener, address, body_bytes)?),
            sockets: shared.collect::<io::Result<_>>().map_err(failed)?,
        })
    }
}

impl Port {
    fn of(
        listener: &ListenerConfig,
        address: SocketAddr,
        body_bytes: u64,
    ) -> Result<Self, BindError> {
        let trust = TrustedProxies::new(&listener.trusted_proxies, &listener.trusted_headers);
        let trust = trust.map_err(|source| BindError::Network {
            address: listener.address,
            source,
        })?;
        Ok(Self {
            protocols: listener.protocols.clone(),
            trust: Arc::new(trust),
            proxy_protocol: listener.proxy_protocol,
            path_rules: listener.path,
            spares: true,
            body_bytes: body_bytes.max(listener.limits.max_body_bytes.0),
            ..Self::plain(Endpoint::Tcp(address), &listener.limits)
        })
    }

    fn reserved(endpoint: Endpoint, reserved: &ReservedListener) -> Self {
        Self {
            roster: Some(Arc::new(ConnectionRoster::new())),
            ..Self::plain(endpoint, &reserved.limits)
        }
    }

    /// Both protocols, and nobody is trusted.
    fn plain(endpoint: Endpoint, limits: &ListenerLimits) -> Self {
        let capacity = limits.max_connections.clamp(1, u32::MAX as usize >> 4);
        Self {
            address: endpoint.tcp().unwrap_or(UNNAMED),
            endpoint,
            protocols: vec![Protocol::Http1, Protocol::Http2],
            limits: Arc::new(limits.clone()),
            body_bytes: limits.max_body_bytes.0,
            trust: Arc::default(),
            proxy_protocol: false,
            path_rules: PathRules::default(),
            signal: DrainSignal::default(),
            spares: false,
            places: Arc::new(Semaphore::new(capacity)),
            capacity: capacity as u32,
            roster: None,
        }
    }

    /// Who is at `address`, having come by this end of ours.
    fn peer(&self, address: SocketAddr, reached: LocalEndpoint) -> Peer {
        Peer {
            address,
            trusted: self.trust.has_proxy(address.ip()),
            reached,
            path_rules: self.path_rules,
        }
    }
}
