//! The access log: one line a request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};

use crate::http::body::{Body, BodyError};
use crate::http::forward::Caller;
use crate::proxy::Served;
use crate::proxy::metrics::Outcome;
use crate::proxy::route::Route;
use crate::proxy::target::Refused;

/// Whether lines are written.
pub struct AccessLog {
    on: bool,
}

/// The number of the next line; no other line of the process has it.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What the request's head gave.
pub struct Line {
    id: u64,
    method: String,
    host: String,
    path: String,
    /// None: trusted proxies hide it.
    client: Option<IpAddr>,
    peer: SocketAddr,
    /// None: no route took it.
    route: Option<Arc<str>>,
    agent: String,
    /// Why it was refused, if its path was.
    reason: Option<String>,
}

/// A line that waits for the body's end.
struct Pending {
    line: Line,
    status: u16,
    outcome: Outcome,
    started: Instant,
    head: Duration,
    bytes: u64,
    complete: bool,
    /// How a gRPC call ended; its HTTP status says nothing of that.
    grpc_status: Option<String>,
}

impl AccessLog {
    pub fn new(on: bool) -> Self {
        Self { on }
    }

    /// Notes what is known now; nothing when the log is off.
    pub fn begin(
        &self,
        parts: &Parts,
        host: &str,
        route: Option<&Route>,
        caller: &Caller,
    ) -> Option<Line> {
        self.on.then(|| Line {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            method: parts.method.to_string(),
            host: host.to_owned(),
            path: parts
                .uri
                .path_and_query()
                .map_or("/", |p| p.as_str())
                .to_owned(),
            client: caller.client(),
            peer: caller.connected(),
            route: route.map(|route| Arc::clone(&route.name)),
            agent: header(parts, "user-agent"),
            reason: None,
        })
    }
}

/// Writes the line once the body is through: now, if it is here as a whole.
pub fn end(line: Option<Line>, served: Served, started: Instant) -> Response<Body> {
    let Served { response, outcome } = served;
    let Some(line) = line else { return response };
    let length = response.body().size_hint().exact();
    let whole = matches!(response.body(), Body::Empty | Body::Full(_));
    let status = response.status().as_u16();
    let mut pending = Pending {
        line,
        status,
        outcome,
        started,
        head: started.elapsed(),
        bytes: 0,
        complete: false,
        grpc_status: grpc_status(response.headers()),
    };
    if whole {
        pending.bytes = length.unwrap_or(0);
        pending.complete = true;
        return response;
    }
    response.map(|body| Body::boxed(Logged { body, pending }))
}

impl Line {
    /// The line of a request that is refused.
    pub fn because(self, refused: &Refused) -> Self {
        Self {
            reason: Some(refused.to_string()),
            ..self
        }
    }
}

/// Of a call: in the trailers, or in the head where nothing follows it.
fn grpc_status(fields: &HeaderMap) -> Option<String> {
    let status = fields.get("grpc-status")?;
    Some(String::from_utf8_lossy(status.as_bytes()).into_owned())
}

fn header(parts: &Parts, name: &str) -> String {
    parts.headers.get(name).map_or_else(String::new, |value| {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    })
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Self {
            line,
            status,
            outcome,
            started,
            head,
            bytes,
            complete,
            grpc_status,
        } = self;
        tracing::info!(
            target: "lamina::access",
            id = line.id,
            client = line.client.map(tracing::field::display),
            peer = %line.peer,
            method = line.method,
            host = line.host,
            path = line.path,
            route = line.route.as_deref().unwrap_or("-"),
            status,
            cache = outcome.as_str(),
            bytes,
            complete,
            grpc_status = grpc_status.as_deref(),
            head_us = head.as_micros() as u64,
            total_us = started.elapsed().as_micros() as u64,
            agent = line.agent,
            reason = line.reason.as_deref(),
            "request"
        );
    }
}

/// A streaming body that carries its line.
struct Logged {
    body: Body,
    pending: Pending,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = self.get_mut();
        let polled = std::pin::Pin::new(&mut me.body).poll_frame(cx);
        match &polled {
            std::task::Poll::Ready(Some(Ok(frame))) => {
                me.pending.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if let Some(trailers) = frame.trailers_ref() {
                    // Nothing follows them, and not everybody asks whether something does.
                    me.pending.complete = true;
                    let ended = grpc_status(trailers);
                    me.pending.grpc_status = ended.or(me.pending.grpc_status.take());
                }
            }
            std::task::Poll::Ready(None) => me.pending.complete = true,
            std::task::Poll::Ready(Some(Err(_))) | std::task::Poll::Pending => {}
        }
        // A body of known length may never be polled past its last byte.
        me.pending.complete |= me.body.size_hint().exact() == Some(0);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
