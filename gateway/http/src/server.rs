//! The listener: accepts connections, enforces their limits, and hands each request to a handler.
//!
//! Inside: `socket` and `unix` open the ports, `worker` is one thread with its runtime, `accept`
//! its accept loops, `descriptors` keeps the last descriptors for others, and `roster` decides
//! which connection is cut for a new one on a reserved listener. `arrival` finds out who the
//! client is, `handshake` begins TLS, `connection` serves one client over a `stream`, `wire` is its transport,
//! `activity` records what happens on it, and `watch` enforces its deadlines, also by what the
//! kernel still holds (`send_queue`); `stream_task` enforces those of one HTTP/2 stream.
//! `service` is the step from hyper to the handler, `sending` an answer on its way, and `early`
//! sends interim answers; `early_data` marks requests that come before the handshake is complete.
//! `signal` tells all of them to drain, and `thread_work` is what runs on a worker's thread beside
//! requests. What a request may look like is
//! decided by `guard`.
//!
//! Decision: one current-thread runtime per worker, each with its own SO_REUSEPORT socket for
//! each port, so that a request stays on the thread (and the core) that accepted it; this takes
//! about 8 % less CPU per request than one multi-thread runtime, as measured.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use http::request::Parts;
use http::{HeaderValue, Response, Version};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use self::handshake::SecuredPort;
use self::quic::QuicSocket;
use self::roster::ConnectionRoster;
use self::signal::{DrainSignal, DrainStage};
use self::socket::ListeningSocket;
use self::unix::SocketFile;
use self::worker::{AcceptOn, PortSocket, Worker};
use super::body::Body;
use super::cidr::CidrError;
use super::config::{ListenerConfig, ListenerLimits, Protocol, ReservedListener};
use super::endpoint::Endpoint;
use super::forward::{ForwardingContext, TrustedProxies};
use super::path::PathRules;
use super::tls::config::RedirectTarget;
use super::tls::listeners::TlsListeners;
use super::tls::{TlsListener, TlsSession, TlsSetupError};

mod accept;
mod activity;
mod arrival;
mod connection;
mod descriptors;
mod early;
mod early_data;
mod handshake;
mod http3;
mod ping_timer;
mod quic;
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
mod thread_work;
mod udp_buffer;
mod unix;
mod watch;
mod wire;
mod worker;

pub use self::descriptors::raise_limit;
pub use self::early::{InterimChannel, InterimSender};
pub use self::early_data::{AwaitedHandshake, EarlyRequest};
pub use self::quic::metrics::QuicMetrics;
pub use self::thread_work::{WorkerThread, WorkerThreadEnded};
pub use self::udp_buffer::UdpReceiveBuffer;

/// What a handler returns for a request.
pub enum HandlerAnswer {
    /// The answer is ready: no future is made for it.
    Now(Response<Body>),
    /// The answer will come from this future.
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
    /// Address and port that the connection comes from; behind a proxy that speaks the PROXY
    /// protocol, those of the client. On a Unix socket, where clients have none, 0.0.0.0:0.
    pub address: SocketAddr,
    /// Whether the address is in `trusted_proxies` of the listener.
    pub trusted: bool,
    /// The local end that the client has connected to.
    pub reached: LocalEndpoint,
    /// The path rules of the listener that it has connected to.
    pub path_rules: PathRules,
    /// Where the listener sends its clients, instead of serving them.
    pub redirect: Option<RedirectTarget>,
}

/// How a request came in: over which connection, and what it says about its way here.
#[derive(Clone)]
pub struct RequestArrival {
    pub peer: Peer,
    pub received: ForwardingContext,
    /// What is known of TLS. None if the listener speaks clear text.
    pub tls: Option<Arc<TlsSession>>,
}

/// The local end of a client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalEndpoint {
    /// This address and port of the machine, also where the listener listens on all addresses.
    Tcp(SocketAddr),
    /// The Unix socket; `user` is the user of the process that has connected, if the kernel tells
    /// it.
    Unix { user: Option<u32> },
}

/// Ports that are open. Connections wait in the kernel until [`BoundListeners::start`].
pub struct BoundListeners {
    workers: Vec<Worker>,
    ports: Vec<OpenedPort>,
    file: Option<SocketFile>,
    shared: SharedByListeners,
}

