//! Checks what a guest answered before anything acts on it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};

use super::bindings::types;
use super::error::CallError;
use super::log_text::one_line;
use super::{
    HeaderChange, KeyDecision, LoadDecision, LoadedResponse, RequestDecision, ResponseChange,
};
use crate::http::{field_value, forward};

/// The most bytes of a key's text.
const MAX_KEY: usize = 8 << 10;
/// The most parts of a key, and the most bytes of each.
const MAX_PARTS: usize = 16;
const MAX_PART: usize = 1 << 10;
/// The most tags, and the most bytes of each.
const MAX_TAGS: usize = 64;
const MAX_TAG: usize = 256;
/// The most header lines of a message.
const MAX_HEADERS: usize = 128;
/// Bytes of a reason that are kept.
const MAX_REASON: usize = 1 << 10;

/// Checks what `key` answered.
pub(super) fn key(decision: types::KeyDecision) -> Result<KeyDecision, CallError> {
    match decision {
        types::KeyDecision::Default => Ok(KeyDecision::Default),
        types::KeyDecision::Key(key) => cache_key(key),
        types::KeyDecision::Bypass(reason) => Ok(KeyDecision::Bypass {
            reason: one_line(&reason, MAX_REASON),
        }),
        types::KeyDecision::Refuse(code) => Ok(KeyDecision::Refuse {
            status: status(code, 400)?,
        }),
    }
}

fn cache_key(key: types::CacheKey) -> Result<KeyDecision, CallError> {
    if key.text.is_empty() {
        return Err(CallError::invalid("the key is empty"));
    }
    within("bytes of the key", key.text.len(), MAX_KEY)?;
    within("parts of the key", key.parts.len(), MAX_PARTS)?;
    for part in &key.parts {
        within("bytes of a part of the key", part.len(), MAX_PART)?;
    }
    tags(&key.tags)?;
    Ok(KeyDecision::Key {
        text: key.text,
        parts: key.parts,
        tags: key.tags,
    })
}

/// Checks what `load` answered; a body may have at most `max_body` bytes.
pub(super) fn load(
    decision: types::LoadDecision,
    max_body: usize,
) -> Result<LoadDecision, CallError> {
    match decision {
        types::LoadDecision::Response(response) => {
            loaded(response, max_body).map(LoadDecision::Response)
        }
        types::LoadDecision::Pass(pass) => passed(pass, max_body).map(LoadDecision::Pass),
        types::LoadDecision::Absent => Ok(LoadDecision::Absent),
        types::LoadDecision::Stale(reason) => Ok(LoadDecision::Stale {
            reason: one_line(&reason, MAX_REASON),
        }),
        types::LoadDecision::Error(reason) => Ok(LoadDecision::Error {
            reason: one_line(&reason, MAX_REASON),
        }),
    }
}

fn loaded(response: types::Response, max_body: usize) -> Result<LoadedResponse, CallError> {
    within(
        "bytes of the body (`limits.max_body`)",
        response.body.len(),
        max_body,
    )?;
    tags(&response.tags)?;
    let status = status(response.status, 200)?;
    let mut headers = headers(response.headers)?;
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        headers.insert(header::CONTENT_LENGTH, response.body.len().into());
    } else if !response.body.is_empty() {
        // RFC 9110 §6.4.1: such a response has no content.
        return Err(CallError::invalid(format!("a body with status {status}")));
    }
    Ok(LoadedResponse {
        status,
        headers,
        body: response.body.into(),
        ttl: response.ttl_ms.map(Duration::from_millis),
        tags: response.tags,
    })
}

fn passed(pass: types::Request, max_body: usize) -> Result<Request<Bytes>, CallError> {
    within(
        "bytes of the body (`limits.max_body`)",
        pass.body.len(),
        max_body,
    )?;
    if pass.scheme != "http" && pass.scheme != "https" {
        return Err(CallError::invalid(format!("the scheme {:?}", pass.scheme)));
    }
    let mut request = request(&pass.method, &pass.path_and_query, pass.headers, pass.body)?;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    let host = pass
        .host
        .parse()
        .map_err(|_| CallError::invalid(format!("the host {:?}", pass.host)))?;
    uri.scheme = pass.scheme.parse().ok();
    uri.authority = Some(host);
    *request.uri_mut() = uri.try_into().map_err(|_| CallError::invalid("the URL"))?;
    Ok(request)
}

