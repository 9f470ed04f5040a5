//! The connections to one target: an idle HTTP/1.1 connection or a stream of an HTTP/2 connection
//! for each request.
//!
//! Decision: there is one set of connections for each worker thread (a "lane"), since a connection
//! belongs to the runtime that opened it: with one set for all workers most misses would wake
//! another thread and be woken by it. What is bounded is counted over all lanes.
//! The connections are hyper's (`hyper::client::conn`); which one a request goes over, how long
//! each is kept and what may be said of a failure is decided here. Neighbours: `connect` opens
//! them, `http1` and `http2` send over them, `body` gives them back.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;
use std::time::Instant;

use http::header::UPGRADE;
use http::{Request, Response};

use self::body::OriginBody;
use self::counts::ConnectionCounter;
pub(super) use self::counts::ConnectionCounts;
use self::endings::WantedAddresses;
use self::http1::Http1Connection;
use self::http2::{Http2Lane, ReservedStream, StreamContent};
use self::idle::IdleConnections;
use self::limits::PoolLimits;
use super::connect::open;
use super::error::SendError;
use super::target::{OriginTarget, WantedProtocol};
use super::tls::SpokenProtocol;
use crate::http::body::Body;

pub(super) mod body;
pub(super) mod counts;
mod endings;
mod http1;
mod http2;
mod idle;
pub(super) mod limits;

/// The connections to one target.
pub(super) struct TargetConnections {
    idle: Arc<IdleConnections>,
    http2: Box<[Http2Lane]>,
    counter: ConnectionCounter,
    limits: PoolLimits,
    wanted: Arc<WantedAddresses>,
}

/// Which connection a request may go over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConnectionChoice {
    /// One that stands already, or else a new one.
    Standing,
    /// A new one: one that stood before turned out to be closed.
    New,
    /// One that is opened for this request, which is the first on it: even an origin that closes
    /// each connection after one answer processes that one.
    Own,
}

/// Why a request has no answer, and what the origin may have done with it.
#[derive(Debug)]
pub(super) struct SendFailure {
    pub(super) error: SendError,
    pub(super) progress: RequestProgress,
}

/// How far a request that failed has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RequestProgress {
    /// There was no connection.
    NotConnected,
    /// The connection ended before anything of the request was sent, or the origin has said that
    /// it did not process it (RFC 9113 §6.8, §8.7).
    NotProcessed,
    /// The same of an origin that refused the stream, or the whole connection before it had
    /// answered anything: it may refuse whatever comes.
    Refused,
    /// A connection that had served before ended without a byte of an answer: the origin closed it
    /// while the request was on its way, as far as one can tell.
    ClosedWhileIdle,
    /// The origin may have processed it.
    Unknown,
}

static NEXT_LANE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The lane of this thread. Two threads may have the same: then they share its connections,
    /// which is correct, too.
    static LANE: Cell<usize> = Cell::new(NEXT_LANE.fetch_add(1, Relaxed));
}

impl TargetConnections {
    pub(super) fn new(limits: PoolLimits) -> Self {
        let lanes = available_parallelism().map_or(1, usize::from);
        let counter = ConnectionCounter::default();
        let wanted = Arc::<WantedAddresses>::default();
        let lane = |_| Http2Lane::new(limits, counter.clone(), Arc::clone(&wanted));
        Self {
            idle: Arc::new(IdleConnections::new(lanes, limits, Arc::clone(&wanted))),
            http2: (0..lanes).map(lane).collect(),
            counter,
            limits,
            wanted,
        }
    }

    /// Sends a request whose `Host` is set, and whose URI is a path.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        target: &OriginTarget,
        choice: ConnectionChoice,
    ) -> Result<Response<OriginBody>, SendFailure> {
        let lane = LANE.with(Cell::get) % self.http2.len();
        // Only HTTP/1.1 can switch to another protocol.
        let wanted = match request.headers().contains_key(UPGRADE) {
            true => WantedProtocol::Http1,
            false => WantedProtocol::Any,
        };
        // What a request on a standing HTTP/1.1 connection does not need is in boxes: the future of
        // every request would grow by it.
        let mut opened = None;
        if target.spoken(wanted) != SpokenProtocol::Http1 {
            let content = match request.body().is_empty() {
                true => StreamContent::Head,
                false => StreamContent::HeadAndBody,
            };
            let reserved = Box::pin(self.http2[lane].reserve(target, choice, content)).await;
            match reserved.map_err(no_stream)? {
                ReservedStream::Http2(stream) => {
                    return Box::pin(stream.send(request, target)).await;
                }
                ReservedStream::OpenedForHttp1(stream) => {
                    opened = Some(Http1Connection::begin(*stream, lane).await?);
                }
                // Another request has found out.
                ReservedStream::SpeaksHttp1 => {}
            }
        }
        if opened.is_none() && choice == ConnectionChoice::Standing {
            opened = self.idle.take(lane).await;
        }
        let connection = match opened {
            Some(connection) => connection,
            None => Box::pin(self.open_http1(target, lane)).await?,
        };
        connection.send(request, &self.idle).await
    }

    /// Opens a connection for HTTP/1.1.
    async fn open_http1(
        &self,
        target: &OriginTarget,
        lane: usize,
    ) -> Result<Http1Connection, SendFailure> {
        let opened = open(target, WantedProtocol::Http1, self.limits.connect).await;
        let (stream, _) = opened.map_err(no_stream)?;
        let stream = stream.counted(self.counter.count());
        Http1Connection::begin(stream, lane).await
    }

    /// How many connections stand.
    pub(super) fn counts(&self) -> ConnectionCounts {
        let http2 = self.http2.iter().map(Http2Lane::idle);
        let idle = self.idle.count() + http2.sum::<usize>();
        let standing = self.counter.standing();
        // One that has just ended may still be among the idle ones.
        ConnectionCounts {
            active: standing.saturating_sub(idle),
            idle: idle.min(standing),
        }
    }

    /// Closes connections that were idle for too long or that the origin has closed.
    pub(super) fn close_unused(&self, now: Instant) {
        self.idle.close_unused(now);
        for lane in &self.http2 {
            lane.close_unused(now);
        }
    }

    /// Uses connections to these addresses alone. Requests on others end; then they are closed.
    pub(super) fn keep_only(&self, addresses: Vec<IpAddr>) {
        if self.wanted.replace(addresses) {
            self.close_unused(Instant::now());
        }
    }

    /// Uses no connection any more. Requests under way end; then they are closed.
    pub(super) fn retire(&self) {
        self.keep_only(Vec::new());
    }

    /// Closes all connections that no request uses.
    pub(super) fn close_idle(&self) {
        self.idle.close_all();
        for lane in &self.http2 {
            lane.close_idle();
        }
    }
}

fn no_stream(error: SendError) -> SendFailure {
    let progress = match error {
        SendError::EndedAtOnce(_) => RequestProgress::Refused,
        _ => RequestProgress::NotConnected,
    };
    SendFailure { error, progress }
}
