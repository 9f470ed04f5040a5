//! The parts of HTTP that the pages need: headers, validators, 304.

use std::time::SystemTime;

use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use lamina_http::body::Body;

/// A request as the pages see it.
pub(super) struct DemoRequest {
    /// The number of this request among all requests of the process, from 1.
    pub(super) number: u64,
    pub(super) now: SystemTime,
    pub(super) head: Parts,
}

/// The validators of a page.
pub(super) struct Validators {
    /// The entity tag, with its quotes.
    pub(super) etag: String,
    pub(super) modified: SystemTime,
}

impl DemoRequest {
    /// A parameter of the query, if it is a number.
    pub(super) fn number_in_query(&self, name: &str) -> Option<u64> {
        let pairs = self.head.uri.query()?.split('&');
        let mut values = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        values.next()?.parse().ok()
    }

    /// A request header, if it is text.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }
}

impl Validators {
    /// Whether the client's copy is still valid. If there is an If-None-Match, it decides alone
    /// (RFC 9110 §13.2.2).
    fn unchanged(&self, asked: &DemoRequest) -> bool {
        if let Some(known) = asked.header(IF_NONE_MATCH) {
            let mut tags = known
                .split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"));
            return tags.any(|tag| tag == "*" || tag == self.etag);
        }
        let since = asked
            .header(IF_MODIFIED_SINCE)
            .and_then(|date| httpdate::parse_http_date(date).ok());
        // A date has only whole seconds, so the date that was sent is compared.
        let sent = httpdate::parse_http_date(&httpdate::fmt_http_date(self.modified)).ok();
        matches!((since, sent), (Some(since), Some(sent)) if sent <= since)
    }
}

pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

pub(super) fn text(status: StatusCode, content: impl Into<String>) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", content.into())
}

pub(super) fn html(content: String) -> Response<Body> {
    with_type(StatusCode::OK, "text/html; charset=utf-8", content)
}

pub(super) fn json(content: String) -> Response<Body> {
    with_type(StatusCode::OK, "application/json", content)
}

fn with_type(status: StatusCode, kind: &'static str, content: String) -> Response<Body> {
    let mut response = empty(status);
    *response.body_mut() = Body::full(content);
    set(&mut response, CONTENT_TYPE, kind);
    response
}

/// Sets a header. A value that cannot be a header value (from an odd page name) is left out.
pub(super) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Makes a response cacheable, and a 304 if the client's copy is still valid.
pub(super) fn cacheable(
    mut response: Response<Body>,
    asked: &DemoRequest,
    policy: &str,
    validators: &Validators,
) -> Response<Body> {
    if validators.unchanged(asked) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_TYPE);
    }
    set(&mut response, CACHE_CONTROL, policy);
    set(&mut response, ETAG, &validators.etag);
    let modified = httpdate::fmt_http_date(validators.modified);
    set(&mut response, LAST_MODIFIED, &modified);
    response
}
