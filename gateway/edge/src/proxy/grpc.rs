//! gRPC calls: errors are reported in the fields that gRPC clients read, and not only in the HTTP
//! status (the gRPC protocol over HTTP/2, "Responses").
//!
//! `pass` uses it for the answer to a call that failed before its head, and wraps
//! [`told_in_trailers`] around the body of an answer that may fail later.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::body::{Body, BodyError, BodyStream};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The gRPC status codes that we use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GrpcStatusCode {
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Internal = 13,
    Unavailable = 14,
}

/// A body that ends with a gRPC status if it breaks off.
struct BodyWithGrpcStatus {
    body: BodyStream,
    ended: bool,
}

/// Turns an error response of ours into one that has its status in `grpc-status` (a response with
/// trailers only), and keeps its other fields.
pub fn failed(error: Response<Body>) -> Response<Body> {
    let status = error.status();
    let (mut parts, _) = error.into_parts();
    parts.status = StatusCode::OK;
    let kind = HeaderValue::from_static("application/grpc");
    parts.headers.insert(CONTENT_TYPE, kind);
    parts
        .headers
        .extend(trailers(GrpcStatusCode::of(status), status));
    Response::from_parts(parts, Body::empty())
}

/// Wraps an answer so that its trailers report the error if it breaks off.
pub fn told_in_trailers(response: Response<Body>) -> Response<Body> {
    response.map(|body| match body {
        Body::Boxed(body) => Body::boxed(BodyWithGrpcStatus { body, ended: false }),
        whole => whole,
    })
}

impl GrpcStatusCode {
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Self::DeadlineExceeded,
            StatusCode::PAYLOAD_TOO_LARGE => Self::ResourceExhausted,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            _ => Self::Internal,
        }
    }
}

fn trailers(code: GrpcStatusCode, status: StatusCode) -> HeaderMap {
    // Plain ASCII needs no percent-encoding.
    let message = status.canonical_reason().unwrap_or("error");
    HeaderMap::from_iter([
        (GRPC_STATUS, HeaderValue::from(code as u16)),
        (GRPC_MESSAGE, HeaderValue::from_static(message)),
    ])
}

impl HttpBody for BodyWithGrpcStatus {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.body.as_mut().poll_frame(cx));
        let Some(Err(error)) = frame else {
            return Poll::Ready(frame);
        };
        self.ended = true;
        tracing::debug!(%error, "the answer to a gRPC call broke off");
        let status = match error {
            BodyError::Timeout => StatusCode::GATEWAY_TIMEOUT,
            BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Aborted | BodyError::Transport(_) => StatusCode::BAD_GATEWAY,
        };
        let told = trailers(GrpcStatusCode::of(status), status);
        Poll::Ready(Some(Ok(Frame::trailers(told))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
