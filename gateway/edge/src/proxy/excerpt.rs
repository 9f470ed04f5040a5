//! A range of an answer that only one client gets. Loads ask for the whole, because others might
//! share it. If nobody else may have the answer, the range is cut out of the whole as it arrives,
//! or the origin is asked again for the range alone. So the origin sends no more than what the
//! client gets, plus [`READ_AHEAD`] and the content of one connection's buffers.

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{Method, Response, StatusCode};
use http_body::Body as _;

use crate::http::body::{Body, BodyExcerpt};
use crate::http::range;
use crate::proxy::context::RequestContext;
use crate::proxy::respond::{self, ConditionalOutcome};

/// The most octets before a range that are read from the origin and discarded.
pub const READ_AHEAD: u64 = 256 << 10;

/// What becomes of an answer for one client.
#[allow(
    clippy::large_enum_variant,
    reason = "it is looked at once, where it is made"
)]
pub enum ExcerptOutcome {
    /// This response goes to the client.
    Response(Response<Body>),
    /// The range begins too far behind the start of the body: it must be requested by itself.
    TooFar,
}

/// Cuts the requested range out of the whole that a load received.
pub fn of_load(ask: &RequestContext, response: Response<Body>) -> ExcerptOutcome {
    let may_ask = ask.route.loader.is_none() && ask.route.origin.is_some();
    match wanted(ask, &response) {
        ConditionalOutcome::Part(first, _) if first > READ_AHEAD && may_ask => {
            ExcerptOutcome::TooFar
        }
        ConditionalOutcome::Parts(_) if may_ask => ExcerptOutcome::TooFar,
        ConditionalOutcome::Whole if may_ask && is_of_unknown_length(ask, &response) => {
            ExcerptOutcome::TooFar
        }
        wanted => ExcerptOutcome::Response(cut(response, &wanted)),
    }
}

/// Cuts the range out of a whole response to a request that asked the origin for the range, if that
/// costs the origin no more than sending the whole to the client would.
pub fn of_passed(ask: &RequestContext, response: Response<Body>) -> Response<Body> {
    match wanted(ask, &response) {
        ConditionalOutcome::Part(first, _) if first > READ_AHEAD && ask.route.loader.is_none() => {
            response
        }
        wanted => cut(response, &wanted),
    }
}

fn wanted(ask: &RequestContext, response: &Response<Body>) -> ConditionalOutcome {
    if ask.parts.method != Method::GET || !ask.parts.headers.contains_key(RANGE) {
        return ConditionalOutcome::Whole;
    }
    let length = response.body().size_hint().exact();
    respond::special(&ask.parts, response.status(), response.headers(), length)
}

/// Whether an origin that supports ranges has not said how long the whole is.
fn is_of_unknown_length(ask: &RequestContext, response: &Response<Body>) -> bool {
    let units = response.headers().get(ACCEPT_RANGES);
    response.status() == StatusCode::OK
        && response.body().size_hint().exact().is_none()
        && units.is_some_and(|units| units.as_bytes().eq_ignore_ascii_case(b"bytes"))
        && range::is_single(&ask.parts.headers)
}

fn cut(response: Response<Body>, wanted: &ConditionalOutcome) -> Response<Body> {
    match *wanted {
        ConditionalOutcome::Part(first, last) => {
            let length = response.body().size_hint().exact();
            let mut part = response.map(|body| Body::boxed(BodyExcerpt::new(body, first, last)));
            *part.status_mut() = StatusCode::PARTIAL_CONTENT;
            let headers = part.headers_mut();
            headers.insert(CONTENT_RANGE, range::content_range(first, last, length));
            headers.insert(CONTENT_LENGTH, (last - first + 1).into());
            part
        }
        ConditionalOutcome::Unsatisfiable(length) => respond::unsatisfiable(length),
        ConditionalOutcome::Whole
        | ConditionalOutcome::NotModified
        | ConditionalOutcome::Parts(_) => response,
    }
}
