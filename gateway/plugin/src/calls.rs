//! The last failed calls of a plugin, with their inputs, so that a person can run them again
//! offline (`lamina plugin replay`).
//!
//! Keeps what the guest saw, bounded and without secrets ([`redact`]); bodies are left out. A
//! successful call costs nothing here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::bindings::types;
use super::error::CallError;
use super::load_request::LoadRequest;
use super::log_text::one_line;
use super::{Hook, redact};

/// The most calls that are kept for one plugin.
const KEPT: usize = 16;
/// The most bytes of one call's inputs, and of its error.
const MAX_INPUTS: usize = 16 << 10;
const MAX_ERROR: usize = 1 << 10;

/// Identifies a version of a plugin.
#[derive(Clone, Debug)]
pub(super) struct VersionIdentity {
    /// Increases with every version of every plugin.
    pub(super) number: u64,
    /// SHA-256 of the file, in hex.
    pub(super) sha256: Arc<str>,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub struct FailedCall {
    pub hook: Hook,
    /// What the guest saw, without secrets: `method`, `url`, `headers` and so on.
    pub inputs: Value,
    pub error: String,
    pub at: SystemTime,
    /// The version that failed.
    pub number: u64,
    pub sha256: Arc<str>,
}

/// The failed calls of one plugin, over all its versions.
#[derive(Default)]
pub(super) struct FailedCalls(Mutex<VecDeque<FailedCall>>);

impl FailedCalls {
    /// Keeps a call; replaces the oldest one when there are too many.
    pub(super) fn keep(&self, of: &VersionIdentity, hook: Hook, error: &CallError, inputs: Value) {
        let call = FailedCall {
            hook,
            inputs,
            error: one_line(&error.to_string(), MAX_ERROR),
            at: SystemTime::now(),
            number: of.number,
            sha256: Arc::clone(&of.sha256),
        };
        let mut kept = self.0.lock();
        kept.truncate(KEPT - 1);
        kept.push_front(call);
    }

    /// All kept calls, the newest first.
    pub(super) fn all(&self) -> Vec<FailedCall> {
        self.0.lock().iter().cloned().collect()
    }
}

/// The inputs of `key`: of headers and cookies, only those that it declares.
pub(super) fn key(request: &Parts, host: &str, inputs: &types::KeyInputs) -> Value {
    let path = request.uri.path_and_query().map_or("/", |p| p.as_str());
    let mut kept = KeptInputs::of(request.method.as_str(), "http", host, path);
    let headers = inputs.headers.iter();
    let mut lines: Vec<_> = headers
        .map(|f| (f.name.clone(), f.value.clone().into_bytes()))
        .collect();
    let cookies = inputs.cookies.iter();
    lines.extend(cookies.map(|f| {
        let pair = format!("{}={}", f.name, f.value);
        ("cookie".to_owned(), pair.into_bytes())
    }));
    kept.headers(lines.iter().map(|(name, value)| (&**name, &**value)));
    kept.done()
}

/// The inputs of `load`.
pub(super) fn load(request: &LoadRequest, headers: &[types::Header]) -> Value {
    let LoadRequest {
        method,
        scheme,
        host,
        path_and_query,
        ..
    } = request;
    let mut kept = KeptInputs::of(
        method.as_str(),
        scheme.as_str(),
        host,
        path_and_query.as_str(),
    );
    kept.headers(lines(headers));
    kept.put("route", json!(&*request.route));
    kept.put("body_bytes", json!(request.body.len()));
    kept.done()
}

/// The inputs of `request`, or with a response those of `response`.
pub(super) fn head(request: &types::RequestHead, response: Option<&types::ResponseHead>) -> Value {
    let types::RequestHead {
        method,
        scheme,
        host,
        path_and_query,
        ..
    } = request;
    let mut kept = KeptInputs::of(method, scheme, host, path_and_query);
    kept.headers(lines(&request.headers));
    kept.put("route", json!(request.route));
    kept.put("client", json!(request.client));
    if let Some(response) = response {
        let headers = kept.shown(lines(&response.headers));
        let response = json!({"status": response.status, "headers": headers});
        kept.put("response", response);
    }
    kept.done()
}

fn lines(headers: &[types::Header]) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|h| (&*h.name, &*h.value))
}