/// What all listeners of the process share.
#[derive(Clone, Default)]
pub struct SharedByListeners {
    /// The largest request body in bytes that any route allows; each route enforces its own limit.
    pub body_bytes: u64,
    pub tls: Arc<TlsListeners>,
    pub quic: Arc<QuicMetrics>,
}

/// A port and its sockets.
struct OpenedPort {
    port: Arc<Port>,
    sockets: Vec<ListeningSocket>,
    /// One for each worker, if the port speaks HTTP/3.
    quic: Vec<QuicSocket>,
}

/// Listeners at work. Dropping them cuts all connections.
#[must_use = "dropping it stops the listeners"]
pub struct RunningListeners {
    stop: Arc<DrainSignal>,
    /// Sends sockets to each worker.
    workers: Vec<mpsc::UnboundedSender<AcceptOn>>,
    threads: Vec<WorkerThread>,
    ports: Vec<RunningPort>,
    /// Closed when the last worker has ended.
    alive: mpsc::Receiver<()>,
    shared: SharedByListeners,
    _file: Option<SocketFile>,
}

/// A port that workers accept on.
struct RunningPort {
    port: Arc<Port>,
    /// Closed when no worker accepts on the port any more.
    accepting: mpsc::Receiver<()>,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} is in use: stop the program that listens there, or choose another port")]
    InUse { address: SocketAddr },
    #[error(
        "{address} needs a privilege: choose a port of 1024 or higher, or grant \
         CAP_NET_BIND_SERVICE"
    )]
    Denied { address: SocketAddr },
    #[error("{address} is not an address of this machine: try 0.0.0.0 or 127.0.0.1")]
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
    #[error("{} exists and is not a socket: remove it, or choose another path", path.display())]
    NoSocket { path: PathBuf },
    #[error("cannot create the Unix socket {}: does its folder exist, and does this user have the \
             right to write there?", path.display())]
    UnixSocket { path: PathBuf, source: io::Error },
    #[error("listener {address}: trusted_proxies")]
    Network {
        address: SocketAddr,
        source: CidrError,
    },
    #[error(
        "{address} over UDP, for HTTP/3: {source}; stop the program that uses the port, or choose another one"
    )]
    Quic {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("listener {address}")]
    Tls {
        address: SocketAddr,
        /// The place of the listener in the configuration. None if it was opened alone.
        listener: Option<usize>,
        source: TlsSetupError,
    },
    #[error("cannot start the runtime of a worker thread")]
    Runtime { source: io::Error },
}

impl BindError {
    /// The error with the place of the listener in the configuration.
    pub fn of_listener(self, n: usize) -> Self {
        match self {
            Self::Tls {
                address, source, ..
            } => Self::Tls {
                address,
                listener: Some(n),
                source,
            },
            other => other,
        }
    }
}

/// Whether an address is the loopback of IPv6, and the same port of IPv4's has a listener too, so
/// that a machine without IPv6 can do without it.
fn has_twin(address: SocketAddr, listeners: &[ListenerConfig]) -> bool {
    let is_twin = |listener: &ListenerConfig| {
        let other = listener.address;
        other.ip() == Ipv4Addr::LOCALHOST && other.port() == address.port()
    };
    address.ip() == Ipv6Addr::LOCALHOST && listeners.iter().any(is_twin)
}

/// The most workers that have a socket for QUIC: connection ids have one octet for the number.
const MOST_QUIC_WORKERS: usize = 256;

/// How often another port is tried where the system chooses it.
const MOST_PORTS_TRIED: usize = 16;

