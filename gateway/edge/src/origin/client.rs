//! The connections to an upstream's targets.
//!
//! Decision: there is one pool for each worker thread (a "lane"). The task of a connection runs on
//! the runtime that opened it, so with one pool for all workers most misses would go to another
//! thread and back. The pool for HTTP/1 is hyper-util's pooled client: it drops an idle connection
//! when stray bytes arrive on it, and sends a request again if a closed connection could not begin
//! to send it.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioTimer;
use tokio::select;
use tokio::task::yield_now;

use super::config::{OriginProtocol, UpstreamConfig};
use super::connect::{OriginConnector, SpareConnections, TlsByTarget};
use super::http2::{Http2Outcome, OriginHttp2Pool};
use super::response::{self, OriginInterimCounter};
use super::target::OriginTarget;
use super::tls::{OriginTlsError, SpokenProtocol};
use crate::http::body::Body;
use crate::http::fair::ShortTurns;

/// The most header fields of a response.
const MAX_HEADERS: usize = 256;
/// The most bytes of a response's head, and of a body that is read ahead of a slow reader.
const BUFFER: usize = 64 << 10;

/// The errors of the client; `error` turns them into an [`OriginError`](super::OriginError).
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("no response over HTTP/1")]
    Http1(#[source] Error),
    #[error("no response over HTTP/2")]
    Http2(#[source] hyper::Error),
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("no TLS connection")]
    Tls(#[source] OriginTlsError),
    #[error("no address")]
    Dns(#[source] io::Error),
    #[error("the Host is not a valid host and port")]
    Host(#[source] http::Error),
    #[error("the response is malformed: {0}")]
    Response(&'static str),
}

/// The pools, one for each lane.
pub(super) struct OriginClientPools {
    lanes: Vec<PoolLane>,
    protocol: OriginProtocol,
}

struct PoolLane {
    http1: Client<OriginConnector, Body>,
    http2: OriginHttp2Pool,
    spares: SpareConnections,
}

static NEXT_LANE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The lane of this thread. Two threads may use the same lane: then they share a pool, which is
    /// correct, too.
    static LANE: Cell<usize> = Cell::new(NEXT_LANE.fetch_add(1, Relaxed));
}

impl OriginClientPools {
    pub(super) fn new(upstream: &UpstreamConfig, tls: &TlsByTarget) -> Self {
        let count = available_parallelism().map_or(1, usize::from);
        let lane = |_| {
            let spares = SpareConnections::default();
            let limit = upstream.timeouts.connect.0;
            let connector = OriginConnector::new(Arc::clone(tls), spares.clone(), limit);
            PoolLane {
                http1: http1_client(upstream, count, connector),
                http2: OriginHttp2Pool::new(upstream),
                spares,
            }
        };
        Self {
            lanes: (0..count).map(lane).collect(),
            protocol: upstream.protocol,
        }
    }

    /// Sends a request whose URI and `Host` are set.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        target: &OriginTarget,
    ) -> Result<Response<Incoming>, SendError> {
        let lane = &self.lanes[LANE.with(Cell::get) % self.lanes.len()];
        let spoken = match (&target.tls, self.protocol) {
            (Some(tls), _) => tls.spoken(),
            (None, OriginProtocol::Http2) => SpokenProtocol::Http2,
            (None, OriginProtocol::Http1 | OriginProtocol::Auto) => SpokenProtocol::Http1,
        };
        // Only HTTP/1.1 can switch to another protocol.
        let switches = request.headers().contains_key(UPGRADE);
        let (request, spare) = match (spoken, self.protocol) {
            (SpokenProtocol::Http1, _) => (request, None),
            (_, OriginProtocol::Auto) if switches => (request, None),
            (SpokenProtocol::Http2 | SpokenProtocol::Unknown, _) => {
                match lane.http2.send(request, target).await? {
                    Http2Outcome::Answered(response) => return Ok(response),
                    Http2Outcome::SpeaksHttp1(returned) => {
                        let (request, stream) = *returned;
                        let spare = lane.spares.put(&target.authority, stream);
                        (request, Some(spare))
                    }
                }
            }
        };
        let response = by_http1(&lane.http1, request).await;
        drop(spare);
        response
    }
}

async fn by_http1(
    client: &Client<OriginConnector, Body>,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, SendError> {
    *request.version_mut() = Version::HTTP_11;
    // Yielding lets pending input be read first, so that a pooled connection that its origin has
    // closed is recognized: a request sent on it cannot always be sent again.
    yield_now().await;
    let upgrading = request.headers().contains_key(UPGRADE);
    if !request.body().is_empty() && !request.headers().contains_key(CONTENT_LENGTH) {
        // Without this, hyper would send a GET without its body.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    let interim = OriginInterimCounter::count(&mut request);
    let mut response = select! {
        biased;
        response = client.request(request) => response.map_err(SendError::Http1)?,
        // Dropping the response closes its connection.
        flood = interim.too_many() => return Err(flood),
    };
    response::check(&mut response, upgrading)?;
    Ok(response)
}

fn http1_client(
    upstream: &UpstreamConfig,
    lanes: usize,
    connector: OriginConnector,
) -> Client<OriginConnector, Body> {
    let idle = match upstream.pool.max_idle {
        0 => 0,
        all => (all / lanes).max(1),
    };
    Client::builder(ShortTurns)
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(upstream.pool.idle_timeout.0)
        .pool_max_idle_per_host(idle)
        .set_host(false)
        // These spaces are removed from the name (RFC 9112 §5.1).
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_max_headers(MAX_HEADERS)
        .http1_max_buf_size(BUFFER)
        .build(connector)
}