/// Collects inputs within their limit of bytes.
struct KeptInputs {
    inputs: Map<String, Value>,
    /// Bytes that may still be added.
    room: usize,
    cut: bool,
}

impl KeptInputs {
    fn of(method: &str, scheme: &str, host: &str, path_and_query: &str) -> Self {
        let mut kept = Self {
            inputs: Map::new(),
            room: MAX_INPUTS,
            cut: false,
        };
        let method = kept.fitted(method.to_owned());
        let url = redact::url(&format!("{scheme}://{host}{path_and_query}"));
        let url = kept.fitted(url);
        kept.put("method", json!(method));
        kept.put("url", json!(url));
        kept
    }

    fn headers<'a>(&mut self, lines: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let headers = self.shown(lines);
        self.put("headers", headers);
    }

    /// Header lines as an object; lines with the same name are joined.
    fn shown<'a>(&mut self, lines: impl Iterator<Item = (&'a str, &'a [u8])>) -> Value {
        let mut shown = Map::new();
        for (name, value) in lines {
            let name = name.to_ascii_lowercase();
            if self.room <= name.len() {
                self.cut = true;
                break;
            }
            self.room -= name.len();
            let value = self.fitted(redact::header(&name, value));
            let separator = if name == "cookie" { "; " } else { ", " };
            match shown.get_mut(&name) {
                Some(Value::String(before)) => before.extend([separator, &value]),
                _ => _ = shown.insert(name, value.into()),
            }
        }
        Value::Object(shown)
    }

    fn put(&mut self, name: &str, value: Value) {
        self.inputs.insert(name.to_owned(), value);
    }

    /// The text, cut to the bytes that are left.
    fn fitted(&mut self, mut text: String) -> String {
        if text.len() > self.room {
            self.cut = true;
            text.truncate(text.floor_char_boundary(self.room));
        }
        self.room -= text.len();
        text
    }

    fn done(mut self) -> Value {
        if self.cut {
            self.put("cut", json!(true));
        }
        Value::Object(self.inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &[u8]) -> types::Header {
        types::Header {
            name: name.to_owned(),
            value: value.to_vec(),
        }
    }

    fn request(headers: Vec<types::Header>) -> types::RequestHead {
        types::RequestHead {
            method: "GET".into(),
            scheme: "https".into(),
            host: "shop".into(),
            path_and_query: "/p?sig=s3cret&a=1".into(),
            headers,
            client: "192.0.2.1".into(),
            route: "site".into(),
        }
    }

    #[test]
    fn inputs_are_told_without_secrets() {
        let lines = [("accept", "a"), ("accept", "b"), ("cookie", "k=s3cret")];
        let request = request(lines.map(|(n, v)| header(n, v.as_bytes())).to_vec());
        let response = types::ResponseHead {
            status: 200,
            headers: vec![header("set-cookie", b"k=s3cret")],
        };
        let told = head(&request, Some(&response));
        assert_eq!(told["url"], "https://shop/p?sig=[redacted]&a=1");
        assert_eq!(told["headers"]["accept"], "a, b");
        assert_eq!(told["headers"]["cookie"], "k=[redacted]");
        assert_eq!(told["response"]["status"], 200);
        assert!(!told.to_string().contains("s3cret"), "{told}");
        assert_eq!(told.get("cut"), None);
    }

    #[test]
    fn long_inputs_are_cut() {
        let many = (0..1_000).map(|n| header(&format!("x-{n}"), &[b'x'; 200]));
        let told = head(&request(many.collect()), None);
        assert!(told.to_string().len() < 2 * MAX_INPUTS, "{told}");
        assert_eq!(told["cut"], true);
    }

    #[test]
    fn the_last_sixteen_are_kept_the_newest_first() {
        let calls = FailedCalls::default();
        for number in 0..40 {
            let sha256 = "ab".into();
            calls.keep(
                &VersionIdentity { number, sha256 },
                Hook::Key,
                &CallError::Timeout(Some(Hook::Key)),
                json!({}),
            );
        }
        let numbers: Vec<_> = calls.all().iter().map(|call| call.number).collect();
        assert_eq!(numbers, (24..40).rev().collect::<Vec<_>>());
    }
}
