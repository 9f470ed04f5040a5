//! A port: what all workers share for one listener, and the sockets that are opened for it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use http::{HeaderValue, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bind_error::BindError;
use super::handler::{LocalEndpoint, Peer};
use super::handshake::SecuredPort;
use super::inherited::ListenerInheritance;
use super::quic::metrics::QuicMetrics;
use super::quic::{self, OpenedQuic};
use super::roster::ConnectionRoster;
use super::running::RunningPort;
use super::shared::SharedByListeners;
use super::signal::{DrainSignal, DrainStage};
use super::socket::{self, ListeningSocket, OwnAddresses, UNNAMED};
use crate::config::{ListenerConfig, ListenerLimits, Protocol, ReservedListener};
use crate::endpoint::Endpoint;
use crate::forward::TrustedProxies;
use crate::path::PathRules;
use crate::quic_identity::QuicIdentity;
use crate::tls::TlsListener;
use crate::tls::config::RedirectTarget;
use crate::tls::listeners::TlsListeners;

/// The most workers that have a socket for QUIC: connection ids have one octet for the number.
const MOST_QUIC_WORKERS: usize = 256;

/// How often another port is tried where the system chooses it.
const MOST_PORTS_TRIED: usize = 16;

/// A port and its sockets.
pub(super) struct OpenedPort {
    pub(super) port: Arc<Port>,
    pub(super) sockets: Vec<ListeningSocket>,
    /// If the port speaks HTTP/3 on sockets that were opened for it.
    pub(super) quic: Option<OpenedQuic>,
    /// The settings of a listener that can get other ones.
    pub(super) listener: Option<ListenerConfig>,
}
/// What the workers share for one listener.
pub(super) struct Port {
    pub(super) endpoint: Endpoint,
    /// The TCP address; 0.0.0.0:0 on a Unix socket.
    pub(super) address: SocketAddr,
    pub(super) protocols: Vec<Protocol>,
    pub(super) limits: Arc<ListenerLimits>,
    pub(super) trust: Arc<TrustedProxies>,
    pub(super) proxy_protocol: bool,
    pub(super) path_rules: PathRules,
    pub(super) redirect: Option<RedirectTarget>,
    /// None: the port speaks clear text.
    pub(super) secured: Option<SecuredPort>,
    /// The value of `Alt-Svc` by which clients learn of HTTP/3.
    pub(super) alt_svc: Option<HeaderValue>,
    pub(super) quic: Arc<QuicMetrics>,
    /// Tells the accept loops and connections of the port to drain, then to stop.
    pub(super) signal: DrainSignal,
    /// Whether the port stops accepting before the last descriptors are used.
    pub(super) spares: bool,
    /// Whether another port accepts on the same sockets, once this one retires.
    pub(super) replaced: AtomicBool,
    /// One permit for each connection that may be open, over all workers.
    pub(super) places: Arc<Semaphore>,
    pub(super) capacity: u32,
    /// Places beyond that, for connections that had been accepted when the port retired.
    added: AtomicU32,
    /// The connections that have a place, on a listener that cuts connections for new ones.
    pub(super) roster: Option<Arc<ConnectionRoster>>,
}

/// The sockets of a port, over TCP and, if it speaks HTTP/3, over UDP.
struct OpenedSockets {
    address: SocketAddr,
    streams: Vec<TcpListener>,
    quic: Option<OpenedQuic>,
}

