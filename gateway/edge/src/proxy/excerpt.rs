//! A range of what only one client gets. Loads ask for the whole, which others might have
//! shared; where nobody else may have it, the range is cut from what arrives, or the origin is
//! asked again for the range alone. So the origin sends no more than the client gets and
//! [`READ_AHEAD`], and what lies in the buffers of one connection.

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{Method, Response, StatusCode};
use http_body::Body as _;

use crate::http::body::{Body, Excerpt};
use crate::http::range;
use crate::proxy::context::Ask;
use crate::proxy::respond::{self, Special};

/// Octets before a range that are taken from the origin and thrown away at most.
pub const READ_AHEAD: u64 = 256 << 10;

/// What becomes of an answer that one client gets.
#[allow(
    clippy::large_enum_variant,
    reason = "it is looked at once, where it is made"
)]
pub enum Excerpted {
    /// This goes to the client.
    Response(Response<Body>),
    /// The range lies too far behind in what arrives: it is to be asked for by itself.
    TooFar,
}

/// Cuts the range that is asked for from the whole that answers a load.
pub fn of_load(ask: &Ask, response: Response<Body>) -> Excerpted {
    let may_ask = ask.route.loader.is_none() && ask.route.origin.is_some();
    match wanted(ask, &response) {
        Special::Part(first, _) if first > READ_AHEAD && may_ask => Excerpted::TooFar,
        Special::Parts(_) if may_ask => Excerpted::TooFar,
        Special::Whole if may_ask && is_of_unknown_length(ask, &response) => Excerpted::TooFar,
        wanted => Excerpted::Response(cut(response, &wanted)),
    }
}

/// Cuts the range from the whole that answers a request which asked the origin for the range,
/// where that costs the origin no more than it costs to send the whole on.
pub fn of_passed(ask: &Ask, response: Response<Body>) -> Response<Body> {
    match wanted(ask, &response) {
        Special::Part(first, _) if first > READ_AHEAD && ask.route.loader.is_none() => response,
        wanted => cut(response, &wanted),
    }
}

fn wanted(ask: &Ask, response: &Response<Body>) -> Special {
    if ask.parts.method != Method::GET || !ask.parts.headers.contains_key(RANGE) {
        return Special::Whole;
    }
    let length = response.body().size_hint().exact();
    respond::special(&ask.parts, response.status(), response.headers(), length)
}

/// Whether an origin that knows ranges has not said how long the whole is.
fn is_of_unknown_length(ask: &Ask, response: &Response<Body>) -> bool {
    let units = response.headers().get(ACCEPT_RANGES);
    response.status() == StatusCode::OK
        && response.body().size_hint().exact().is_none()
        && units.is_some_and(|units| units.as_bytes().eq_ignore_ascii_case(b"bytes"))
        && range::is_single(&ask.parts.headers)
}

fn cut(response: Response<Body>, wanted: &Special) -> Response<Body> {
    match *wanted {
        Special::Part(first, last) => {
            let length = response.body().size_hint().exact();
            let mut part = response.map(|body| Body::boxed(Excerpt::new(body, first, last)));
            *part.status_mut() = StatusCode::PARTIAL_CONTENT;
            let headers = part.headers_mut();
            headers.insert(CONTENT_RANGE, range::content_range(first, last, length));
            headers.insert(CONTENT_LENGTH, (last - first + 1).into());
            part
        }
        Special::Unsatisfiable(length) => respond::unsatisfiable(length),
        Special::Whole | Special::NotModified | Special::Parts(_) => response,
    }
}
