//! The two bodies of an exchange: the one that is sent, and the one that is received.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, timeout, timeout_at};

use super::admission::AdmissionPermit;
use super::pool::body::OriginBody;
use super::target::InFlightRequest;
use crate::http::body::{Body, BodyError, BoundedBody, LastMove};
use crate::http::memory::{self, ConnectionMemory, PROCESS};

/// The progress of a request's upload. `None` if the request has no body.
#[derive(Clone)]
pub(super) struct OriginUploadState(Option<RequestUpload>);

/// A request body that is being sent.
#[derive(Clone)]
pub(super) struct RequestUpload {
    pub(super) moved: LastMove,
    ended: Arc<AtomicBool>,
}

/// A request body that records when it moves.
struct TrackedRequestBody {
    body: Body,
    upload: RequestUpload,
}

/// What an exchange takes up until its response ends: a place among `max_concurrent`, and its part
/// of the target's load.
pub(super) type ExchangePlace = (AdmissionPermit, InFlightRequest);

/// A response body that holds a place among `max_concurrent`. Its pieces are counted as memory
/// until they are dropped.
pub(super) struct AdmittedBody {
    body: BoundedBody<OriginBody>,
    place: Option<ExchangePlace>,
    /// The account of the connection that it is loaded for.
    memory: Option<Arc<ConnectionMemory>>,
}

/// Makes the request's body record when it moves.
pub(super) fn watched(request: Request<Body>) -> (Request<Body>, OriginUploadState) {
    if request.body().is_empty() {
        return (request, OriginUploadState(None));
    }
    let upload = RequestUpload {
        moved: LastMove::now(),
        ended: Arc::default(),
    };
    let noted = upload.clone();
    let request = request.map(|body| {
        Body::boxed(TrackedRequestBody {
            body,
            upload: noted,
        })
    });
    (request, OriginUploadState(Some(upload)))
}

impl OriginUploadState {
    /// Waits for the head of the response. It may take `limit` from the moment that the request was
    /// sent, so that a long upload does not count as a slow origin. `None` if it took longer. The
    /// future, which is large, stays where the caller has pinned it.
    pub(super) async fn limit<F: Future>(
        &self,
        mut head: Pin<&mut F>,
        limit: Duration,
    ) -> Option<F::Output> {
        let Some(RequestUpload { moved, .. }) = &self.0 else {
            return timeout(limit, head).await.ok();
        };
        loop {
            let deadline = moved.at() + limit;
            if let Ok(output) = timeout_at(deadline, head.as_mut()).await {
                return Some(output);
            }
            if moved.at() + limit <= Instant::now() {
                return None;
            }
        }
    }

    /// Whether the request body is still being sent.
    pub(super) fn is_under_way(&self) -> bool {
        let upload = self.0.as_ref();
        upload.is_some_and(|upload| !upload.ended.load(Relaxed))
    }

    /// The request body, if it is still being sent.
    pub(super) fn under_way(self) -> Option<RequestUpload> {
        self.0.filter(|upload| !upload.ended.load(Relaxed))
    }
}

impl http_body::Body for TrackedRequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(frame) = &frame {
            self.upload.moved.note();
            if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
                self.upload.ended.store(true, Relaxed);
            }
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

impl Drop for TrackedRequestBody {
    fn drop(&mut self) {
        self.upload.ended.store(true, Relaxed);
    }
}

impl AdmittedBody {
    pub(super) fn new(
        body: BoundedBody<OriginBody>,
        place: ExchangePlace,
        memory: Option<Arc<ConnectionMemory>>,
    ) -> Self {
        Self {
            body,
            place: Some(place),
            memory,
        }
    }
}

impl http_body::Body for AdmittedBody {
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
