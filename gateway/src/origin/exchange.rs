//! The two bodies of an exchange: the one that is sent, and the one that comes back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::Place;
use crate::http::body::{Body, BodyError, Bounded};
use crate::http::memory::{self, ConnectionMemory, PROCESS};

/// When the request last moved; `None` for a request that has no body to wait for.
pub(super) struct Sending(Option<Arc<Mutex<Instant>>>);

/// A request body that notes when it moves.
struct Noted {
    body: Body,
    moved: Arc<Mutex<Instant>>,
}

/// A response body that holds a place among `max_concurrent`, and whose pieces are counted
/// until they are dropped.
pub(super) struct Held {
    body: Bounded<Incoming>,
    place: Option<Place>,
    /// Of the connection that it is loaded for.
    memory: Option<Arc<ConnectionMemory>>,
}

/// Makes the request's body note when it moves.
pub(super) fn watched(request: Request<Body>) -> (Request<Body>, Sending) {
    if request.body().is_empty() {
        return (request, Sending(None));
    }
    let moved = Arc::new(Mutex::new(Instant::now()));
    let noted = Arc::clone(&moved);
    let request = request.map(|body| Body::boxed(Noted { body, moved: noted }));
    (request, Sending(Some(moved)))
}

impl Sending {
    /// Waits for the head of the response, which may take `limit` from the moment that
    /// the request was sent; a long upload is not a slow origin. `None` when it took longer.
    pub(super) async fn limit<F: Future>(self, head: F, limit: Duration) -> Option<F::Output> {
        let Some(moved) = self.0 else {
            return timeout(limit, head).await.ok();
        };
        let mut head = std::pin::pin!(head);
        loop {
            let deadline = *moved.lock() + limit;
            if let Ok(output) = timeout_at(deadline, head.as_mut()).await {
                return Some(output);
            }
            if *moved.lock() + limit <= Instant::now() {
                return None;
            }
        }
    }
}

impl http_body::Body for Noted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            *self.moved.lock() = Instant::now();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Held {
    pub(super) fn new(
        body: Bounded<Incoming>,
        place: Place,
        memory: Option<Arc<ConnectionMemory>>,
    ) -> Self {
        Self {
            body,
            place: Some(place),
            memory,
        }
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if self.body.is_end_stream() || matches!(frame, Poll::Ready(None)) {
            self.place = None;
        }
        let memory = self.memory.as_ref();
        frame.map_ok(|frame| frame.map_data(|data| memory::claim(data, &PROCESS, memory)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