/// The address that is used for the clients of a Unix socket, which have none.
const UNNAMED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What the workers share for one listener.
struct Port {
    endpoint: Endpoint,
    /// The TCP address; 0.0.0.0:0 on a Unix socket.
    address: SocketAddr,
    protocols: Vec<Protocol>,
    limits: Arc<ListenerLimits>,
    /// The largest request body in bytes that the listener or any route allows.
    body_bytes: u64,
    trust: Arc<TrustedProxies>,
    proxy_protocol: bool,
    path_rules: PathRules,
    redirect: Option<RedirectTarget>,
    /// None: the port speaks clear text.
    secured: Option<SecuredPort>,
    /// The value of `Alt-Svc` by which clients learn of HTTP/3.
    alt_svc: Option<HeaderValue>,
    quic: Arc<QuicMetrics>,
    /// Tells the accept loops and connections of the port to drain, then to stop.
    signal: DrainSignal,
    /// Whether the port stops accepting before the last descriptors are used.
    spares: bool,
    /// One permit for each connection that may be open, over all workers.
    places: Arc<Semaphore>,
    capacity: u32,
    /// The connections that have a place, on a listener that cuts connections for new ones.
    roster: Option<Arc<ConnectionRoster>>,
}

impl BoundListeners {
    /// Opens every listener, for `threads` workers (at least one).
    ///
    /// # Errors
    /// Says which address failed, and what to do about it.
    pub fn bind(
        listeners: &[ListenerConfig],
        threads: usize,
        shared: SharedByListeners,
    ) -> Result<Self, BindError> {
        let workers = (0..threads.max(1)).map(|_| Worker::new());
        let workers = workers.collect::<Result<Vec<_>, _>>()?;
        let open = |(n, listener)| {
            let opened = OpenedPort::of(listener, workers.len(), &shared);
            opened.map_err(|error| error.of_listener(n))
        };
        let mut ports = Vec::new();
        for opened in listeners.iter().enumerate().map(open) {
            match opened {
                Err(BindError::NotHere { address }) if has_twin(address, listeners) => {
                    tracing::warn!(%address, "this machine has no IPv6: the listener is left out");
                }
                opened => ports.push(opened?),
            }
        }
        Ok(Self {
            workers,
            ports,
            file: None,
            shared,
        })
    }

    /// Opens a listener, for one worker, that still answers when the others cannot: it may use the
    /// descriptors that they leave free, and when all its places are taken, the connection that has
    /// waited the longest is cut for a new one.
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
            quic: Vec::new(),
        };
        Ok(Self {
            workers: vec![worker],
            ports: vec![port],
            file,
            shared: SharedByListeners::default(),
        })
    }

    /// The addresses in the order of the listeners, with the real port in place of port 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports
            .iter()
            .map(|opened| opened.port.address)
            .collect()
    }

    /// The same with the scheme that clients use there.
    pub fn addresses_with_scheme(&self) -> Vec<(SocketAddr, &'static str)> {
        let of = |port: &Port| match port.secured {
            Some(_) => (port.address, "https"),
            None => (port.address, "http"),
        };
        self.ports.iter().map(|opened| of(&opened.port)).collect()
    }

    /// Where the listeners can be reached, with the real port in place of port 0.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.ports.iter().map(|opened| &opened.port.endpoint)
    }

    /// Begins to accept. `handler` answers each request on the thread that accepted it. The heads
    /// it gets were normalised by [`receive`](super::forward::receive).
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
            let (thread, work) = WorkerThread::new();
            worker.start(
                handler.clone(),
                received,
                work,
                Arc::clone(&stop),
                lives.clone(),
            );
            (sockets, thread)
        };
        let (workers, threads) = self.workers.into_iter().map(start).unzip();
        let mut running = RunningListeners {
            workers,
            threads,
            stop: Arc::clone(&stop),
            ports: Vec::new(),
            alive,
            shared: self.shared,
            _file: self.file,
        };
        for opened in self.ports {
            running.accept_on(opened);
        }
        running
    }
}

impl RunningListeners {
    /// The threads that serve requests.
    pub fn threads(&self) -> &[WorkerThread] {
        &self.threads
    }

    /// Opens one more listener and accepts on it. Returns the address with the real port.
    ///
    /// # Errors
    /// As for [`BoundListeners::bind`].
    pub fn open(&mut self, listener: &ListenerConfig) -> Result<SocketAddr, BindError> {
        let opened = OpenedPort::of(listener, self.workers.len(), &self.shared)?;
        let address = opened.port.address;
        self.accept_on(opened);
        Ok(address)
    }

