//! QUIC on the UDP port of a listener: one socket and one endpoint for each worker.
//!
//! All sockets of a port share it. The kernel gives a datagram to the worker that its connection
//! belongs to: the first octet of every connection id of ours is the number of the worker, and a
//! filter in the kernel reads it, so that neither a new address of the client nor another number of
//! workers' connections moves one to a worker that does not know it.
//!
//! Inside: `socket` opens the sockets, `steering` hands on what reaches the wrong worker,
//! `passage` brings datagrams to a process that has handed its sockets over, `metrics` counts.
//! Neighbours: `http3` serves the connections; `tls` has the certificates.

pub(super) mod metrics;
pub(super) mod passage;
pub(super) mod socket;
mod steering;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming,
    MtuDiscoveryConfig, Runtime as _, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    ZeroRttAccepted,
};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, Timeout, timeout, timeout_at};

use self::metrics::QuicHandshakeOutcome;
pub(super) use self::socket::{OpenedQuic, QuicSocket, adopt, open};
use self::steering::SteeredSocket;
pub(super) use self::steering::SteeringGroup;
use super::early_data::{EarlyRequest, HandshakeReport};
use super::handler::{LocalEndpoint, RequestHandler};
use super::http3::{self, AcceptedQuicConnection};
use super::port::Port;
use super::signal::DrainStage;
use super::turns::HandshakeTurns;
use crate::config::ListenerLimits;
use crate::http3::Http3Code;
use crate::quic_identity::WorkerIds;
use crate::tls::config::EarlyDataMode;
use crate::tls::{QUIC_VERSION, QuicHandshake, QuicSecrets, QuicTls, TlsListener, TlsSession};

/// The largest datagram that is sent, and that a client is told to send: it fits into IPv6 over
/// Ethernet.
const MOST_PAYLOAD: u16 = 1_452;
/// Octets that one stream, and all streams of a connection, may bring before they are read.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Octets of a connection's answers that wait to be sent or to be acknowledged.
const SEND_WINDOW: u64 = 1 << 20;
/// Unidirectional streams of a client: its control stream, two of QPACK, and some that test
/// whether unknown types are ignored.
const ONE_WAY_STREAMS: u32 = 8;
/// The longest silence of a client. It says nothing of the time without requests, which `http3`
/// watches: a client may be silent for longer while it waits for an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// Clients whose handshake has not begun, and the octets that are kept of one and of all of them.
const MOST_INCOMING: usize = 1_024;
const INCOMING_OCTETS: u64 = 16 << 10;
const ALL_INCOMING_OCTETS: u64 = 16 << 20;
/// The unfinished handshakes of a worker above which a client must first show that it gets what is
/// sent to its address (Retry).
const RETRY_ABOVE: usize = 256;
/// How long the last packets of a port that closes may take.
const LAST_PACKETS: Duration = Duration::from_millis(200);

/// Whose the QUIC sockets of an address are. Another port takes its place when the listener gets
/// other settings: the endpoints, which know the connections, go on.
pub(super) struct QuicTenant {
    pub(super) port: Arc<Port>,
    /// Dropped when nothing is accepted for the port any more.
    pub(super) _accepts: mpsc::Sender<()>,
}

