//! From hyper to the handler and back: guard, body, panic.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::activity::InFlight;
use super::{Early, Entered, Limits, Peer};
use crate::http::body::{Body, BodyError, Bounded};
use crate::http::forward::{self, Belief, Caller, Trust};
use crate::http::frames::Fragments;
use crate::http::guard::framing::Fault;
use crate::http::guard::{self, Refusal};

/// What answers the requests of one connection.
pub(super) struct Service<H> {
    pub(super) handler: H,
    pub(super) peer: Peer,
    pub(super) limits: Arc<Limits>,
    pub(super) trust: Arc<Trust>,
    pub(super) early: Early,
    /// Paths that came with a fragment over HTTP/2.
    pub(super) fragments: Arc<Fragments>,
}

/// A response's body that is under way until it is dropped.
///
/// An error of it waits for one turn of the connection: hyper drops what it has not written
/// yet, and a client that sees neither head nor bytes can't tell a cut answer from none.
pub(super) struct Served {
    body: Body,
    in_flight: InFlight,
    error: Option<BodyError>,
}

impl<H, F> Service<H>
where
    H: Fn(Request<Body>, Entered, &Early) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    pub(super) fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Served>, Infallible>> + Send + use<H, F> {
        let in_flight = InFlight::begin(&self.early.0);
        let peer = self.peer;
        let version = request.version();
        let admitted = match self.early.0.fault() {
            None if self.fragments.take(request.uri()) => Err(guard::broken(Fault::Fragment)),
            None => self.admit(request),
            Some(fault) => Err(guard::broken(fault)),
        };
        let called = match admitted {
            // The call itself may panic as well as its future.
            Ok((request, entered)) => catch_unwind(AssertUnwindSafe(|| {
                (self.handler)(request, entered, &self.early)
            }))
            .map_err(|_| panicked(peer)),
            Err(refusal) => Err(refused(refusal, version)),
        };
        async move {
            let response = match called {
                Ok(answer) => AssertUnwindSafe(answer)
                    .catch_unwind()
                    .await
                    .unwrap_or_else(|_| panicked(peer)),
                Err(response) => response,
            };
            in_flight.answered();
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                in_flight.tunnel();
            }
            Ok(response.map(|body| Served {
                body,
                in_flight,
                error: None,
            }))
        }
    }

    /// Passes a request on with its head made one and its body under the limits, or not at all.
    fn admit(&self, mut request: Request<Incoming>) -> Result<(Request<Body>, Entered), Refusal> {
        let limits = &self.limits;
        guard::check(&request, limits)?;
        let version = request.version();
        let belief = match self.peer.trusted {
            true => Belief::Proxy(&self.trust),
            false => Belief::Nothing,
        };
        // There is no TLS on listeners.
        let direct = Caller::direct(self.peer.address, "http");
        let (received, named) = forward::receive(request.headers_mut(), version, direct, belief);
        let request = request.map(|incoming| {
            if incoming.is_end_stream() {
                return Body::empty();
            }
            let (size, pause) = (limits.max_body_bytes.0, limits.body_timeout.0);
            let body = Bounded::new(incoming, size, pause)
                .with_marked_end(version == Version::HTTP_2)
                .without_trailers(named)
                .at_pace(limits.pace())
                .within(limits.upload_timeout.0);
            Body::boxed(body)
        });
        let peer = self.peer;
        Ok((request, Entered { peer, received }))
    }
}

fn refused(refusal: Refusal, version: Version) -> Response<Body> {
    tracing::debug!(
        status = refusal.status.as_u16(),
        reason = refusal.reason,
        "request refused"
    );
    let mut response = plain(refusal.status, refusal.reason);
    // Where the next request begins is in doubt. A stream of HTTP/2 ends by itself.
    if version != Version::HTTP_2 {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn panicked(peer: Peer) -> Response<Body> {
    tracing::error!(client = %peer.address, "the handler of a request panicked");
    plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("{text}\n")));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

impl http_body::Body for Served {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        this.in_flight.asked();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                this.error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => {
                if matches!(frame, Poll::Ready(Some(Ok(_)))) {
                    this.in_flight.handed();
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
