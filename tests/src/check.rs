//! What must hold for the head of every response that a client gets, whatever the test is about.
//!
//! The harness calls this for each answer; a violation fails the test that asked.

use http::{HeaderMap, Method, StatusCode};

/// What the client knows about the answer it checks.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    pub method: &'a Method,
    pub target: &'a str,
    pub status: StatusCode,
    pub headers: &'a HeaderMap,
    /// The client expects `Cache-Status` (its route is cacheable).
    pub cache_status_due: bool,
    /// The client stands for one with the debug token, who may see tags.
    pub tags_allowed: bool,
    /// The origin itself sent several lines of a field that has one.
    pub duplicates_allowed: bool,
}

/// Fields that end at the next hop (RFC 9110 §7.6.1). `Connection` and
/// `Transfer-Encoding` are the gateway's own on HTTP/1 and looked at by value.
const HOP_BY_HOP: [&str; 5] = [
    "keep-alive",
    "proxy-connection",
    "te",
    "proxy-authenticate",
    "proxy-authorization",
];

/// Fields that are for caches on the way, not for clients (cache.md, Invalidation).
const TAG_FIELDS: [&str; 8] = [
    "surrogate-key",
    "cache-tag",
    "edge-cache-tag",
    "xkey",
    "x-magento-tags",
    "x-cache-tags",
    "cache-tags",
    "purge-cache-tags",
];

/// Fields of which a response has one line at most.
const SINGLE: [&str; 8] = [
    "date",
    "content-length",
    "age",
    "etag",
    "last-modified",
    "content-type",
    "expires",
    "location",
];

/// Every violation in the head.
pub fn faults(context: &Context<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    hop_by_hop(context, &mut faults);
    if !context.duplicates_allowed {
        duplicates(context, &mut faults);
    }
    age(context, &mut faults);
    cache_status(context, &mut faults);
    tags(context, &mut faults);
    length(context, &mut faults);
    faults
}

/// Panics with the head and every violation in it.
pub fn response(context: &Context<'_>) {
    let faults = faults(context);
    if !faults.is_empty() {
        let Context {
            method,
            target,
            status,
            headers,
            ..
        } = context;
        panic!(
            "{method} {target} was answered {status} with {headers:#?}\nfaults:\n- {}",
            faults.join("\n- ")
        );
    }
}

fn hop_by_hop(context: &Context<'_>, faults: &mut Vec<String>) {
    for name in HOP_BY_HOP {
        if context.headers.contains_key(name) {
            faults.push(format!("hop-by-hop field `{name}` reached the client"));
        }
    }
    // RFC 9110 §15.2.2, §15.5.22.
    let switching = matches!(
        context.status,
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED
    );
    if context.headers.contains_key("upgrade") && !switching {
        faults.push("`Upgrade` without 101 or 426".to_owned());
    }
    for value in context.headers.get_all("connection") {
        let value = value.to_str().unwrap_or("");
        let known = |token: &str| {
            matches!(token, "close" | "keep-alive") || (switching && token == "upgrade")
        };
        if !value
            .split(',')
            .all(|token| known(token.trim().to_ascii_lowercase().as_str()))
        {
            faults.push(format!("`Connection: {value}` reached the client"));
        }
    }
    let codings: Vec<_> = context
        .headers
        .get_all("transfer-encoding")
        .iter()
        .collect();
    if codings.len() > 1 || codings.iter().any(|coding| *coding != "chunked") {
        faults.push(format!("odd Transfer-Encoding {codings:?}"));
    }
}

fn duplicates(context: &Context<'_>, faults: &mut Vec<String>) {
    for name in SINGLE {
        let lines = context.headers.get_all(name).iter().count();
        if lines > 1 {
            faults.push(format!("`{name}` came {lines} times"));
        }
    }
}

fn age(context: &Context<'_>, faults: &mut Vec<String>) {
    let Some(age) = context.headers.get("age") else {
        return;
    };
    if age.is_empty() || !age.as_bytes().iter().all(u8::is_ascii_digit) {
        faults.push(format!(
            "`Age: {age:?}` is not a non-negative integer (RFC 9111 §5.1)"
        ));
    }
}