    /// Accepts for a listener on sockets that are already open, at least one, such as those of the
    /// process that this one takes over from. Connections that wait in them are answered here.
    ///
    /// # Errors
    /// When the sockets cannot be used.
    pub fn take_over(
        &mut self,
        listener: &ListenerConfig,
        sockets: &[TcpListener],
    ) -> Result<SocketAddr, BindError> {
        let opened = OpenedPort::on(listener, sockets, self.workers.len(), &self.shared)?;
        let address = opened.port.address;
        self.accept_on(opened);
        Ok(address)
    }

    /// Closes the listener on this address as [`drain`](Self::drain) does; the others continue.
    /// Does nothing when there is none.
    pub async fn close(&mut self, address: SocketAddr, timeout: Duration) {
        let here = |running: &RunningPort| running.port.address == address;
        let Some(at) = self.ports.iter().position(here) else {
            return;
        };
        let mut closing = self.ports.swap_remove(at);
        closing.port.signal.raise(DrainStage::Drain);
        // A timeout is no error: the connections that are left are cut by the next statement.
        let _ = timeout_at(Instant::now() + timeout, closing.idle()).await;
        closing.port.signal.raise(DrainStage::Cut);
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
        self.raise(DrainStage::Drain);
        let idle = join_all(self.ports.iter_mut().map(RunningPort::idle));
        // A timeout is no error: `cut` ends the connections that are left.
        let _ = timeout_at(deadline, idle).await;
    }

    /// The second half of [`drain`](Self::drain): ends all that is left.
    pub async fn cut(mut self) {
        self.raise(DrainStage::Cut);
        let _ = self.alive.recv().await;
    }

