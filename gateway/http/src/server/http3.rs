//! One HTTP/3 connection from its handshake to its end (RFC 9114).
//!
//! Inside: `one_way` reads the client's control stream and those of QPACK, `request` reads one
//! request and hands it to `service`, `respond` writes the answer, `order` says which of several
//! goes first, `frame_budget` ends connections for frames of QUIC that carry nothing.
//! Neighbours: `quic` accepts the connection, `crate::http3` reads and writes what is on the wire.
//!
//! Each request is a task of its own on the worker of the connection. A fault that ends the
//! connection closes it at once; all tasks then fail at their next read or write.

mod content;
mod frame_budget;
mod one_way;
mod order;
mod reader;
mod request;
mod respond;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use quinn::{Connection, SendStream, VarInt};
use tokio::select;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::order::AnswerOrder;
use self::request::RequestStream;
use super::activity::ConnectionActivity;
use super::early::InterimChannel;
use super::early_data::EarlyRequest;
use super::handler::{Peer, RequestHandler};
use super::port::Port;
use super::quic::BegunQuicConnection;
use super::quic::metrics::{Http3Guard, PathWatch, QuicMetrics};
use super::service::ConnectionService;
use super::signal::DrainStage;
use crate::config::{ListenerLimits, Protocol};
use crate::frames::FragmentPaths;
use crate::http3::frame::kind;
use crate::http3::{Http3Code, Http3Excess, varint};
use crate::memory::{ConnectionMemory, PROCESS};

/// The type of a control stream (RFC 9114 §6.2.1).
const CONTROL_STREAM: u64 = 0x0;
/// Settings (RFC 9114 §7.2.4.1, RFC 9204 §5).
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;

/// The id of a stream that no client reaches: the first GOAWAY of a drain (RFC 9114 §5.2).
const NO_STREAM: u64 = varint::MAX - 3;

/// Streams that a client may reset or stop before they are answered: so many at once, and so many
/// more each second.
const RESETS: u64 = 256;
const RESETS_PER_SECOND: u64 = 64;

/// How long the second GOAWAY waits, so that requests that are on their way arrive before it.
const LAST_REQUESTS: Duration = Duration::from_millis(50);

/// A connection that is to be served.
pub(super) struct AcceptedQuicConnection {
    pub(super) begun: BegunQuicConnection,
    pub(super) peer: Peer,
    pub(super) port: Arc<Port>,
    pub(super) _place: OwnedSemaphorePermit,
}

/// What the tasks of a connection share.
struct Http3Connection {
    connection: Connection,
    limits: Arc<ListenerLimits>,
    activity: Arc<ConnectionActivity>,
    resets: ClientBudget,
    /// Requests that are not answered, or whose answer is not acknowledged.
    open: AtomicU32,
    /// When the last of them ended.
    ended: Notify,
    one_way: OneWayStreams,
    order: Arc<AnswerOrder>,
    /// The mark of requests that come before the handshake is complete.
    early: Option<EarlyRequest>,
    metrics: Arc<QuicMetrics>,
}

/// Which streams of the client have come, each of which may come once.
#[derive(Default)]
struct OneWayStreams {
    control: AtomicBool,
    encoder: AtomicBool,
    decoder: AtomicBool,
}

/// Counts what a client may do so often at once, and so often more each second.
struct ClientBudget {
    at_once: u64,
    per_second: u64,
    since: Instant,
    used: AtomicU64,
}

impl ClientBudget {
    fn new(at_once: u64, per_second: u64) -> Self {
        Self {
            at_once,
            per_second,
            since: Instant::now(),
            used: AtomicU64::new(0),
        }
    }

    /// Counts one more. False if there were too many.
    fn spend(&self) -> bool {
        let earned = self.since.elapsed().as_secs() * self.per_second;
        let used = self.used.fetch_add(1, Relaxed) + 1;
        used <= self.at_once + earned
    }
}

impl Http3Connection {
    /// Ends the connection because of what the client did.
    fn close(&self, code: Http3Code) {
        // What ends with its connection was not ended by us, and why it has ended must not be
        // forgotten: faults of QUIC are counted by that.
        if self.connection.close_reason().is_some() {
            return;
        }
        tracing::debug!(
            ?code,
            "an HTTP/3 connection is closed for a fault of its client"
        );
        self.metrics.guarded(Http3Guard::Code(code));
        self.connection.close(VarInt::from_u32(code.number()), b"");
    }

