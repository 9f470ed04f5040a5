//! gRPC calls: errors of ours are told in the fields that gRPC clients read, and not only in the
//! HTTP status (the gRPC protocol over HTTP/2, "Responses").
//!
//! [`AnswerDialect`] is the one place that knows how. The listener uses it for the requests that it
//! refuses, and `proxy` for every other error response of ours; answers of origins and plugins
//! pass as they are, and get a status of ours only where they break off.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BodyError, BodyStream};
use crate::media;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// In which form a client reads that its request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerDialect {
    /// By the HTTP status.
    Http,
    /// By `grpc-status`.
    Grpc,
}

/// The gRPC status codes that we use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GrpcStatusCode {
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// A body that ends with a gRPC status if it breaks off.
struct BodyWithGrpcStatus {
    body: BodyStream,
    ended: bool,
}

/// The status of a call, where it is among these fields: the trailers, or the head of an answer
/// without a body.
pub fn status(fields: &HeaderMap) -> Option<&HeaderValue> {
    fields.get(GRPC_STATUS)
}

/// How long the caller waits for its answer (`grpc-timeout`), if these are the fields of a call
/// that says so: up to eight digits and a unit. None also for what is malformed, or said twice.
pub fn call_timeout(headers: &HeaderMap) -> Option<Duration> {
    let mut lines = headers.get_all(GRPC_TIMEOUT).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    if !media::is_grpc(headers) {
        return None;
    }
    let (unit, digits) = line.as_bytes().split_last()?;
    let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let time = match unit {
        b'H' => Duration::from_secs(number * 3_600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    is_number.then_some(time)
}

impl AnswerDialect {
    /// The form for the client that sent a request with this head. gRPC needs trailers, so it is
    /// spoken from HTTP/2 on.
    pub fn of(version: Version, method: &Method, headers: &HeaderMap) -> Self {
        let is_call =
            version >= Version::HTTP_2 && *method == Method::POST && media::is_grpc(headers);
        match is_call {
            true => Self::Grpc,
            false => Self::Http,
        }
    }

    /// An error response of ours in this form. In that of gRPC it is a response with trailers only,
    /// which keeps its other fields. One about the connection, after which the client tries
    /// another connection (421), stays as it is.
    pub fn error(self, error: Response<Body>) -> Response<Body> {
        let status = error.status();
        if self == Self::Http || status == StatusCode::MISDIRECTED_REQUEST {
            return error;
        }
        let (mut parts, _) = error.into_parts();
        parts.status = StatusCode::OK;
        let kind = HeaderValue::from_static("application/grpc");
        parts.headers.insert(CONTENT_TYPE, kind);
        parts
            .headers
            .extend(trailers(GrpcStatusCode::of(status), status));
        Response::from_parts(parts, Body::empty())
    }

    /// An answer of an origin, which tells in this form if it breaks off.
    pub fn passed(self, response: Response<Body>) -> Response<Body> {
        match self {
            Self::Http => response,
            Self::Grpc => response.map(|body| match body {
                Body::Boxed(body) => Body::boxed(BodyWithGrpcStatus { body, ended: false }),
                whole => whole,
            }),
        }
    }
}

impl GrpcStatusCode {
    /// By the table of gRPC ("HTTP to gRPC Status Code Mapping"), save where we know more than
    /// that table assumes: deadlines of ours, and what was too large.
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Self::DeadlineExceeded,
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::ResourceExhausted,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::FORBIDDEN => Self::PermissionDenied,
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Self::Unimplemented,
            StatusCode::BAD_REQUEST
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::LOOP_DETECTED => Self::Internal,
            _ => Self::Unknown,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: Version, method: Method, kind: &'static str) -> AnswerDialect {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        AnswerDialect::of(version, &method, &headers)
    }

    #[test]
    fn a_call_is_a_post_of_its_kind_over_a_protocol_with_trailers() {
        let call = "application/grpc+proto";
        for version in [Version::HTTP_2, Version::HTTP_3] {
            assert_eq!(of(version, Method::POST, call), AnswerDialect::Grpc);
        }
        assert_eq!(
            of(Version::HTTP_11, Method::POST, call),
            AnswerDialect::Http
        );
        assert_eq!(of(Version::HTTP_2, Method::GET, call), AnswerDialect::Http);
        let web = "application/grpc-web";
        assert_eq!(of(Version::HTTP_2, Method::POST, web), AnswerDialect::Http);
    }

    #[test]
    fn a_call_says_how_long_it_waits() {
        let of = |kind, lines: &[&'static str]| {
            let lines = lines.iter().map(|line| HeaderValue::from_static(line));
            let mut headers: HeaderMap = lines.map(|line| (GRPC_TIMEOUT, line)).collect();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            call_timeout(&headers)
        };
        for (line, nanos) in [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("40m", Some(40_000_000)),
            ("50u", Some(50_000)),
            ("60n", Some(60)),
            ("99999999H", Some(359_999_996_400_000_000_000)),
            ("0S", Some(0)),
            ("100000000S", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("5 S", None),
            ("", None),
        ] {
            let seen = of("application/grpc", &[line]).map(|time| time.as_nanos());
            assert_eq!(seen, nanos, "{line:?}");
        }
        assert_eq!(of("application/grpc", &["1S", "2S"]), None);
        assert_eq!(of("application/json", &["1S"]), None);
        assert_eq!(of("application/grpc", &[]), None);
    }

    #[test]
    fn an_error_becomes_a_response_with_trailers_only() {
        for (status, code) in [
            (400, "13"),
            (404, "12"),
            (413, "8"),
            (429, "14"),
            (504, "4"),
        ] {
            let mut error = Response::new(Body::full("text"));
            *error.status_mut() = StatusCode::from_u16(status).unwrap();
            let told = AnswerDialect::Grpc.error(error);
            assert_eq!(told.status(), StatusCode::OK);
            assert_eq!(told.headers()["grpc-status"], code, "{status}");
            assert!(matches!(told.body(), Body::Empty));
        }
        let mut error = Response::new(Body::empty());
        *error.status_mut() = StatusCode::MISDIRECTED_REQUEST;
        let told = AnswerDialect::Grpc.error(error);
        assert_eq!(told.status(), StatusCode::MISDIRECTED_REQUEST);
    }
}
