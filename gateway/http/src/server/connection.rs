//! One connection from accept to end: serving, deadlines, draining. Who the client is and which
//! protocol it speaks is found out by `arrival`.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use lamina_base::turn_clock;
use tokio::select;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use super::activity::{ConnectionActivity, ConnectionPhase};
use super::arrival::ClientArrival;
use super::deadlines::{ConnectionDeadlines, DeadlineAction};
use super::early::InterimChannel;
use super::handler::{Peer, RequestHandler};
use super::handshake::{self, HandshakeError, SecuredConnection};
use super::ping_timer::PingTimer;
use super::port::Port;
use super::roster::RosterMembership;
use super::served_body::ServedBody;
use super::service::ConnectionService;
use super::signal::{DrainSignal, DrainStage};
use super::stream::ClientStream;
use super::stream_task::StreamTasks;
use super::turns::HandshakeTurns;
use super::wire::{ClientTransport, TOO_SLOW};
use crate::config::{ListenerLimits, Protocol};
use crate::frames::{FragmentPaths, MeteredConnection};
use crate::memory::{ConnectionMemory, PROCESS};
use crate::tls::TlsSession;

/// Bytes of one response that hyper may buffer while the client does not take them.
const WRITE_BUFFER: usize = 128 << 10;

/// HTTP/2: streams that were reset while they waited to be accepted (rapid reset). Resets of
/// accepted streams are counted by [`MeteredConnection`].
const RESETS_UNSEEN: usize = 64;

/// HTTP/2: streams that a client may make us reset in a connection's life, by errors or by
/// opening more than it may have at once (made-you-reset). Those that it opens before it has
/// read our limit count, too.
const RESETS_CAUSED: usize = 256;

/// HTTP/2: bytes of request bodies that nobody has read yet, for one connection with all its
/// streams. One upload may use all of it.
const UPLOADS: u32 = 1 << 20;

/// HTTP/2: how often a silent connection gets a PING, and how long its answer may take. The time
/// in which the client takes bytes does not count: see `ping_timer`.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose first byte has not been read yet.
pub(super) struct AcceptedConnection {
    pub(super) stream: ClientStream,
    pub(super) peer: Peer,
    pub(super) place: OwnedSemaphorePermit,
    /// On a listener that may cut it for a new connection: its entry in the roster.
    pub(super) seat: Option<RosterMembership>,
    pub(super) port: Arc<Port>,
    /// Those of its worker.
    pub(super) turns: Arc<HandshakeTurns>,
}

/// Serves a connection to its end.
pub(super) async fn serve<H>(accepted: AcceptedConnection, handler: H)
where
    H: RequestHandler,
{
    let AcceptedConnection {
        stream,
        peer,
        place,
        seat,
        port,
        turns,
    } = accepted;
    stream.send_at_once();
    let begun = select! {
        biased;
        begun = begin(stream, peer, &port, &turns) => begun,
        () = ends_early(&port) => return,
    };
    let BegunConnection {
        stream,
        since,
        arrival: ClientArrival { peer, first },
        protocol,
        tls,
    } = match begun {
        Ok(begun) => begun,
        Err(error) => return tracing::debug!(%peer.address, %error, "client rejected"),
    };
    let memory = ConnectionMemory::new(&PROCESS, port.limits.max_held_bytes.0);
    let activity = Arc::new(ConnectionActivity::new(protocol, memory));
    if let Some(seat) = &seat {
        seat.shows(&activity);
    }
    let hsts = tls.as_ref().and_then(|tls| tls.listener.hsts.clone());
    let wire = ClientTransport::new(stream, first, Arc::clone(&activity), hsts, place);
    let fragments = Arc::new(FragmentPaths::default());
    let service = ConnectionService {
        handler,
        peer,
        limits: Arc::clone(&port.limits),
        port: Arc::clone(&port),
        trust: Arc::clone(&port.trust),
        early: InterimChannel::new(Arc::clone(&activity)),
        tls,
        fragments: Arc::clone(&fragments),
    };
    let service = service_fn(move |request| service.answer(request, &service.early));
    let watch = ConnectionDeadlines::new(&port.limits, protocol, since);
    match protocol {
        Protocol::Http1 => {
            let connection =
                http1_builder(&port.limits).serve_connection(TokioIo::new(wire), service);
            // Between two requests it can't tell the client that there must be no further one: the
            // next answer does.
            let drains_at = DrainStage::Drain;
            run(
                connection.with_upgrades(),
                watch,
                &activity,
                (&port.signal, drains_at),
            )
            .await;
        }
        // QUIC alone carries it, and `http3` serves it.
        Protocol::Http3 => {}
        Protocol::Http2 => {
            let wire = MeteredConnection::client(wire, fragments)
                .with_window(Arc::clone(&activity.window));
            let tasks = StreamTasks {
                activity: Arc::clone(&activity),
                limits: Arc::clone(&port.limits),
            };
            let builder = http2_builder(&port.limits, tasks);
            let connection = builder.serve_connection(TokioIo::new(wire), service);
            run(
                connection,
                watch,
                &activity,
                (&port.signal, DrainStage::Retire),
            )
            .await;
        }
    }
}