/// Checks what `request` answered; a body may have at most `max_body` bytes.
pub(super) fn request_decision(
    decision: types::RequestDecision,
    max_body: usize,
) -> Result<RequestDecision, CallError> {
    Ok(match decision {
        types::RequestDecision::Next => RequestDecision::Next,
        types::RequestDecision::Change(change) => RequestDecision::Change {
            path_and_query: change.path_and_query.map(|p| path(&p)).transpose()?,
            headers: header_change(&change.remove_headers, change.set_headers)?.but_host(),
        },
        types::RequestDecision::Respond(response) => {
            RequestDecision::Respond(loaded(response, max_body)?)
        }
        types::RequestDecision::Refuse(code) => RequestDecision::Refuse(status(code, 400)?),
    })
}

/// Checks what `response` answered.
pub(super) fn response_decision(
    decision: types::ResponseDecision,
) -> Result<Option<ResponseChange>, CallError> {
    let types::ResponseDecision::Change(change) = decision else {
        return Ok(None);
    };
    tags(&change.tags)?;
    Ok(Some(ResponseChange {
        store: change.store,
        ttl: change.ttl_ms.map(Duration::from_millis),
        tags: change.tags,
        headers: header_change(&change.remove_headers, change.set_headers)?,
    }))
}

fn header_change(remove: &[String], set: Vec<types::Header>) -> Result<HeaderChange, CallError> {
    within("headers to remove", remove.len(), MAX_HEADERS)?;
    let name = |text: &String| {
        let bad = || CallError::invalid(format!("the header {:?}", one_line(text, 100)));
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| bad())
    };
    let remove: Result<Vec<_>, _> = remove.iter().map(name).collect();
    let mut remove = remove?;
    remove.retain(|name| !is_of_the_connection(name));
    Ok(HeaderChange {
        remove,
        set: headers(set)?,
    })
}

/// Makes a request in origin form, without `Host`.
pub(super) fn request(
    method: &str,
    path_and_query: &str,
    lines: Vec<types::Header>,
    body: Vec<u8>,
) -> Result<Request<Bytes>, CallError> {
    let method = Method::from_bytes(method.as_bytes())
        .ok()
        .filter(|m| *m != Method::CONNECT);
    let method = method.ok_or_else(|| CallError::invalid("the method"))?;
    let mut request = Request::new(body.into());
    *request.method_mut() = method;
    *request.uri_mut() = path(path_and_query)?.into();
    *request.headers_mut() = headers(lines)?;
    request.headers_mut().remove(header::HOST);
    Ok(request)
}

fn path(text: &str) -> Result<PathAndQuery, CallError> {
    let path = text.parse().ok().filter(|_| text.starts_with('/'));
    path.ok_or_else(|| CallError::invalid(format!("the path {:?}", one_line(text, 100))))
}