/// Accepts connections on one socket until its last tenant retires, and serves them to their end.
pub(super) async fn accept<H>(
    tenancy: Arc<ArcSwap<QuicTenant>>,
    on: QuicSocket,
    turns: Arc<HandshakeTurns>,
    handler: H,
) where
    H: RequestHandler,
{
    let mut tenant = tenancy.load_full();
    let mut port = Arc::clone(&tenant.port);
    let Some(secured) = &port.secured else {
        return;
    };
    let secrets = secured.listener.quic_secrets();
    let endpoint = match endpoint(on, &port, &secured.listener, &secrets) {
        Ok(endpoint) => endpoint,
        Err(error) => return tracing::error!(address = %port.endpoint, %error, "cannot serve QUIC"),
    };
    let unfinished = Arc::new(AtomicUsize::new(0));
    loop {
        let incoming = select! {
            incoming = endpoint.accept() => incoming,
            () = port.signal.reached(DrainStage::Retire) => {
                let now = tenancy.load_full();
                if Arc::ptr_eq(&now, &tenant) {
                    break;
                }
                tenant = now;
                port = Arc::clone(&tenant.port);
                continue;
            }
        };
        let Some(incoming) = incoming else {
            return;
        };
        if unfinished.load(Relaxed) > RETRY_ABOVE && incoming.may_retry() {
            port.quic.retried();
            // An error means that it was told to come again already.
            let _ = incoming.retry();
            continue;
        }
        let Ok(place) = Arc::clone(&port.places).try_acquire_owned() else {
            port.quic.ended(QuicHandshakeOutcome::Refused);
            incoming.refuse();
            continue;
        };
        let counted = UnfinishedHandshake::begin(&unfinished);
        let (port, turns) = (Arc::clone(&port), Arc::clone(&turns));
        let (handler, secrets) = (handler.clone(), secrets.clone());
        tokio::spawn(async move {
            let begun = begin(incoming, &port, &secrets, &turns).await;
            drop(counted);
            if let Some(begun) = begun {
                let reached = begun.connection.local_ip().unwrap_or(port.address.ip());
                let reached = SocketAddr::new(reached, port.address.port());
                let client = begun.connection.remote_address();
                let accepted = AcceptedQuicConnection {
                    peer: port.peer(client, LocalEndpoint::Tcp(reached)),
                    begun,
                    port,
                    _place: place,
                };
                http3::serve(accepted, handler).await;
            }
        });
    }
    drop(tenant);
    drop(tenancy);
    endpoint.set_server_config(None);
    // Connections end by themselves; the last worker waits for them before the process ends.
    endpoint_is_idle(&endpoint, &port).await;
}

async fn endpoint_is_idle(endpoint: &Endpoint, port: &Port) {
    select! {
        () = endpoint.wait_idle() => {}
        () = port.signal.reached(DrainStage::Cut) => {
            endpoint.close(VarInt::from_u32(Http3Code::NoError.number()), b"");
            // A timeout is no error: clients notice by silence then.
            let _ = timeout(LAST_PACKETS, endpoint.wait_idle()).await;
        }
    }
}

/// Counts a handshake until it is dropped.
struct UnfinishedHandshake(Arc<AtomicUsize>);

impl UnfinishedHandshake {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for UnfinishedHandshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A connection that requests may come over.
pub(super) struct BegunQuicConnection {
    pub(super) connection: Connection,
    pub(super) session: Arc<TlsSession>,
    /// The mark of requests that come before the handshake is complete. None if it is.
    pub(super) early: Option<EarlyRequest>,
}

/// How far a handshake has come when requests may come.
enum QuicHandshakeStage {
    Complete(Connection),
    /// It goes on beside the first requests.
    EarlyData(Connection, ZeroRttAccepted),
}

/// Does the handshake of a connection.
async fn begin(
    incoming: Incoming,
    port: &Arc<Port>,
    secrets: &QuicSecrets,
    turns: &HandshakeTurns,
) -> Option<BegunQuicConnection> {
    let listener = &port.secured.as_ref()?.listener;
    let Some(tls) = QuicTls::new(listener) else {
        port.quic.ended(QuicHandshakeOutcome::Refused);
        incoming.refuse();
        return None;
    };
    let config = server_config(Arc::new(tls), &port.limits, secrets);
    let limit = listener.handshake_timeout();
    let deadline = Instant::now() + limit;
    let handshake = handshake(incoming, config, listener.early_data(), turns);
    let outcome = match timeout_at(deadline, handshake).await {
        Ok(Ok(QuicHandshakeStage::Complete(connection))) => match session(&connection, listener) {
            Some(session) => {
                port.quic.ended(match session.resumed {
                    true => QuicHandshakeOutcome::Resumed,
                    false => QuicHandshakeOutcome::Full,
                });
                return Some(BegunQuicConnection {
                    connection,
                    session,
                    early: None,
                });
            }
            None => QuicHandshakeOutcome::Failed,
        },
        Ok(Ok(QuicHandshakeStage::EarlyData(connection, rest))) => {
            if let Some(session) = session(&connection, listener) {
                let (report, early) = HandshakeReport::new();
                let rest = timeout_at(deadline, rest);
                let (quic, closing) = (Arc::clone(&port.quic), connection.clone());
                tokio::spawn(async move { quic.ended(complete(closing, rest, report).await) });
                return Some(BegunQuicConnection {
                    connection,
                    session,
                    early: Some(early),
                });
            }
            QuicHandshakeOutcome::Failed
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "QUIC: client rejected");
            QuicHandshakeOutcome::of(&error)
        }
        Err(_) => QuicHandshakeOutcome::Timeout,
    };
    port.quic.ended(outcome);
    None
}