/// A connection of which the client and its protocol are known.
struct BegunConnection {
    stream: ClientStream,
    /// When the time for the first head began.
    since: Instant,
    arrival: ClientArrival,
    protocol: Protocol,
    tls: Option<Arc<TlsSession>>,
}

/// How long the first bytes of a connection may still take when its port drains: they are on their
/// way, and a client whose connection is reset then can't tell whether its request was read.
const FIRST_BYTES: Duration = Duration::from_millis(250);

/// Waits until the port drains and nothing more can be expected of the client. A TLS handshake that
/// has begun may end, so that its client gets an answer: a client whose connection is reset in the
/// middle of one can't tell why.
async fn ends_early(port: &Port) {
    match port.secured {
        Some(_) => port.signal.reached(DrainStage::Cut).await,
        None => {
            port.signal.reached(DrainStage::Drain).await;
            select! {
                () = sleep(FIRST_BYTES) => {}
                () = port.signal.reached(DrainStage::Cut) => {}
            }
        }
    }
}

/// Finds out who the client is and which protocol it speaks; does the TLS handshake.
async fn begin(
    mut stream: ClientStream,
    peer: Peer,
    port: &Port,
    turns: &HandshakeTurns,
) -> Result<BegunConnection, BeginError> {
    let mut arrival = ClientArrival {
        peer,
        first: Vec::new(),
    };
    let limit = port.limits.header_timeout.0;
    let mut since = Instant::now();
    timeout(limit, arrival.introduce(&mut stream, port)).await??;
    let (protocol, tls) = match (&port.secured, stream) {
        (Some(secured), ClientStream::Tcp(tcp)) => {
            let first = std::mem::take(&mut arrival.first);
            let SecuredConnection {
                stream: encrypted,
                session,
            } = secured.handshake(tcp, first, turns).await?;
            since = Instant::now();
            let protocol = handshake::agreed_protocol(&encrypted, &port.protocols)?;
            stream = ClientStream::Tls(encrypted);
            (protocol, Some(session))
        }
        (_, clear) => {
            stream = clear;
            let told = timeout(limit, arrival.sniff(&mut stream, port)).await;
            if told.is_err() && !arrival.first.is_empty() {
                poll_fn(|cx| {
                    stream.write_at_once(cx, TOO_SLOW);
                    Poll::Ready(())
                })
                .await;
            }
            (told??, None)
        }
    };
    Ok(BegunConnection {
        stream,
        since,
        arrival,
        protocol,
        tls,
    })
}

/// Why a connection ends before its first request.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("its first bytes took too long")]
    Slow(#[from] Elapsed),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Handshake(#[from] HandshakeError),
}

