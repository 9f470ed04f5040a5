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
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::request::Parts;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use self::roster::Roster;
use self::signal::{Signal, Stage};
use self::socket::Listening;
use self::unix::SocketFile;
use self::worker::Worker;
use super::body::Body;
use super::cidr::CidrError;
use super::config::{Limits, Listener, Protocol, Reserved};
use super::endpoint::Endpoint;
use super::forward::{Received, Trust};
use super::path::Rules;

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
pub use self::early::{Early, Interim};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Address and port that the connection comes from; behind a proxy that speaks the
    /// PROXY protocol, the client's. On a Unix socket, where clients have none, 0.0.0.0:0.
    pub address: SocketAddr,
    /// Whether `trusted_proxies` of the listener has the address.
    pub trusted: bool,
    /// Which end of ours it has connected to.
    pub reached: Reached,
    /// How the listener that it has connected to reads paths.
    pub path_rules: Rules,
}

/// How a request came in: by which connection, and what it said of its way here.
#[derive(Clone, Debug)]
pub struct Entered {
    pub peer: Peer,
    pub received: Received,
}

/// An end of ours that a connection came in by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// This address and port of the machine, also where the listener has all addresses.
    Tcp(SocketAddr),
    /// The Unix socket; `user` is whose process has connected, if the kernel tells it.
    Unix { user: Option<u32> },
}

/// Ports that are open; connections wait in the kernel until [`Bound::start`].
pub struct Bound {
    workers: Vec<Worker>,
    ports: Vec<Arc<Port>>,
    file: Option<SocketFile>,
}

/// A listener at work; dropping it cuts all connections.
#[must_use = "dropping it stops the listener"]
pub struct Running {
    signal: Arc<Signal>,
    ports: Vec<Arc<Port>>,
    /// Closed when no worker accepts any more, and when no worker is left.
    accepting: mpsc::Receiver<()>,
    alive: mpsc::Receiver<()>,
    _file: Option<SocketFile>,
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
    limits: Arc<Limits>,
    /// Bytes of a request body that some route takes, or the listener where none says more.
    body_bytes: u64,
    trust: Arc<Trust>,
    proxy_protocol: bool,
    path_rules: Rules,
    /// Whether it leaves the last descriptors to others.
    spares: bool,
    /// One for each connection that may be open, over all workers.
    places: Arc<Semaphore>,
    capacity: u32,
    /// Who has a place, on a listener that cuts connections for new ones.
    roster: Option<Arc<Roster>>,
}

impl Bound {
    /// Opens every listener, for `threads` workers (at least one). `body_bytes` are what some
    /// route takes of a request body; each says itself what it does not take.
    ///
    /// # Errors
    /// Which address, and what to do about it.
    pub fn bind(
        listeners: &[Listener],
        threads: usize,
        body_bytes: u64,
    ) -> Result<Self, BindError> {
        let mut workers = (0..threads.max(1))
            .map(|_| Worker::new())
            .collect::<Result<Vec<_>, _>>()?;
        let mut ports = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let (address, sockets) = socket::open(listener.address, workers.len())?;
            let port = Arc::new(Port::of(listener, address, body_bytes)?);
            for (worker, socket) in workers.iter_mut().zip(sockets) {
                worker.add(Arc::clone(&port), Listening::Tcp(socket));
            }
            ports.push(port);
        }
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
    /// As for [`Bound::bind`].
    pub fn bind_reserved(reserved: &Reserved) -> Result<Self, BindError> {
        let mut worker = Worker::new()?;
        let (endpoint, listening, file) = match &reserved.endpoint {
            Endpoint::Tcp(address) => {
                let (address, mut sockets) = socket::open(*address, 1)?;
                let socket = sockets.swap_remove(0);
                (Endpoint::Tcp(address), Listening::Tcp(socket), None)
            }
            Endpoint::Unix(path) => {
                let (socket, file) = unix::open(path, reserved.socket_mode)?;
                let endpoint = reserved.endpoint.clone();
                (endpoint, Listening::Unix(socket), Some(file))
            }
        };
        let port = Arc::new(Port::reserved(endpoint, reserved));
        worker.add(Arc::clone(&port), listening);
        Ok(Self {
            workers: vec![worker],
            ports: vec![port],
            file,
        })
    }

    /// The addresses in the order of the listeners, with the port that port 0 became.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(|port| port.address).collect()
    }

    /// Where the listeners can be reached, with the port that port 0 became.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.ports.iter().map(|port| &port.endpoint)
    }

    /// Begins to accept; `handler` answers each request on the thread that accepted it. It gets
    /// heads that are made one ([`receive`](super::forward::receive)).
    ///
    /// # Panics
    /// When the system refuses a thread.
    pub fn start<H, F>(self, handler: H) -> Running
    where
        H: Fn(Parts, Body, Entered, &Early) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let signal = Arc::new(Signal::default());
        let (accepts, accepting) = mpsc::channel(1);
        let (lives, alive) = mpsc::channel(1);
        for worker in self.workers {
            worker.start(
                handler.clone(),
                Arc::clone(&signal),
                accepts.clone(),
                lives.clone(),
            );
        }
        Running {
            signal,
            ports: self.ports,
            accepting,
            alive,
            _file: self.file,
        }
    }
}

impl Running {
    /// Stops accepting, lets what is under way finish (HTTP/1: `Connection: close`;
    /// HTTP/2: GOAWAY), and cuts what is left after `timeout`. Upgraded connections are
    /// waited for as well.
    pub async fn drain(mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.signal.raise(Stage::Drain);
        // A late end is no error: what is left is cut below.
        let _ = timeout_at(deadline, self.idle()).await;
        self.signal.raise(Stage::Cut);
        let _ = self.alive.recv().await;
    }

    /// Waits until nobody accepts and every connection has given its place back.
    async fn idle(&mut self) {
        let _ = self.accepting.recv().await;
        for port in &self.ports {
            let _ = port.places.acquire_many(port.capacity).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal.raise(Stage::Cut);
    }
}

impl Port {
    fn of(listener: &Listener, address: SocketAddr, body_bytes: u64) -> Result<Self, BindError> {
        let trust = Trust::new(&listener.trusted_proxies, &listener.trusted_headers);
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

    fn reserved(endpoint: Endpoint, reserved: &Reserved) -> Self {
        Self {
            roster: Some(Arc::new(Roster::new())),
            ..Self::plain(endpoint, &reserved.limits)
        }
    }

    /// Both protocols, and nobody is trusted.
    fn plain(endpoint: Endpoint, limits: &Limits) -> Self {
        let capacity = limits.max_connections.clamp(1, u32::MAX as usize >> 4);
        Self {
            address: endpoint.tcp().unwrap_or(UNNAMED),
            endpoint,
            protocols: vec![Protocol::Http1, Protocol::Http2],
            limits: Arc::new(limits.clone()),
            body_bytes: limits.max_body_bytes.0,
            trust: Arc::default(),
            proxy_protocol: false,
            path_rules: Rules::default(),
            spares: false,
            places: Arc::new(Semaphore::new(capacity)),
            capacity: capacity as u32,
            roster: None,
        }
    }

    /// Who is at `address`, having come by this end of ours.
    fn peer(&self, address: SocketAddr, reached: Reached) -> Peer {
        Peer {
            address,
            trusted: self.trust.has_proxy(address.ip()),
            reached,
            path_rules: self.path_rules,
        }
    }
}