    /// Notes that the client gave up a request. It is counted once, though the client may end both
    /// directions of its stream.
    fn given_up(&self, counted: &AtomicBool) {
        if !counted.swap(true, Relaxed) && !self.resets.spend() {
            self.close(Http3Code::ExcessiveLoad(Http3Excess::Resets));
        }
    }
}

/// A request that is under way, until it is dropped.
struct OpenRequest(Arc<Http3Connection>);

impl OpenRequest {
    fn begin(connection: &Arc<Http3Connection>) -> Self {
        connection.open.fetch_add(1, Relaxed);
        Self(Arc::clone(connection))
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Relaxed) == 1 {
            self.0.ended.notify_one();
        }
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<H>(accepted: AcceptedQuicConnection, handler: H)
where
    H: RequestHandler,
{
    let AcceptedQuicConnection {
        begun,
        peer,
        port,
        _place,
    } = accepted;
    let BegunQuicConnection {
        connection,
        session,
        early,
    } = begun;
    let memory = ConnectionMemory::new(&PROCESS, port.limits.max_held_bytes.0);
    let activity = Arc::new(ConnectionActivity::new(Protocol::Http3, memory));
    let shared = Arc::new(Http3Connection {
        connection: connection.clone(),
        limits: Arc::clone(&port.limits),
        activity: Arc::clone(&activity),
        resets: ClientBudget::new(RESETS, RESETS_PER_SECOND),
        open: AtomicU32::new(0),
        ended: Notify::new(),
        one_way: OneWayStreams::default(),
        order: AnswerOrder::new(port.limits.max_streams),
        early,
        metrics: Arc::clone(&port.quic),
    });
    let service = Arc::new(ConnectionService {
        handler,
        peer,
        limits: Arc::clone(&port.limits),
        port: Arc::clone(&port),
        trust: Arc::clone(&port.trust),
        early: InterimChannel::new(activity),
        tls: Some(session),
        fragments: Arc::new(FragmentPaths::default()),
    });
    select! {
        () = serve_requests(&shared, &service, &port) => {}
        excess = frame_budget::exceeded(&connection) => {
            shared.close(Http3Code::ExcessiveLoad(excess));
        }
    }
}

/// Serves all requests of a connection until it ends or the port drains.
async fn serve_requests<H>(
    shared: &Arc<Http3Connection>,
    service: &Arc<ConnectionService<H>>,
    port: &Port,
) where
    H: RequestHandler,
{
    let connection = &shared.connection;
    let opening = open_control(connection, &port.limits);
    let control = match timeout(port.limits.header_timeout.0, opening).await {
        Ok(Ok(control)) => control,
        Ok(Err(_)) => return,
        // The client leaves no room for it, and would hold its place without being served.
        Err(_) => {
            let blocked = Http3Excess::BlockedControlStream;
            return shared.close(Http3Code::ExcessiveLoad(blocked));
        }
    };
    let control = ControlStream(Mutex::new(Some(control)));
    let mut watch = PathWatch::new(connection, &port.quic);
    let last = run(shared, service, port, &mut watch).await;
    if let Some(last) = last {
        select! {
            () = drain(shared, service, &control, last) => {}
            () = port.signal.reached(DrainStage::Cut) => shared.close(Http3Code::NoError),
        }
    }
}

/// Our control stream, which lives as long as the connection.
struct ControlStream(Mutex<Option<SendStream>>);

impl ControlStream {
    async fn go_away(&self, id: u64) {
        let stream = self.0.lock().take();
        let Some(mut stream) = stream else { return };
        let mut frame = BytesMut::new();
        let mut length = BytesMut::new();
        varint::write(&mut length, id);
        varint::write(&mut frame, kind::GOAWAY);
        varint::write(&mut frame, length.len() as u64);
        frame.put(length);
        // It fails on a connection that is gone, where nobody needs it, and takes too long if the
        // client leaves no room for it.
        let _ = timeout(LAST_REQUESTS, stream.write_chunk(frame.freeze())).await;
        *self.0.lock() = Some(stream);
    }
}

/// Opens our control stream with our settings. There is no dynamic table, which is what a client
/// assumes (RFC 9204 §5).
async fn open_control(
    connection: &Connection,
    limits: &ListenerLimits,
) -> Result<SendStream, quinn::ConnectionError> {
    let mut stream = connection.open_uni().await?;
    // No answer may hold up GOAWAY. An error shows at the next use of the connection.
    let _ = stream.set_priority(i32::MAX);
    let mut settings = BytesMut::new();
    varint::write(&mut settings, MAX_FIELD_SECTION_SIZE);
    varint::write(&mut settings, limits.max_header_bytes.0);
    let mut first = BytesMut::new();
    varint::write(&mut first, CONTROL_STREAM);
    varint::write(&mut first, kind::SETTINGS);
    varint::write(&mut first, settings.len() as u64);
    first.put(settings);
    // An error shows at the next use of the connection.
    let _ = stream.write_chunk(first.freeze()).await;
    Ok(stream)
}

/// Accepts streams. Returns the id that the next request would have when the port drains or the
/// connection was idle for too long; None when the connection has ended.
async fn run<H>(
    shared: &Arc<Http3Connection>,
    service: &Arc<ConnectionService<H>>,
    port: &Port,
    watch: &mut PathWatch,
) -> Option<u64>
where
    H: RequestHandler,
{
    let idle_timeout = shared.limits.idle_timeout.0;
    let idle = sleep(idle_timeout);
    tokio::pin!(idle);
    let mut next_id = 0;
    loop {
        select! {
            biased;
            stream = shared.connection.accept_bi() => {
                let (send, receive) = stream.ok()?;
                next_id = u64::from(VarInt::from(send.id())) + 4;
                let open = OpenRequest::begin(shared);
                let stream = RequestStream::new(send, receive, shared);
                tokio::spawn(request::serve(stream, Arc::clone(service), open));
            }
            stream = shared.connection.accept_uni() => {
                let stream = stream.ok()?;
                tokio::spawn(one_way::read(stream, Arc::clone(shared)));
            }
            () = shared.ended.notified() => {
                watch.look();
                idle.as_mut().reset(Instant::now() + idle_timeout);
            }
            () = idle.as_mut() => {
                if shared.open.load(Relaxed) == 0 {
                    return Some(next_id);
                }
                idle.as_mut().reset(Instant::now() + idle_timeout);
            }
            () = port.signal.reached(DrainStage::Retire) => return Some(next_id),
        }
    }
}

/// Tells the client to go elsewhere, serves the requests that are under way or on their way, and
/// closes the connection.
async fn drain<H>(
    shared: &Arc<Http3Connection>,
    service: &Arc<ConnectionService<H>>,
    control: &ControlStream,
    mut next_id: u64,
) where
    H: RequestHandler,
{
    control.go_away(NO_STREAM).await;
    let deadline = Instant::now() + LAST_REQUESTS.max(shared.connection.rtt());
    loop {
        select! {
            biased;
            stream = shared.connection.accept_bi() => {
                let Ok((send, receive)) = stream else { return };
                next_id = u64::from(VarInt::from(send.id())) + 4;
                let open = OpenRequest::begin(shared);
                let stream = RequestStream::new(send, receive, shared);
                tokio::spawn(request::serve(stream, Arc::clone(service), open));
            }
            () = sleep_until(deadline) => break,
        }
    }
    control.go_away(next_id).await;
    // Closing takes what is not sent yet with it: the client would not learn which of its requests
    // it may send again.
    let told = Instant::now() + LAST_REQUESTS.max(shared.connection.rtt());
    while shared.open.load(Relaxed) > 0 || Instant::now() < told {
        select! {
            stream = shared.connection.accept_bi() => {
                let Ok((mut send, mut receive)) = stream else { return };
                shared.order.pass_over(&send);
                let code = VarInt::from_u32(Http3Code::RequestRejected.number());
                // Both fail only on a stream that has ended already.
                let _ = send.reset(code);
                let _ = receive.stop(code);
            }
            () = shared.ended.notified() => {}
            () = sleep_until(told), if Instant::now() < told => {}
        }
    }
    let code = VarInt::from_u32(Http3Code::NoError.number());
    shared.connection.close(code, b"");
}
