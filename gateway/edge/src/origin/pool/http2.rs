//! HTTP/2 connections of one lane to one target: as many as there are streams to carry.
//!
//! A request never waits for another one: when each connection has as many streams as its origin
//! takes (SETTINGS_MAX_CONCURRENT_STREAMS) or as `pool.max_streams` allows, the next request gets a
//! new connection. The window of a connection is that of all its streams together, so that readers
//! who stand still keep nobody else from reading. The window of what is sent is the origin's, and one
//! upload that it does not read can fill it: a request with a body goes over a connection that takes
//! content.
//!
//! Decision: this does not use hyper-util's pooled client, which connects to whatever `:authority`
//! names: with `host_header: preserve` the client chooses that name, and each name would get its own
//! connection.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::header::HOST;
use http::uri::Authority;
use http::{Request, Response, Uri, Version};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::body::OriginBody;
use super::counts::ConnectionCounter;
use super::endings::{ConnectionOrigin, WantedAddresses};
use super::limits::PoolLimits;
use super::{ConnectionChoice, RequestProgress, SendFailure};
use crate::http::body::Body;
use crate::http::frames::{Http2PeerState, MeteredConnection, SendWindow};
use crate::origin::connect::open;
use crate::origin::error::{SendError, http2_error};
use crate::origin::stream::{OriginStream, StreamTraffic, TrafficMark};
use crate::origin::target::{OriginTarget, WantedProtocol};
use crate::origin::tls::SpokenProtocol;

/// A silent connection with open requests gets a PING at this interval.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// No connection is begun that has a smaller part of `timeouts.connect` left.
const LEAST_SHARE_OF_CONNECT: u32 = 16;
/// The greatest window (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// The connections of one lane.
pub(super) struct Http2Lane {
    limits: PoolLimits,
    counter: ConnectionCounter,
    wanted: Arc<WantedAddresses>,
    state: Mutex<LaneState>,
    /// Tells those who wait that a connection has been opened, or could not be.
    opened: Notify,
}

#[derive(Default)]
struct LaneState {
    connections: Vec<Arc<Http2Connection>>,
    /// Connections that are being opened, and requests that wait for them.
    opening: u32,
    waiting: u32,
}

struct Http2Connection {
    sender: SendRequest<Body>,
    peer: Arc<Http2PeerState>,
    streams: AtomicU32,
    origin: ConnectionOrigin,
    last_used: Mutex<Instant>,
    traffic: Arc<StreamTraffic>,
    /// Whether it has brought an answer.
    has_served: AtomicBool,
    /// How much of the bodies of requests the origin takes.
    window: Arc<SendWindow>,
    /// The error that ended it.
    ended_with: EndingError,
}

type EndingError = Arc<Mutex<Option<hyper::Error>>>;

/// What a request sends over its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamContent {
    Head,
    HeadAndBody,
}

/// A stream of a connection, which no other request may use. Dropping it gives it back.
pub(super) struct Http2StreamPermit(Arc<Http2Connection>);

/// What an origin takes no more of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StreamRefusal {
    Stream,
    Connection,
}

/// What a request goes over.
pub(super) enum ReservedStream {
    Http2(Http2StreamPermit),
    /// A connection was opened, and the target speaks HTTP/1.1 alone.
    OpenedForHttp1(Box<OriginStream>),
    /// The target speaks HTTP/1.1 alone, as the connection of another request has shown.
    SpeaksHttp1,
}

/// What a request without a connection does.
enum LaneTurn {
    Send(Http2StreamPermit),
    Open,
    Wait,
}

/// Counts a connection that is being opened until it is dropped.
struct OpeningCount<'a>(&'a Http2Lane);

/// Counts a request that waits until it is dropped.
struct WaitingCount<'a>(&'a Http2Lane);

impl Http2Lane {
    pub(super) fn new(
        limits: PoolLimits,
        counter: ConnectionCounter,
        wanted: Arc<WantedAddresses>,
    ) -> Self {
        Self {
            limits,
            counter,
            wanted,
            state: Mutex::default(),
            opened: Notify::new(),
        }
    }

