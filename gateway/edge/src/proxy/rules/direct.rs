//! Direct answers: a route that answers by itself, from the configuration or a file of it.

pub mod config;

use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::http::body::Body;
use crate::http::conditional::{self, PreconditionOutcome};
use crate::proxy::respond;
use crate::proxy::rules::headers::config::value_of_a_line;
use config::DirectAnswerConfig;

/// The answer of a route.
pub struct DirectAnswer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl DirectAnswer {
    /// None if the configuration is not a good one; its checks have said so.
    pub fn new(config: &DirectAnswerConfig) -> Option<Self> {
        let body = match (&config.file, &config.body) {
            (Some(file), _) => Bytes::from(file.content.clone()),
            (None, Some(text)) => Bytes::from(text.clone()),
            (None, None) => Bytes::new(),
        };
        let status = StatusCode::from_u16(config.status).ok()?;
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            let name = config.file.as_ref().map(|file| &*file.path);
            headers.insert(CONTENT_TYPE, content_type(name));
        }
        if status == StatusCode::OK {
            headers.insert(ETAG, etag_of(&body));
        }
        for (name, value) in &config.headers {
            let name: HeaderName = name.parse().ok()?;
            headers.insert(name, value_of_a_line(value)?);
        }
        Some(Self {
            status,
            headers,
            body,
        })
    }

    /// The answer to a request: 304 if the client has it.
    pub fn answer(&self, parts: &Parts) -> Response<Body> {
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        if reads && self.status == StatusCode::OK && conditional::asks_for_less(&parts.headers) {
            let etag = self.headers.get(ETAG);
            let (method, asked) = (&parts.method, &parts.headers);
            let outcome = conditional::evaluate(method, asked, etag, None, SystemTime::now());
            if outcome == PreconditionOutcome::NotModified {
                return respond::not_modified(&self.headers);
            }
        }
        let body = match parts.method {
            Method::HEAD => Body::empty(),
            _ => Body::full(self.body.clone()),
        };
        let mut response = respond::whole(self.status, self.headers.clone(), body);
        if parts.method == Method::HEAD && self.status != StatusCode::NO_CONTENT {
            let length = self.body.len().into();
            response.headers_mut().insert(CONTENT_LENGTH, length);
        }
        response
    }

    /// What is said of the whole answer, which a 304 says only in part.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The answer in words.
    pub fn describe(&self) -> String {
        let (status, length) = (self.status.as_u16(), self.body.len());
        format!("respond: {status} with {length} bytes of its own")
    }
}

/// The entity tag of a content (RFC 9110 §8.8.3): the same on all nodes and after a restart.
fn etag_of(content: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(content);
    let mut text = String::from("\"");
    for octet in &digest[..8] {
        text.push_str(&format!("{octet:02x}"));
    }
    text.push('"');
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The type of a content by the name of its file.
pub fn content_type(file: Option<&Path>) -> HeaderValue {
    let extension = file.and_then(|file| file.extension()?.to_str());
    let kind = match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        Some("ico") => "image/x-icon",
        Some("pdf") => "application/pdf",
        Some("wasm") => "application/wasm",
        _ => "text/plain; charset=utf-8",
    };
    HeaderValue::from_static(kind)
}