    /// Lets every worker accept on a port.
    fn accept_on(&mut self, opened: OpenedPort) {
        let OpenedPort {
            port,
            sockets,
            quic,
        } = opened;
        let (accepts, accepting) = mpsc::channel(1);
        let streams = sockets.into_iter().map(PortSocket::Stream);
        let quic = quic.into_iter().map(PortSocket::Quic);
        // The n-th socket of QUIC must go to the n-th worker.
        let streams = streams.zip(self.workers.iter().cycle());
        for (socket, worker) in streams.chain(quic.zip(self.workers.iter())) {
            // A worker exists until it is stopped, so this does not fail.
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
    /// Waits until no worker accepts and every connection has returned its place.
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

/// The sockets of a port, over TCP and, if it speaks HTTP/3, over UDP.
struct OpenedSockets {
    address: SocketAddr,
    streams: Vec<TcpListener>,
    quic: Vec<QuicSocket>,
}

impl OpenedSockets {
    /// Opens one of each for each of `workers` workers.
    fn of(listener: &ListenerConfig, workers: usize) -> Result<Self, BindError> {
        let mut tries = 0;
        loop {
            let (address, streams) = socket::open(listener.address, workers)?;
            let quic = match speaks_http3(listener) {
                true => quic::open(address, workers.min(MOST_QUIC_WORKERS)),
                false => Ok(Vec::new()),
            };
            match quic {
                Ok(quic) => {
                    return Ok(Self {
                        address,
                        streams,
                        quic,
                    });
                }
                // The port that the system has chosen for TCP may be taken over UDP.
                Err(_) if listener.address.port() == 0 && tries < MOST_PORTS_TRIED => tries += 1,
                Err(source) => return Err(BindError::Quic { address, source }),
            }
        }
    }
}

impl OpenedPort {
    /// Opens one socket for each of `workers` workers.
    fn of(
        listener: &ListenerConfig,
        workers: usize,
        shared: &SharedByListeners,
    ) -> Result<Self, BindError> {
        let OpenedSockets {
            address,
            streams,
            quic,
        } = OpenedSockets::of(listener, workers)?;
        Ok(Self {
            port: Arc::new(Port::of(listener, address, shared)?),
            sockets: streams.into_iter().map(ListeningSocket::Tcp).collect(),
            quic,
        })
    }

    /// Uses sockets that are already open: each worker accepts on at least one, and none is left
    /// out.
    fn on(
        listener: &ListenerConfig,
        sockets: &[TcpListener],
        workers: usize,
        shared: &SharedByListeners,
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
        let used = sockets.iter().cycle().take(count).map(|socket| {
            socket.set_nonblocking(true)?;
            socket.try_clone().map(ListeningSocket::Tcp)
        });
        Ok(Self {
            port: Arc::new(Port::of(listener, address, shared)?),
            sockets: used.collect::<io::Result<_>>().map_err(failed)?,
            quic: Vec::new(),
        })
    }
}

impl Port {
    fn of(
        listener: &ListenerConfig,
        address: SocketAddr,
        shared: &SharedByListeners,
    ) -> Result<Self, BindError> {
        let SharedByListeners {
            body_bytes,
            tls: listeners,
            quic,
        } = shared;
        let trust = TrustedProxies::new(&listener.trusted_proxies, &listener.trusted_headers);
        let trust = trust.map_err(|source| BindError::Network {
            address: listener.address,
            source,
        })?;
        let tls = open_tls(listener, listeners)?;
        if let Some(tls) = &tls {
            listeners.add(tls);
            tls.watch_files();
        }
        Ok(Self {
            protocols: listener.protocols.clone(),
            trust: Arc::new(trust),
            proxy_protocol: listener.proxy_protocol,
            path_rules: listener.path,
            redirect: listener.redirect_to_https.target(),
            secured: tls.map(SecuredPort::new),
            alt_svc: alt_svc(listener, address),
            quic: Arc::clone(quic),
            spares: true,
            body_bytes: (*body_bytes).max(listener.limits.max_body_bytes.0),
            ..Self::plain(Endpoint::Tcp(address), &listener.limits)
        })
    }

    fn reserved(endpoint: Endpoint, reserved: &ReservedListener) -> Self {
        Self {
            roster: Some(Arc::new(ConnectionRoster::new())),
            ..Self::plain(endpoint, &reserved.limits)
        }
    }

    /// A port with both protocols that trusts nobody.
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
            redirect: None,
            secured: None,
            alt_svc: None,
            quic: Arc::default(),
            signal: DrainSignal::default(),
            spares: false,
            places: Arc::new(Semaphore::new(capacity)),
            capacity: capacity as u32,
            roster: None,
        }
    }

    /// What a client of this protocol is told of HTTP/3 now. None if it is not spoken, nobody is to
    /// be told, or the client speaks it already.
    fn alt_svc(&self, version: Version) -> Option<HeaderValue> {
        let told = self.alt_svc.as_ref()?;
        match (self.signal.is(DrainStage::Drain), version) {
            (true, _) => Some(HeaderValue::from_static("clear")),
            (false, Version::HTTP_3) => None,
            (false, _) => Some(told.clone()),
        }
    }

    /// The client at `address`, which has connected to this local end.
    fn peer(&self, address: SocketAddr, reached: LocalEndpoint) -> Peer {
        Peer {
            address,
            trusted: self.trust.has_proxy(address.ip()),
            reached,
            path_rules: self.path_rules,
            redirect: self.redirect,
        }
    }
}

fn speaks_http3(listener: &ListenerConfig) -> bool {
    listener.tls.is_some() && listener.protocols.contains(&Protocol::Http3)
}

/// What clients are told of HTTP/3 on a listener (RFC 7838 §3). None if it is not spoken, or nobody
/// is to be told.
fn alt_svc(listener: &ListenerConfig, address: SocketAddr) -> Option<HeaderValue> {
    let age = listener.alt_svc.max_age.0.as_secs();
    if !speaks_http3(listener) || age == 0 {
        return None;
    }
    let port = listener.alt_svc.port.unwrap_or(address.port());
    HeaderValue::from_str(&format!("h3=\":{port}\"; ma={age}")).ok()
}

/// Sets TLS of a listener up, if it has any.
///
/// # Errors
/// If its files can't be used.
pub fn open_tls(
    listener: &ListenerConfig,
    listeners: &Arc<TlsListeners>,
) -> Result<Option<Arc<TlsListener>>, BindError> {
    let Some(config) = &listener.tls else {
        return Ok(None);
    };
    let opened = TlsListener::open(
        config,
        &listener.protocols,
        listener.hsts.as_ref(),
        listeners,
    );
    opened
        .map(|opened| Some(Arc::new(opened)))
        .map_err(|source| BindError::Tls {
            address: listener.address,
            listener: None,
            source,
        })
}