    /// Finds a stream for a request, on a connection that stands or on a new one. A request waits
    /// for connections that others open as long as one connection may take. A target that has
    /// meanwhile shown that it can be reached has that time once more for the request's own one.
    pub(super) async fn reserve(
        &self,
        target: &OriginTarget,
        mut choice: ConnectionChoice,
        content: StreamContent,
    ) -> Result<ReservedStream, SendError> {
        let mut deadline = tokio::time::Instant::now() + self.limits.connect;
        loop {
            let opened = self.opened.notified();
            match self.lane_turn(choice, content) {
                LaneTurn::Send(permit) => return Ok(ReservedStream::Http2(permit)),
                LaneTurn::Open => {
                    let opening = OpeningCount(self);
                    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                    if left < self.limits.connect / LEAST_SHARE_OF_CONNECT {
                        return Err(took_too_long());
                    }
                    return self.open(target, opening, deadline).await;
                }
                LaneTurn::Wait => {}
            }
            let waiting = WaitingCount(self);
            let waited = timeout_at(deadline, opened).await;
            drop(waiting);
            waited.map_err(|_| took_too_long())?;
            if target.spoken(WantedProtocol::Any) == SpokenProtocol::Http1 {
                return Ok(ReservedStream::SpeaksHttp1);
            }
            // What has been opened meanwhile is new enough.
            choice = ConnectionChoice::Standing;
            if self.has_connection() {
                deadline = tokio::time::Instant::now() + self.limits.connect;
            }
        }
    }

    /// Whether a connection stands that takes requests, though perhaps no more at the moment.
    fn has_connection(&self) -> bool {
        let state = self.state.lock();
        state.connections.iter().any(|one| self.admits(one))
    }

    fn lane_turn(&self, choice: ConnectionChoice, content: StreamContent) -> LaneTurn {
        let mut state = self.state.lock();
        if choice == ConnectionChoice::Standing
            && let Some(permit) = state.free_stream(self, content)
        {
            return LaneTurn::Send(permit);
        }
        if choice == ConnectionChoice::Own {
            state.opening += 1;
            return LaneTurn::Open;
        }
        let known = state.connections.iter().map(|one| one.peer.max_streams());
        let each = known
            .min()
            .unwrap_or(u32::MAX)
            .clamp(1, self.limits.max_streams);
        // The one who opens a connection takes a stream of it, too.
        if state.waiting < state.opening.saturating_mul(each - 1) {
            state.waiting += 1;
            return LaneTurn::Wait;
        }
        state.opening += 1;
        LaneTurn::Open
    }

    async fn open(
        &self,
        target: &OriginTarget,
        opening: OpeningCount<'_>,
        deadline: tokio::time::Instant,
    ) -> Result<ReservedStream, SendError> {
        let opened = timeout_at(deadline, self.open_stream(target)).await;
        drop(opening);
        opened.unwrap_or_else(|_| Err(took_too_long()))
    }

    async fn open_stream(&self, target: &OriginTarget) -> Result<ReservedStream, SendError> {
        let (stream, spoken) = open(target, WantedProtocol::Any, self.limits.connect).await?;
        let stream = stream.counted(self.counter.count());
        let connection = match spoken {
            SpokenProtocol::Http2 => Arc::new(self.begin(stream).await?),
            _ => return Ok(ReservedStream::OpenedForHttp1(Box::new(stream))),
        };
        // An origin that takes no stream at all for now may change that while there is time. A request
        // that waited inside h2 would be lost to other targets.
        let permit = connection.first_stream(self.limits.max_streams).await?;
        self.state.lock().connections.push(connection);
        Ok(ReservedStream::Http2(permit))
    }

