//! The listener: accepts connections, keeps their limits, hands each request to a handler.
//!
//! Inside: `socket` opens the ports, `worker` is one thread with its runtime, `accept` its
//! loops, `descriptors` what they leave for others. `arrival` tells who comes, `connection`
//! serves one client, `wire` is its transport, `activity` what happens on it, `watch` its
//! deadlines, `stream_task` those of one HTTP/2 stream, `service` the step from hyper to the
//! handler, `sending` an answer on its way, `early` what is sent before an answer. `signal` tells everybody to drain. What a request may look like is `guard`'s.
//!
//! Decision: one current-thread runtime per worker, each with its own SO_REUSEPORT socket
//! for each port, so that a request stays on the thread (and the core) that accepted it;
//! measured about 8 % less CPU per request than one multi-thread runtime.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use self::signal::{Signal, Stage};
use self::worker::Worker;
use super::body::Body;
use super::cidr::{Cidr, CidrError};
use super::config::{Limits, Listener, Protocol};

mod accept;
mod activity;
mod arrival;
mod connection;
mod descriptors;
mod early;
mod sending;
mod service;
mod signal;
mod socket;
mod stream_task;
#[cfg(test)]
mod tests;
mod watch;
mod wire;
mod worker;

pub use self::descriptors::raise_limit;
pub use self::early::{Early, Interim};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Address and port that the connection comes from; behind a proxy that speaks the
    /// PROXY protocol, the client's.
    pub address: SocketAddr,
    /// Whether `trusted_proxies` of the listener has the address.
    pub trusted: bool,
}

/// Ports that are open; connections wait in the kernel until [`Bound::start`].
pub struct Bound {
    workers: Vec<Worker>,
    ports: Vec<Arc<Port>>,
}

/// A listener at work; dropping it cuts all connections.
#[must_use = "dropping it stops the listener"]
pub struct Running {
    signal: Arc<Signal>,
    ports: Vec<Arc<Port>>,
    /// Closed when no worker accepts any more, and when no worker is left.
    accepting: mpsc::Receiver<()>,
    alive: mpsc::Receiver<()>,
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
    #[error("listener {address}: trusted_proxies")]
    Network {
        address: SocketAddr,
        source: CidrError,
    },
    #[error("cannot start the runtime of a worker thread")]
    Runtime { source: io::Error },
}

/// What the workers share about one listener.
struct Port {
    address: SocketAddr,
    protocols: Vec<Protocol>,
    limits: Arc<Limits>,
    trusted: Box<[Cidr]>,
    proxy_protocol: bool,
    /// Whether it leaves the last descriptors to others.
    spares: bool,
    /// One for each connection that may be open, over all workers.
    places: Arc<Semaphore>,
    capacity: u32,
}

impl Bound {
    /// Opens every listener, for `threads` workers (at least one).
    ///
    /// # Errors
    /// Which address, and what to do about it.
    pub fn bind(listeners: &[Listener], threads: usize) -> Result<Self, BindError> {
        Self::open(listeners, threads, true)
    }

    /// Opens a listener, for one worker, that may take the descriptors which the others
    /// leave: it answers when they can't.
    ///
    /// # Errors
    /// As for [`Bound::bind`].
    pub fn bind_reserved(listener: &Listener) -> Result<Self, BindError> {
        Self::open(std::slice::from_ref(listener), 1, false)
    }

    fn open(listeners: &[Listener], threads: usize, spares: bool) -> Result<Self, BindError> {
        let mut workers = (0..threads.max(1))
            .map(|_| Worker::new())
            .collect::<Result<Vec<_>, _>>()?;
        let mut ports = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let (address, sockets) = socket::open(listener.address, workers.len())?;
            let port = Arc::new(Port::new(listener, address, spares)?);
            for (worker, socket) in workers.iter_mut().zip(sockets) {
                worker.add(Arc::clone(&port), socket);
            }
            ports.push(port);
        }
        Ok(Self { workers, ports })
    }

    /// The addresses in the order of the listeners, with the port that port 0 became.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(|port| port.address).collect()
    }

    /// Begins to accept; `handler` answers each request on the thread that accepted it.
    ///
    /// # Panics
    /// When the system refuses a thread.
    pub fn start<H, F>(self, handler: H) -> Running
    where
        H: Fn(Request<Body>, Peer, &Early) -> F + Clone + Send + Sync + 'static,
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
    fn new(listener: &Listener, address: SocketAddr, spares: bool) -> Result<Self, BindError> {
        let trusted = listener.trusted_proxies.iter().map(|text| text.parse());
        let trusted = trusted
            .collect::<Result<_, _>>()
            .map_err(|source| BindError::Network {
                address: listener.address,
                source,
            })?;
        let capacity = listener
            .limits
            .max_connections
            .clamp(1, u32::MAX as usize >> 4);
        Ok(Self {
            address,
            protocols: listener.protocols.clone(),
            limits: Arc::new(listener.limits.clone()),
            trusted,
            proxy_protocol: listener.proxy_protocol,
            spares,
            places: Arc::new(Semaphore::new(capacity)),
            capacity: capacity as u32,
        })
    }

    /// Who is at `address`.
    fn peer(&self, address: SocketAddr) -> Peer {
        let trusted = |network: &Cidr| network.contains(address.ip());
        Peer {
            address,
            trusted: self.trusted.iter().any(trusted),
        }
    }
}
