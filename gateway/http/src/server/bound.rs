//! Ports that are open, before anything is accepted on them: [`BoundListeners`].

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::bind_error::BindError;
use super::handler::RequestHandler;
use super::inherited::InheritedSockets;
use super::port::{OpenedPort, Port};
use super::running::RunningListeners;
use super::shared::SharedByListeners;
use super::signal::DrainSignal;
use super::socket::{self, ListeningSocket};
use super::thread_work::WorkerThread;
use super::unix::{self, SocketFile};
use super::worker::Worker;
use crate::config::{ListenerConfig, ReservedListener};
use crate::endpoint::Endpoint;

/// Ports that are open. Connections wait in the kernel until [`BoundListeners::start`]; where another
/// listener of the gateway overlaps, they are refused until then.
pub struct BoundListeners {
    workers: Vec<Worker>,
    ports: Vec<OpenedPort>,
    file: Option<SocketFile>,
    shared: SharedByListeners,
}

/// Whether an address is the loopback of IPv6, and the same port of IPv4's has a listener too, so
/// that a machine without IPv6 can do without it.
pub(super) fn has_twin(address: SocketAddr, listeners: &[ListenerConfig]) -> bool {
    let is_twin = |listener: &ListenerConfig| {
        let other = listener.address;
        other.ip() == Ipv4Addr::LOCALHOST && other.port() == address.port()
    };
    address.ip() == Ipv6Addr::LOCALHOST && listeners.iter().any(is_twin)
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
        let mut own = inherited.addresses_in_use();
        let mut ports = Vec::new();
        for (n, listener) in listeners.iter().enumerate() {
            let taken = inherited.take_clients(listener);
            let opened = match taken.is_empty() {
                true => OpenedPort::of(listener, workers.len(), &shared, &own),
                false => OpenedPort::on(listener, taken, workers.len(), &shared, &own),
            };
            match opened.map_err(|error| inherited.explain(error.of_listener(n))) {
                Err(BindError::NotHere { address }) if has_twin(address, listeners) => {
                    tracing::warn!(%address, "this machine has no IPv6: the listener is left out");
                }
                opened => {
                    let opened = opened?;
                    own.opened.push(opened.port.address);
                    ports.push(opened);
                }
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
                let own = inherited.addresses_in_use();
                let (address, sockets) = match inherited.take_admin(*address) {
                    none if none.is_empty() => socket::open(*address, 1, &own)?,
                    streams => socket::adopt_all(*address, streams)?,
                };
                let sockets = sockets.into_iter().map(ListeningSocket::Tcp);
                (Endpoint::Tcp(address), sockets.collect(), None)
            }
            Endpoint::Unix(path) => {
                let (socket, file) = match inherited.take_unix(path, reserved.socket_mode)? {
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
    /// it gets were normalised by [`receive`](crate::forward::receive).
    ///
    /// # Panics
    /// When the system refuses a thread.
    pub fn start<H>(self, handler: H) -> RunningListeners
    where
        H: RequestHandler,
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
        H: RequestHandler,
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
