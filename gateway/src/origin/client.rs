//! The connections to an upstream's targets.
//!
//! Decision: hyper-util's pooled client, one per worker thread ("lane"): a connection's
//! task lives on the runtime that opened it, so a pool shared by the workers would send
//! most misses across threads and back. hyper drops an idle connection on which stray
//! bytes arrive, and gives back a request that a closed one could not begin to send.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;

use http::header::HOST;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::config::Upstream;
use crate::http::body::Body;
use crate::http::config::Protocol;

/// What the client fails with.
pub(super) type SendError = Error;

/// Header fields of a response.
const MAX_HEADERS: usize = 256;
/// Bytes of a response's head, and what is read ahead of a slow reader.
const BUFFER: usize = 256 << 10;

/// One pooled client a lane.
pub(super) struct Clients {
    lanes: Vec<Client<HttpConnector, Body>>,
    protocol: Protocol,
}

static NEXT_LANE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The lane of this thread. Two threads in one lane share a pool, which is right too.
    static LANE: Cell<usize> = Cell::new(NEXT_LANE.fetch_add(1, Relaxed));
}

impl Clients {
    pub(super) fn new(upstream: &Upstream) -> Self {
        let count = available_parallelism().map_or(1, usize::from);
        let lanes = (0..count).map(|_| client(upstream, count)).collect();
        Self {
            lanes,
            protocol: upstream.protocol,
        }
    }

    /// The version that a request to this upstream must have.
    pub(super) fn version(&self) -> Version {
        match self.protocol {
            Protocol::Http1 => Version::HTTP_11,
            Protocol::Http2 => Version::HTTP_2,
        }
    }

    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, SendError> {
        if self.protocol == Protocol::Http2 {
            // HTTP/2 says it in :authority, which a Host may not contradict (RFC 9113 §8.3.1).
            request.headers_mut().remove(HOST);
        }
        let lane = LANE.with(Cell::get) % self.lanes.len();
        self.lanes[lane].request(request).await
    }
}

fn client(upstream: &Upstream, lanes: usize) -> Client<HttpConnector, Body> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(upstream.timeouts.connect.0));
    let idle = match upstream.pool.max_idle {
        0 => 0,
        all => (all / lanes).max(1),
    };
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(upstream.pool.idle_timeout.0)
        .pool_max_idle_per_host(idle)
        .set_host(false)
        .http1_max_headers(MAX_HEADERS)
        .http1_max_buf_size(BUFFER)
        .http2_only(upstream.protocol == Protocol::Http2)
        .build(connector)
}