fn http1_builder(limits: &ListenerLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    let head = limits.max_header_bytes.as_usize();
    builder
        // `watch` enforces this deadline.
        .header_read_timeout(None)
        // A client that has sent all it wants to send may close its side (RFC 9112 §9.6).
        .half_close(true)
        .max_header_size(head)
        .max_buf_size(head.max(WRITE_BUFFER));
    if limits.max_headers > 100 {
        // Up to hyper's default of 100 the parser allocates nothing; `guard` enforces the limit,
        // too.
        builder.max_headers(limits.max_headers);
    }
    builder
}

fn http2_builder(limits: &ListenerLimits, tasks: StreamTasks) -> http2::Builder<StreamTasks> {
    let head = u32::try_from(limits.max_header_bytes.0).unwrap_or(u32::MAX);
    let timer = PingTimer {
        activity: Arc::clone(&tasks.activity),
    };
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(timer)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(head)
        .max_pending_accept_reset_streams(RESETS_UNSEEN)
        .max_local_error_reset_streams(RESETS_CAUSED)
        .max_send_buf_size(WRITE_BUFFER)
        .initial_connection_window_size(UPLOADS)
        .initial_stream_window_size(UPLOADS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Drives a connection until it ends, is drained at the given stage, is cut, or breaks a deadline.
async fn run<C: DrainableConnection>(
    connection: C,
    mut watch: ConnectionDeadlines,
    activity: &ConnectionActivity,
    (signal, drains_at): (&DrainSignal, DrainStage),
) {
    let mut connection = pin!(connection);
    let mut changed = pin!(signal.changed());
    let mut stage = None;
    let mut draining = false;
    poll_fn(|cx| {
        let _turn = turn_clock::turn();
        loop {
            // While an answer is under way it can still say that it is the last one.
            if !draining && signal.is(drains_at) && activity.phase() == ConnectionPhase::Serving {
                draining = true;
                connection.as_mut().drain();
            }
            // Polled before an idle connection is drained, so that a request that has arrived is
            // answered.
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if stage.is_none() {
                // Once is enough: the waker of a task never changes.
                activity.driven_by(cx.waker());
            }
            // The signal wakes once for each stage.
            while stage != Some(signal.stage()) {
                stage = Some(signal.stage());
                changed.set(signal.changed());
                let _ = changed.as_mut().poll(cx);
            }
            if signal.is(DrainStage::Cut) {
                return Poll::Ready(());
            }
            if draining || !signal.is(drains_at) {
                break;
            }
            draining = true;
            connection.as_mut().drain();
        }
        if activity.is_cut() {
            tracing::debug!(
                "connection closed: its answers hold more memory than allowed (max_held_bytes)"
            );
            return Poll::Ready(());
        }
        loop {
            match ready!(watch.poll(cx, activity)) {
                DeadlineAction::Cut(phase) => {
                    tracing::debug!(?phase, "connection closed: the client was too slow");
                    if matches!(phase, ConnectionPhase::Head | ConnectionPhase::Idle { .. }) {
                        activity.expire();
                        // One more poll: the read in it writes the answer 408, or ends.
                        let _ = connection.as_mut().poll(cx);
                    }
                    return Poll::Ready(());
                }
                DeadlineAction::Look => {
                    activity.look();
                    if connection.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                }
            }
        }
    })
    .await;
}

/// hyper's connections have no common trait for what both can do.
trait DrainableConnection: Future {
    /// Ends the connection after the requests under way.
    fn drain(self: Pin<&mut Self>);
}

impl<S> DrainableConnection for http1::UpgradeableConnection<TokioIo<ClientTransport>, S>
where
    S: HttpService<hyper::body::Incoming, ResBody = ServedBody> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> DrainableConnection
    for http2::Connection<TokioIo<MeteredConnection<ClientTransport>>, S, StreamTasks>
where
    S: HttpService<hyper::body::Incoming, ResBody = ServedBody> + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
