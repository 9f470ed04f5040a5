//! Answers in JSON, and the fields that keep other sites' pages from using any answer.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::table::AdminMethod;
use crate::http::body::Body;

/// What every answer tells browsers: no other site may embed or frame it, it must not be stored,
/// and nothing in it is executed. There is no CORS field, so a page of another site may not read it
/// either.
const GUARDS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// The texts of 503. The clients in `plugin-sdk/clients` know them: of all answers with 5xx these alone
/// say that nothing was done.
const REPLACED: &str = "another process has taken over: connect again";
const BUSY: &str = "too many admin requests are under way; try again";

/// An answer with this JSON value.
pub fn json(status: StatusCode, value: &Value) -> Response<Body> {
    text(status, "application/json", format!("{value}\n"))
}

/// An answer with this text.
pub fn text(
    status: StatusCode,
    media_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

/// An answer that describes an error.
pub fn error(status: StatusCode, message: &str) -> Response<Body> {
    json(status, &json!({"error": message}))
}

/// 401, which says what the request needs.
pub fn unauthorized() -> Response<Body> {
    let message = "a valid `Authorization: Bearer` token is needed";
    let mut response = error(StatusCode::UNAUTHORIZED, message);
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    response
}

/// 405, with the allowed methods.
pub fn wrong_method(verb: AdminMethod) -> Response<Body> {
    let methods = verb.methods();
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, &format!("use {methods}"));
    let allowed = HeaderValue::from_static(methods);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

/// 503: another process has taken the place of this one, and answers new connections.
pub fn replaced() -> Response<Body> {
    error(StatusCode::SERVICE_UNAVAILABLE, REPLACED)
}

/// 503: too many requests that may wait are under way.
pub fn busy() -> Response<Body> {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, BUSY);
    let soon = HeaderValue::from_static("1");
    response.headers_mut().insert(RETRY_AFTER, soon);
    response
}

/// The answer to a request whose content was read, or the error if it could not be read.
pub fn of_outcome(outcome: Result<Value, String>) -> Response<Body> {
    match outcome {
        Ok(value) => json(StatusCode::OK, &value),
        Err(message) => error(StatusCode::BAD_REQUEST, &message),
    }
}

/// Adds the fields for browsers to an answer.
pub fn guarded(mut response: Response<Body>) -> Response<Body> {
    for (name, value) in GUARDS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::{BUSY, REPLACED};

    #[test]
    fn the_clients_know_what_is_said_when_nothing_was_done() {
        for client in [
            include_str!("../../../../plugin-sdk/clients/js/index.js"),
            include_str!("../../../../plugin-sdk/clients/python/lamina_purge/__init__.py"),
        ] {
            assert!(client.contains(BUSY) && client.contains(REPLACED));
        }
    }
}