    /// Begins to speak HTTP/2, and waits until the origin has said how many streams it takes.
    async fn begin(&self, stream: OriginStream) -> Result<Http2Connection, SendError> {
        let peer = Arc::new(Http2PeerState::default());
        let (address, traffic) = (stream.peer(), stream.traffic());
        let send_window = Arc::<SendWindow>::default();
        let metered = MeteredConnection::origin(stream)
            .with_peer(Arc::clone(&peer))
            .with_used_window(Arc::clone(&send_window));
        let window = self.limits.stream_window.clamp(1 << 14, MAX_WINDOW);
        let all = window.saturating_mul(self.limits.max_streams);
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size(all.min(MAX_WINDOW))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        let begun = builder.handshake(TokioIo::new(metered)).await;
        let (sender, connection) = begun.map_err(|error| SendError::of_http2_start(Some(error)))?;
        let ended_with = EndingError::default();
        let (ends, noted) = (Arc::clone(&peer), Arc::clone(&ended_with));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection to an origin failed");
                *noted.lock() = Some(error);
            }
            ends.end();
        });
        peer.settled().await;
        let now = Instant::now();
        Ok(Http2Connection {
            sender,
            peer,
            streams: AtomicU32::new(0),
            origin: ConnectionOrigin::new(address, now),
            last_used: Mutex::new(now),
            traffic,
            has_served: AtomicBool::new(false),
            window: send_window,
            ended_with,
        })
    }

    /// How many connections stand and carry nothing.
    pub(super) fn idle(&self) -> usize {
        let state = self.state.lock();
        let idle =
            |one: &&Arc<Http2Connection>| one.streams.load(Relaxed) == 0 && !one.sender.is_closed();
        state.connections.iter().filter(idle).count()
    }

    /// Closes connections that have carried nothing for too long.
    pub(super) fn close_unused(&self, now: Instant) {
        let idle = self.limits.idle;
        let mut state = self.state.lock();
        // A connection ends when nobody can send on it and its last stream has ended.
        state.connections.retain(|one| {
            let unused = one.streams.load(Relaxed) == 0
                && now.saturating_duration_since(*one.last_used.lock()) >= idle;
            self.admits(one) && !unused
        });
    }

    /// Whether the connection may take one more request.
    fn admits(&self, connection: &Http2Connection) -> bool {
        connection.stands()
            && self
                .wanted
                .admit(connection.origin, self.limits, Instant::now())
    }

    /// Closes connections without a stream.
    pub(super) fn close_idle(&self) {
        let mut state = self.state.lock();
        let connections = &mut state.connections;
        connections.retain(|one| one.streams.load(Relaxed) > 0);
    }
}

impl Drop for OpeningCount<'_> {
    fn drop(&mut self) {
        self.0.state.lock().opening -= 1;
        self.0.opened.notify_waiters();
    }
}

impl Drop for WaitingCount<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

impl LaneState {
    /// Takes a stream of a connection that has one left, and forgets those that take no more
    /// requests.
    fn free_stream(
        &mut self,
        lane: &Http2Lane,
        content: StreamContent,
    ) -> Option<Http2StreamPermit> {
        self.connections.retain(|one| lane.admits(one));
        let takes =
            |one: &&Arc<Http2Connection>| content == StreamContent::Head || one.window.is_open();
        let mut connections = self.connections.iter().filter(takes);
        connections.find_map(|one| one.reserve(lane.limits.max_streams))
    }
}

impl Http2Connection {
    fn stands(&self) -> bool {
        !self.sender.is_closed() && !self.peer.is_going_away()
    }

    /// How far a request has got on a connection that has ended and had served before.
    fn progress_since(&self, before: TrafficMark) -> RequestProgress {
        let (has_read, has_written) = (
            self.traffic.has_read_since(before),
            self.traffic.has_written_since(before),
        );
        match (has_read, has_written) {
            (true, _) => RequestProgress::Unknown,
            (false, true) => RequestProgress::ClosedWhileIdle,
            (false, false) => RequestProgress::NotProcessed,
        }
    }

    /// How far a request has got of which the origin has processed nothing, because the connection
    /// ended or is about to. An origin that has answered on it ends it in order; another one may take
    /// nothing at all.
    fn progress_unprocessed(&self) -> RequestProgress {
        match self.has_served.load(Relaxed) {
            true => RequestProgress::NotProcessed,
            false => RequestProgress::Refused,
        }
    }

