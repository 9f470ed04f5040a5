//! The decision of a plugin as JSON: it is compared with `expect` and printed.
//!
//! A decision without details is its word. One with details is an object with this word as its only
//! key. The response of a loader is the exception: it is the object itself.

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, Value, json};

use lamina_plugin_host::{
    CallError, HeaderChange, KeyDecision, LoadDecision, LoadedResponse, RequestDecision,
    ResponseChange,
};

pub(super) fn key(decision: &KeyDecision) -> Value {
    match decision {
        KeyDecision::Default => json!("default"),
        KeyDecision::Key { text, parts, tags } => {
            json!({"key": {"text": text, "parts": parts, "tags": tags}})
        }
        KeyDecision::Bypass { reason } => json!({"bypass": reason}),
        KeyDecision::Refuse { status } => json!({"refuse": status.as_u16()}),
    }
}

pub(super) fn load(decision: &LoadDecision) -> Value {
    match decision {
        LoadDecision::Response(response) => whole(response),
        LoadDecision::Pass(request) => json!({"pass": {
            "method": request.method().as_str(),
            "url": request.uri().to_string(),
            "headers": headers(request.headers()),
            "body": String::from_utf8_lossy(request.body()),
        }}),
        LoadDecision::Absent => json!("absent"),
        LoadDecision::Stale { reason } => json!({"stale": reason}),
        LoadDecision::Error { reason } => json!({"error": reason}),
    }
}

pub(super) fn request(decision: &RequestDecision) -> Value {
    match decision {
        RequestDecision::Next => json!("next"),
        RequestDecision::Change {
            path_and_query,
            headers,
        } => {
            let mut told = change(headers);
            let path = path_and_query.as_ref().map(|path| path.as_str());
            told.insert("path_and_query".into(), json!(path));
            json!({ "change": told })
        }
        RequestDecision::Respond(response) => json!({"respond": whole(response)}),
        RequestDecision::Refuse(status) => json!({"refuse": status.as_u16()}),
    }
}

pub(super) fn response(decision: Option<&ResponseChange>) -> Value {
    let Some(given) = decision else {
        return json!("keep");
    };
    let mut told = change(&given.headers);
    told.insert("store".into(), json!(given.store));
    told.insert("ttl_ms".into(), ttl(given.ttl));
    told.insert("tags".into(), json!(given.tags));
    json!({ "change": told })
}

/// The JSON of a call that gave no decision.
pub(super) fn failed(error: &CallError) -> Value {
    json!({"failed": {"kind": error.kind().as_str(), "error": error.to_string()}})
}

fn whole(response: &LoadedResponse) -> Value {
    let mut told = json!({
        "status": response.status.as_u16(),
        "headers": headers(&response.headers),
        "body": String::from_utf8_lossy(&response.body),
        "ttl_ms": ttl(response.ttl),
        "tags": response.tags,
    });
    if let Ok(json) = serde_json::from_slice::<Value>(&response.body) {
        told["json"] = json;
    }
    told
}

fn change(change: &HeaderChange) -> Map<String, Value> {
    let removed: Vec<_> = change.remove.iter().map(|name| name.as_str()).collect();
    Map::from_iter([
        ("remove_headers".to_owned(), json!(removed)),
        ("set_headers".to_owned(), headers(&change.set)),
    ])
}

/// The headers by name. Several lines with one name are a list.
fn headers(headers: &HeaderMap) -> Value {
    let told = headers.keys().map(|name| {
        let lines = headers.get_all(name).iter();
        let mut lines: Vec<Value> = lines
            .map(|line| String::from_utf8_lossy(line.as_bytes()).into())
            .collect();
        let value = match lines.len() {
            1 => lines.swap_remove(0),
            _ => Value::Array(lines),
        };
        (name.as_str().to_owned(), value)
    });
    Value::Object(told.collect())
}

fn ttl(ttl: Option<Duration>) -> Value {
    json!(ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
}
