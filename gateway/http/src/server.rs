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
//! requests. `inherited` and `handed` are sockets of the process before and for the next one. What a request may look like is
//! decided by `guard`.
//!
//! Decision: one current-thread runtime per worker, each with its own SO_REUSEPORT socket for
//! each port, so that a request stays on the thread (and the core) that accepted it; this takes
//! about 8 % less CPU per request than one multi-thread runtime, as measured.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures_util::future::BoxFuture;
use http::Response;
use http::request::Parts;
use tokio::sync::mpsc;

use self::port::{OpenedPort, Port};
use self::signal::DrainSignal;
use self::socket::ListeningSocket;
use self::unix::SocketFile;
use self::worker::Worker;
use super::body::Body;
use super::cidr::CidrError;
use super::config::{ListenerConfig, ListenerLimits, Protocol, ReservedListener};
use super::endpoint::Endpoint;
use super::forward::ForwardingContext;
use super::path::PathRules;
use super::tls::config::RedirectTarget;
use super::tls::listeners::TlsListeners;
use super::tls::{TlsSession, TlsSetupError};

mod accept;
mod activity;
mod arrival;
mod connection;
mod descriptors;
mod early;
mod early_data;
mod handed;
mod handshake;
mod http3;
mod inherited;
mod ping_timer;
mod port;
mod quic;
mod roster;
mod running;
mod send_queue;
mod sending;
mod served_body;
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
pub use self::handed::{HandedPort, SocketPurpose};
pub use self::inherited::{InheritedSockets, kept_name};
pub use self::port::open_tls;
pub use self::quic::identity::QuicIdentity;
pub use self::quic::metrics::QuicMetrics;
pub use self::quic::passage::EarlierProcess;
pub use self::running::{PreparedListeners, RetiredPort, RunningListeners};
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
    /// The largest request body in bytes that any route allows, now; each route enforces its own
    /// limit.
    pub body_bytes: Arc<AtomicU64>,
    pub tls: Arc<TlsListeners>,
    pub quic: Arc<QuicMetrics>,
    /// What connection ids are made by.
    pub identity: Arc<QuicIdentity>,
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
    #[error(
        "the inherited descriptor {name:?} is no listening TCP socket and no UDP socket: expected \
         ListenStream=ADDRESS:PORT or ListenDatagram=ADDRESS:PORT in the .socket unit"
    )]
    Inherited { name: String },
    #[error(
        "the inherited socket {name:?} on {address} belongs to no listener of the configuration: add \
         a listener with this address, or take it out of the .socket unit"
    )]
    NoListener { address: SocketAddr, name: String },
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

/// The address that is used for the clients of a Unix socket, which have none.
const UNNAMED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

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
        Self::bind_or_inherit(listeners, threads, shared, &mut InheritedSockets::default())
    }

    /// The same; listeners whose address an inherited socket has are served on that.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    pub fn bind_or_inherit(
        listeners: &[ListenerConfig],
        threads: usize,
        shared: SharedByListeners,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, BindError> {
        let workers = (0..threads.max(1)).map(|_| Worker::new());
        let workers = workers.collect::<Result<Vec<_>, _>>()?;
        let open = |(n, listener): (usize, &ListenerConfig)| {
            let inherited = inherited.take_clients(listener.address);
            let opened = match inherited.streams.is_empty() {
                true => OpenedPort::of(listener, workers.len(), &shared),
                false => OpenedPort::on(listener, inherited, workers.len(), &shared),
            };
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
    pub fn bind_reserved(
        reserved: &ReservedListener,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, BindError> {
        let worker = Worker::new()?;
        let (endpoint, sockets, file) = match &reserved.endpoint {
            Endpoint::Tcp(address) => {
                let (address, sockets) = match inherited.take_admin(*address) {
                    none if none.is_empty() => socket::open(*address, 1)?,
                    streams => socket::adopt_all(*address, streams)?,
                };
                let sockets = sockets.into_iter().map(ListeningSocket::Tcp);
                (Endpoint::Tcp(address), sockets.collect(), None)
            }
            Endpoint::Unix(path) => {
                let (socket, file) = match inherited.take_unix(path)? {
                    Some(taken) => taken,
                    None => unix::open(path, reserved.socket_mode)?,
                };
                let endpoint = reserved.endpoint.clone();
                (endpoint, vec![ListeningSocket::Unix(socket)], Some(file))
            }
        };
        let port = OpenedPort {
            port: Arc::new(Port::reserved(endpoint, reserved)),
            sockets,
            quic: None,
            listener: None,
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
        self.ports
            .iter()
            .map(|opened| opened.port.address_with_scheme())
            .collect()
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
        let mut running = self.start_waiting(handler);
        running.begin_accepting();
        running
    }

    /// The same with nothing accepted until [`RunningListeners::begin_accepting`].
    ///
    /// # Panics
    /// When the system refuses a thread.
    pub fn start_waiting<H>(self, handler: H) -> RunningListeners
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
        RunningListeners {
            workers,
            threads,
            stop: Arc::clone(&stop),
            ports: Vec::new(),
            retired: Vec::new(),
            alive,
            shared: self.shared,
            waiting: self.ports,
            file: self.file,
        }
    }
}