impl OpenedSockets {
    /// Opens one of each for each of `workers` workers.
    fn of(
        listener: &ListenerConfig,
        workers: usize,
        identity: &Arc<QuicIdentity>,
        own: &OwnAddresses,
    ) -> Result<Self, BindError> {
        let mut tries = 0;
        loop {
            let (address, streams) = socket::open(listener.address, workers, own)?;
            let most = workers.min(MOST_QUIC_WORKERS);
            let quic = match speaks_http3(listener) {
                true => quic::open(address, most, identity, own).map(Some),
                false => Ok(None),
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
    /// Opens one socket for each of `workers` workers, beside those of `own`.
    pub(super) fn of(
        listener: &ListenerConfig,
        workers: usize,
        shared: &SharedByListeners,
        own: &OwnAddresses,
    ) -> Result<Self, BindError> {
        let OpenedSockets {
            address,
            streams,
            quic,
        } = OpenedSockets::of(listener, workers, &shared.identity, own)?;
        Ok(Self {
            port: Arc::new(Port::of(listener, address, shared, None)?),
            sockets: streams.into_iter().map(ListeningSocket::Tcp).collect(),
            quic,
            listener: Some(listener.clone()),
        })
    }

    /// Uses sockets that are already open, of TCP, UDP or both: each worker accepts on at least one of
    /// TCP, and none is left out. Sockets of the kind that is missing are opened.
    pub(super) fn on(
        listener: &ListenerConfig,
        inherited: ListenerInheritance,
        workers: usize,
        shared: &SharedByListeners,
        own: &OwnAddresses,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError::Socket {
            address: listener.address,
            source,
        };
        let ListenerInheritance {
            streams,
            datagrams,
            earlier,
        } = inherited;
        let streams = match streams.is_empty() {
            true => socket::open(listener.address, workers, own)?.1,
            false => streams,
        };
        let first = streams
            .first()
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let address = first.local_addr().map_err(failed)?;
        let count = streams.len().max(workers);
        let used = streams
            .iter()
            .cycle()
            .take(count)
            .map(TcpListener::try_clone);
        let used = used.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        let (_, used) = socket::adopt(address, used)?;
        let most = workers.min(MOST_QUIC_WORKERS);
        let quic = match (speaks_http3(listener), datagrams.is_empty()) {
            (false, _) => Ok(None),
            (true, true) => quic::open(address, most, &shared.identity, own).map(Some),
            (true, false) => quic::adopt(datagrams, most, &shared.identity, earlier).map(Some),
        };
        Ok(Self {
            port: Arc::new(Port::of(listener, address, shared, None)?),
            sockets: used.into_iter().map(ListeningSocket::Tcp).collect(),
            quic: quic.map_err(|source| BindError::Quic { address, source })?,
            listener: Some(listener.clone()),
        })
    }

    /// Other settings for a port that is at work, on its own sockets.
    pub(super) fn replacing(
        running: &RunningPort,
        listener: &ListenerConfig,
        workers: usize,
        shared: &SharedByListeners,
        own: &OwnAddresses,
    ) -> Result<Self, BindError> {
        let address = running.port.address;
        let before = running.listener.as_ref();
        let same_tls = before.is_some_and(|before| {
            (&before.tls, &before.protocols, &before.hsts)
                == (&listener.tls, &listener.protocols, &listener.hsts)
        });
        let standing = running.port.secured.as_ref().filter(|_| same_tls);
        let standing = standing.map(|secured| Arc::clone(&secured.listener));
        let failed = |source| BindError::Socket { address, source };
        if running.sockets.is_empty() {
            // When it was opened there was no descriptor left for this.
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        let sockets = running.sockets.iter().map(TcpListener::try_clone);
        let sockets = sockets.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        let quic = match (speaks_http3(listener), &running.quic) {
            (true, None) => {
                let most = workers.min(MOST_QUIC_WORKERS);
                let opened = quic::open(address, most, &shared.identity, own);
                Some(opened.map_err(|source| BindError::Quic { address, source })?)
            }
            (true, Some(_)) | (false, _) => None,
        };
        Ok(Self {
            port: Arc::new(Port::of(listener, address, shared, standing)?),
            sockets: sockets.into_iter().map(ListeningSocket::Tcp).collect(),
            quic,
            listener: Some(listener.clone()),
        })
    }
}

impl Port {
    /// `tls` is what the listener has already of its TLS.
    pub(super) fn of(
        listener: &ListenerConfig,
        address: SocketAddr,
        shared: &SharedByListeners,
        tls: Option<Arc<TlsListener>>,
    ) -> Result<Self, BindError> {
        let SharedByListeners {
            tls: listeners,
            quic,
            ..
        } = shared;
        let trust = TrustedProxies::new(&listener.trusted_proxies, &listener.trusted_headers);
        let trust = trust.map_err(|source| BindError::Network {
            address: listener.address,
            source,
        })?;
        let trust = trust.naming_clients_in(listener.client_from);
        let tls = match tls {
            Some(standing) => Some(standing),
            None => {
                let tls = open_tls(listener, listeners)?;
                if let Some(tls) = &tls {
                    listeners.add(tls);
                    tls.watch_files();
                }
                tls
            }
        };
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
            ..Self::plain(Endpoint::Tcp(address), &listener.limits)
        })
    }

    pub(super) fn reserved(endpoint: Endpoint, reserved: &ReservedListener) -> Self {
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
            replaced: AtomicBool::default(),
            added: AtomicU32::default(),
            roster: None,
        }
    }

    /// A place, beyond the limit if there is no other: for a connection that is accepted already, on
    /// a port that accepts no further ones.
    pub(super) async fn place_in_any_case(&self) -> Option<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.places);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Some(place);
        }
        self.added.fetch_add(1, Relaxed);
        places.add_permits(1);
        // The semaphore is never closed.
        places.acquire_owned().await.ok()
    }

    /// Waits until every connection has returned its place.
    pub(super) async fn is_empty(&self) {
        let all = self.capacity + self.added.load(Relaxed);
        let _ = self.places.acquire_many(all).await;
    }

    /// The address and the scheme that clients use there.
    pub(super) fn address_with_scheme(&self) -> (SocketAddr, &'static str) {
        match self.secured {
            Some(_) => (self.address, "https"),
            None => (self.address, "http"),
        }
    }

    /// What a client of this protocol is told of HTTP/3 now. None if it is not spoken, nobody is to
    /// be told, or the client speaks it already.
    pub(super) fn alt_svc(&self, version: Version) -> Option<HeaderValue> {
        let told = self.alt_svc.as_ref()?;
        match (self.signal.is(DrainStage::Drain), version) {
            (true, _) => Some(HeaderValue::from_static("clear")),
            (false, Version::HTTP_3) => None,
            (false, _) => Some(told.clone()),
        }
    }

    /// The client at `address`, which has connected to this local end.
    pub(super) fn peer(&self, address: SocketAddr, reached: LocalEndpoint) -> Peer {
        Peer {
            address,
            trusted: self.trust.has_proxy(address.ip()),
            reached,
            path_rules: self.path_rules,
            redirect: self.redirect,
        }
    }
}

pub(super) fn speaks_http3(listener: &ListenerConfig) -> bool {
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
        listener.address,
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
