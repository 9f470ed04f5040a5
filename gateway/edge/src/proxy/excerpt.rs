//! A range of what only one client gets. Loads ask for the whole, which others might have
//! shared; where nobody else may have it, the range is cut from what arrives, or the origin is
//! asked again for the range alone. So the origin sends no more than the client gets and
//! [`READ_AHEAD`], and what lies in the buffers of one connection.

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{Method, Response, StatusCode};
use http_body::Body as _;

use crate::http::body::{Body, BodyExcerpt};
use crate::http::range;
use crate::proxy::context::RequestContext;
use crate::proxy::respond::{self, ConditionalOutcome};

/// Octets before a range that are taken from the origin and thrown away at most.
pub const READ_AHEAD: u64 = 256 << 10;

/// What becomes of an answer that one client gets.
#[allow(
    clippy::large_enum_variant,
    reason = "it is looked at once, where it is made"
)]
pub enum ExcerptOutcome {
    /// This goes to the client.
    Response(Response<Body>),
    /// The range lies too far behind in what arrives: it is to be asked for by itself.
    TooFar,
}

/// Cuts the range that is asked for from the whole that answers a load.
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

/// Cuts the range from the whole that answers a request which asked the origin for the range,
/// where that costs the origin no more than it costs to send the whole on.
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

/// Whether an origin that knows ranges has not said how long the whole is.
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