/// RFC 9211 §2: `hit` and `fwd` exclude each other.
fn cache_status(context: &Context<'_>, faults: &mut Vec<String>) {
    let Some(ours) = ours(context.headers) else {
        if context.cache_status_due && !is_refusal_of_ours(context) {
            faults.push("no Cache-Status of ours on a cacheable route".to_owned());
        }
        return;
    };
    let has = |name: &str| parameters(&ours).any(|(key, _)| key == name);
    if has("hit") && has("fwd") {
        faults.push(format!("both hit and fwd in `Cache-Status: {ours}`"));
    }
    if has("key") {
        faults.push(format!("the key was shown in `Cache-Status: {ours}`"));
    }
    if has("hit")
        && !context.headers.contains_key("age")
        && context.status != StatusCode::NOT_MODIFIED
    {
        faults.push("a hit without Age (RFC 9111 §4)".to_owned());
    }
    if has("hit") && context.headers.contains_key("set-cookie") {
        faults.push("a stored Set-Cookie was shared".to_owned());
    }
}

/// An error that the gateway gave before it looked at the cache. What came through from an
/// origin has our name in `Via`, whatever its status is.
fn is_refusal_of_ours(context: &Context<'_>) -> bool {
    let error = context.status.is_client_error() || context.status.is_server_error();
    error && !context.headers.contains_key("via")
}

fn tags(context: &Context<'_>, faults: &mut Vec<String>) {
    for name in TAG_FIELDS {
        if context.headers.contains_key(name) && !context.tags_allowed {
            faults.push(format!("tag field `{name}` reached the client"));
        }
    }
}

/// RFC 9112 §6: never both framings, never a body length where there is no body.
fn length(context: &Context<'_>, faults: &mut Vec<String>) {
    let has_length = context.headers.contains_key("content-length");
    if has_length && context.headers.contains_key("transfer-encoding") {
        faults.push("both Content-Length and Transfer-Encoding".to_owned());
    }
    if has_length && (context.status.is_informational() || context.status == StatusCode::NO_CONTENT)
    {
        faults.push(format!("Content-Length on {}", context.status));
    }
}

/// Our member of `Cache-Status`, the last one named `lamina`.
pub fn ours(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all("cache-status")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .rfind(|member| {
            member
                .split(';')
                .next()
                .is_some_and(|name| name.trim().trim_matches('"') == "lamina")
        })
        .map(str::to_owned)
}

/// The parameters of a `Cache-Status` member: name and value (empty when there is none).
pub fn parameters(member: &str) -> impl Iterator<Item = (&str, &str)> {
    member
        .split(';')
        .skip(1)
        .map(|part| part.trim().split_once('=').unwrap_or((part.trim(), "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        is_refused(StatusCode::OK, &map)
    }

    fn is_refused(status: StatusCode, headers: &HeaderMap) -> bool {
        let context = Context {
            method: &Method::GET,
            target: "/",
            status,
            headers,
            cache_status_due: true,
            tags_allowed: false,
            duplicates_allowed: false,
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| response(&context))).is_err()
    }

    #[test]
    fn a_clean_head_passes() {
        assert!(!faults_of(&[
            ("cache-status", "lamina; hit; ttl=3"),
            ("age", "1")
        ]));
        assert!(!faults_of(&[(
            "cache-status",
            "up; hit, lamina; fwd=uri-miss; stored"
        )]));
    }

    #[test]
    fn an_error_of_an_origin_has_a_cache_status_and_a_refusal_of_ours_need_not() {
        let passed = HeaderMap::from_iter([(http::header::VIA, "1.1 lamina".parse().unwrap())]);
        for status in [StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY] {
            assert!(is_refused(status, &passed), "{status}");
            assert!(!is_refused(status, &HeaderMap::new()), "{status}");
        }
    }

    #[test]
    fn each_fault_is_seen() {
        let status = ("cache-status", "lamina; fwd=uri-miss");
        for (name, value) in [
            ("keep-alive", "1"),
            ("connection", "x-secret"),
            ("surrogate-key", "a"),
            ("age", "-1"),
            ("age", ""),
            ("cache-status", "lamina; hit; fwd=stale"),
            ("cache-status", "lamina; hit"),
            ("transfer-encoding", "gzip"),
        ] {
            assert!(faults_of(&[status, (name, value)]), "{name}: {value}");
        }
        assert!(faults_of(&[]), "Cache-Status missing");
        assert!(faults_of(&[status, ("date", "x"), ("date", "x")]));
        assert!(faults_of(&[
            ("cache-status", "lamina; hit"),
            ("age", "1"),
            ("set-cookie", "a=b")
        ]));
    }
}