/// Makes a header map of valid lines; leaves out headers that belong to the connection.
fn headers(lines: Vec<types::Header>) -> Result<HeaderMap, CallError> {
    within("header lines", lines.len(), MAX_HEADERS)?;
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let bad = || CallError::invalid(format!("the header {:?}", one_line(&line.name, 100)));
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| bad())?;
        let value = field_value::of_text(&line.value).map_err(|_| bad())?;
        if !is_of_the_connection(&name) {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

/// Whether a header belongs to one connection or to message framing. Guests neither set nor see
/// these.
pub(super) fn is_of_the_connection(name: &HeaderName) -> bool {
    matches!(*name, header::CONTENT_LENGTH | header::TRAILER) || forward::is_hop_by_hop(name)
}

fn status(code: u16, least: u16) -> Result<StatusCode, CallError> {
    let status = StatusCode::from_u16(code)
        .ok()
        .filter(|_| (least..600).contains(&code));
    status
        .ok_or_else(|| CallError::invalid(format!("the status {code}; {least} to 599 are allowed")))
}

fn tags(tags: &[String]) -> Result<(), CallError> {
    within("tags", tags.len(), MAX_TAGS)?;
    let bad = tags
        .iter()
        .find(|t| t.is_empty() || t.len() > MAX_TAG || !t.bytes().all(|b| b.is_ascii_graphic()));
    bad.map_or(Ok(()), |tag| {
        Err(CallError::invalid(format!(
            "the tag {:?}",
            one_line(tag, 100)
        )))
    })
}

fn within(what: &str, given: usize, limit: usize) -> Result<(), CallError> {
    match given > limit {
        true => Err(CallError::invalid(format!(
            "{given} {what}; {limit} are allowed"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> types::LoadDecision {
        let line = |(n, v): &(&str, &str)| types::Header {
            name: n.to_string(),
            value: v.as_bytes().to_vec(),
        };
        let headers = headers.iter().map(line).collect();
        types::LoadDecision::Response(types::Response {
            status,
            headers,
            body: body.to_vec(),
            ttl_ms: None,
            tags: vec![],
        })
    }

    fn refused(decision: types::LoadDecision) -> String {
        match load(decision, 10) {
            Err(CallError::Invalid { what }) => what,
            other => panic!("accepted: {other:?}"),
        }
    }

    #[test]
    fn a_length_that_lies_is_corrected_and_the_connection_is_ours() {
        let given = response(
            200,
            &[
                ("Content-Length", "999"),
                ("Connection", "close"),
                ("X-A", "1"),
            ],
            b"body",
        );
        let Ok(LoadDecision::Response(response)) = load(given, 10) else {
            panic!("refused")
        };
        let names: Vec<_> = response
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
            .collect();
        assert_eq!(names, [("x-a", "1"), ("content-length", "4")]);
    }

    #[test]
    fn illegal_messages_are_refused() {
        assert!(refused(response(99, &[], b"")).contains("status 99"));
        assert!(refused(response(600, &[], b"")).contains("status 600"));
        assert!(refused(response(204, &[], b"x")).contains("204"));
        assert!(refused(response(200, &[("x", "a\r\nb: c")], b"")).contains("header"));
        assert!(refused(response(200, &[("x\r\ny", "a")], b"")).contains("header"));
        assert!(refused(response(200, &[], b"eleven bytes")).contains("bytes of the body"));
    }

    #[test]
    fn a_pass_may_change_host_and_path_but_not_leave_http() {
        let pass = |scheme: &str, host: &str, path: &str| {
            load(
                types::LoadDecision::Pass(types::Request {
                    method: "GET".into(),
                    scheme: scheme.into(),
                    host: host.into(),
                    path_and_query: path.into(),
                    headers: vec![],
                    body: vec![],
                }),
                10,
            )
        };
        let Ok(LoadDecision::Pass(request)) = pass("http", "shop:81", "/a?b") else {
            panic!("refused")
        };
        assert_eq!(request.uri(), "http://shop:81/a?b");
        assert!(pass("file", "shop", "/").is_err());
        assert!(pass("http", "sh op", "/").is_err());
        assert!(pass("http", "shop", "http://169.254.169.254/").is_err());
        assert!(pass("http", "shop", "*").is_err());
    }

    #[test]
    fn keys_have_bounds() {
        let of = |text: &str, parts: usize, tag: &str| {
            key(types::KeyDecision::Key(types::CacheKey {
                text: text.into(),
                parts: vec!["p".into(); parts],
                tags: vec![tag.into()],
            }))
        };
        assert!(of("k", 16, "t").is_ok());
        assert!(of("", 0, "t").is_err());
        assert!(of(&"k".repeat(MAX_KEY + 1), 0, "t").is_err());
        assert!(of("k", 17, "t").is_err());
        assert!(of("k", 0, "two words").is_err());
        assert!(key(types::KeyDecision::Refuse(200)).is_err());
        assert!(key(types::KeyDecision::Refuse(451)).is_ok());
    }

    #[test]
    fn a_message_stays_on_one_line_and_is_bounded() {
        assert_eq!(one_line("a\r\nforged\x1b[0m", 2_048), "a  forged [0m");
        assert_eq!(one_line(&"é".repeat(2_000), 2_048).len(), 2_048);
        assert_eq!(
            one_line(&format!("x{}", "é".repeat(2_000)), 2_048).len(),
            2_047
        );
    }
}