async fn handshake(
    incoming: Incoming,
    config: ServerConfig,
    early_data: EarlyDataMode,
    turns: &HandshakeTurns,
) -> Result<QuicHandshakeStage, ConnectionError> {
    // What has come of the ClientHello is answered at once, and what comes later is of quinn's own
    // tasks.
    let turn = turns.next().await;
    let connecting = incoming.accept_with(Arc::new(config));
    drop(turn);
    let mut connecting = connecting?;
    if early_data == EarlyDataMode::Safe {
        let told = connecting
            .handshake_data()
            .await?
            .downcast::<QuicHandshake>();
        if told.is_ok_and(|told| told.takes_early_data) {
            connecting = match connecting.into_0rtt() {
                Ok((connection, rest)) => {
                    return Ok(QuicHandshakeStage::EarlyData(connection, rest));
                }
                Err(connecting) => connecting,
            };
        }
    }
    connecting.await.map(QuicHandshakeStage::Complete)
}

/// Waits for the rest of a handshake beside the first requests, and tells them how it has ended.
async fn complete(
    connection: Connection,
    rest: Timeout<ZeroRttAccepted>,
    report: HandshakeReport,
) -> QuicHandshakeOutcome {
    match (rest.await, connection.close_reason()) {
        (Ok(_), None) => {
            report.complete();
            QuicHandshakeOutcome::Resumed
        }
        (Ok(_), Some(_)) => QuicHandshakeOutcome::Failed,
        (Err(_), _) => {
            connection.close(VarInt::from_u32(Http3Code::RequestRejected.number()), b"");
            QuicHandshakeOutcome::Timeout
        }
    }
}

/// The session of a connection. None if it must not be used, and is closed.
fn session(connection: &Connection, listener: &Arc<TlsListener>) -> Option<Arc<TlsSession>> {
    let told = connection.handshake_data()?;
    let told = told.downcast::<QuicHandshake>().ok()?;
    match TlsSession::over_quic(*told, listener) {
        Ok(session) => Some(Arc::new(session)),
        Err(error) => {
            tracing::debug!(%error, "QUIC: client rejected");
            connection.close(VarInt::from_u32(Http3Code::RequestRejected.number()), b"");
            None
        }
    }
}

fn endpoint(
    on: QuicSocket,
    port: &Port,
    listener: &Arc<TlsListener>,
    secrets: &QuicSecrets,
) -> io::Result<Endpoint> {
    let (worker, group) = (on.worker, Arc::clone(&on.group));
    let mut config = EndpointConfig::new(Arc::clone(&secrets.reset_key));
    config
        .max_udp_payload_size(MOST_PAYLOAD)
        .map_err(io::Error::other)?
        .cid_generator(move || {
            Box::new(WorkerIds {
                worker,
                identity: Arc::clone(&group.identity),
            })
        })
        .supported_versions(vec![QUIC_VERSION]);
    // Each client gets a configuration when it comes. The limits of those that were not looked at
    // yet are of the endpoint's own.
    let own = QuicTls::new(listener).map(|tls| {
        let mut config = server_config(Arc::new(tls), &port.limits, secrets);
        config
            .max_incoming(MOST_INCOMING)
            .incoming_buffer_size(INCOMING_OCTETS)
            .incoming_buffer_size_total(ALL_INCOMING_OCTETS);
        config
    });
    let sends = TokioRuntime.wrap_udp_socket(on.sends)?;
    // It reads the one that it sends by, if it is its own, without a second registration.
    let first = on.reads_own.then(|| Arc::clone(&sends));
    let more = on.reads.into_iter();
    let more = more.map(|socket| TokioRuntime.wrap_udp_socket(socket));
    let reads = first.map(Ok).into_iter().chain(more);
    let reads = reads.collect::<io::Result<_>>()?;
    let socket = Arc::new(SteeredSocket::new(sends, reads, on.inbox, &port.quic));
    Endpoint::new_with_abstract_socket(config, own, socket, Arc::new(TokioRuntime))
}

fn server_config(
    crypto: Arc<dyn quinn::crypto::ServerConfig>,
    limits: &ListenerLimits,
    secrets: &QuicSecrets,
) -> ServerConfig {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MOST_PAYLOAD);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.max_streams))
        .max_concurrent_uni_streams(VarInt::from_u32(ONE_WAY_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(IdleTimeout::try_from(SILENCE).ok())
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(None);
    let mut config = ServerConfig::new(crypto, Arc::clone(&secrets.token_key));
    config.transport_config(Arc::new(transport));
    config
}