    /// Takes a stream as soon as the origin allows one.
    ///
    /// # Errors
    /// When the connection ends before that.
    async fn first_stream(self: &Arc<Self>, most: u32) -> Result<Http2StreamPermit, SendError> {
        loop {
            let changed = self.peer.changed();
            if !self.stands() {
                return Err(SendError::of_http2_start(self.ended_with.lock().take()));
            }
            if let Some(permit) = self.reserve(most) {
                return Ok(permit);
            }
            changed.await;
        }
    }

    /// Takes a stream, if one is free.
    fn reserve(self: &Arc<Self>, most: u32) -> Option<Http2StreamPermit> {
        let most = most.min(self.peer.max_streams());
        let taken = self.streams.fetch_update(Relaxed, Relaxed, |streams| {
            (streams < most).then_some(streams + 1)
        });
        taken.ok().map(|_| Http2StreamPermit(Arc::clone(self)))
    }
}

impl Http2StreamPermit {
    /// Sends a request. The body gives the stream back when it ends.
    pub(super) async fn send(
        self,
        mut request: Request<Body>,
        target: &OriginTarget,
    ) -> Result<Response<OriginBody>, SendFailure> {
        *request.version_mut() = Version::HTTP_2;
        name_target(&mut request, target).map_err(|error| SendFailure {
            error: SendError::Host(error),
            progress: RequestProgress::Unknown,
        })?;
        let mut sender = self.0.sender.clone();
        let before = self.0.traffic.mark();
        let has_served = self.0.has_served.load(Relaxed);
        match sender.try_send_request(request).await {
            Ok(response) => {
                self.0.has_served.store(true, Relaxed);
                Ok(response.map(|body| OriginBody::http2(body, self)))
            }
            Err(failed) => {
                let unsent = failed.message().is_some();
                let error = failed.into_error();
                let progress = match refusal(&error) {
                    _ if unsent => self.0.progress_unprocessed(),
                    Some(StreamRefusal::Stream) => RequestProgress::Refused,
                    Some(StreamRefusal::Connection) => self.0.progress_unprocessed(),
                    None if has_served && is_end_of_connection(&error) => {
                        self.0.progress_since(before)
                    }
                    None => RequestProgress::Unknown,
                };
                let error = match progress {
                    RequestProgress::Refused if unsent => SendError::EndedAtOnce(Some(error)),
                    _ => SendError::Http2(error),
                };
                Err(SendFailure { error, progress })
            }
        }
    }
}

impl Drop for Http2StreamPermit {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
        *self.0.last_used.lock() = Instant::now();
    }
}

/// The connection was not open in time.
fn took_too_long() -> SendError {
    SendError::Connect(io::ErrorKind::TimedOut.into())
}

/// What of it the origin has not processed, if it has said so: it refused the stream (RFC 9113 §8.7),
/// or the stream is above the last one that its GOAWAY names (§6.8), which h2 ends with that GOAWAY,
/// and no other.
fn refusal(error: &hyper::Error) -> Option<StreamRefusal> {
    let error = http2_error(error).filter(|error| error.is_remote())?;
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    match refused {
        true => Some(StreamRefusal::Stream),
        false => error.is_go_away().then_some(StreamRefusal::Connection),
    }
}

/// Whether the connection has ended, and not a stream of it by a word of the origin.
fn is_end_of_connection(error: &hyper::Error) -> bool {
    let source = error.source();
    // hyper takes such errors out of those of h2.
    error.is_closed() || error.is_canceled() || source.is_some_and(<dyn StdError>::is::<io::Error>)
}

/// Sets scheme and authority. HTTP/2 carries `Host` in `:authority`, and not twice (RFC 9113
/// §8.3.1).
fn name_target(request: &mut Request<Body>, target: &OriginTarget) -> Result<(), http::Error> {
    let host = request.headers_mut().remove(HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(target.scheme());
    parts.authority = Some(match host {
        Some(host) => Authority::try_from(host.as_bytes())?,
        None => target.authority.clone(),
    });
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(())
}
