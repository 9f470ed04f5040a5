//! Refuses requests with ambiguous or oversized heads, before anything else looks at them.
//!
//! Neighbours: `server` asks it for each request. [`check`] sees what hyper lets through;
//! what hyper repairs without a word (`Content-Length` beside `Transfer-Encoding`) can only be
//! seen in the raw bytes, which [`framing`] looks at before hyper does.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};

use self::framing::FramingFault;
use super::config::ListenerLimits;

mod chunks;
pub mod framing;

/// A request that is refused: the status, and the reason in words for the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestRefusal {
    pub status: StatusCode,
    pub reason: &'static str,
}

/// Checks the head of a request against `limits` and RFC 9110/9112. How large its body may be is the
/// word of its route, which tells a client in its own form that it is too large.
///
/// # Errors
/// The refusal to answer with; the connection must be closed after it.
pub fn check<B>(request: &Request<B>, limits: &ListenerLimits) -> Result<(), RequestRefusal> {
    let seen = DecisiveFields::of(request.headers());
    sizes(request, &seen, limits)?;
    framing(&seen)?;
    target(request)?;
    host(request, &seen)
}

/// The fields that the checks need, found in one pass: a look-up by hash for each costs more.
#[derive(Default)]
struct DecisiveFields<'a> {
    host: Option<&'a HeaderValue>,
    length: Option<&'a HeaderValue>,
    coding: Option<&'a HeaderValue>,
    /// Whether `Host`, or `Transfer-Encoding`, is there more than once.
    hosts: bool,
    codings: bool,
}

impl<'a> DecisiveFields<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            if *name == HOST {
                seen.hosts = seen.host.replace(value).is_some();
            } else if *name == CONTENT_LENGTH {
                seen.length = Some(value);
            } else if *name == TRANSFER_ENCODING {
                seen.codings = seen.coding.replace(value).is_some();
            }
        }
        seen
    }
}

/// The refusal of a request whose framing has a fault.
pub fn broken(fault: FramingFault) -> RequestRefusal {
    RequestRefusal {
        status: StatusCode::BAD_REQUEST,
        reason: fault.reason(),
    }
}

fn sizes<B>(
    request: &Request<B>,
    seen: &DecisiveFields<'_>,
    limits: &ListenerLimits,
) -> Result<(), RequestRefusal> {
    if target_length(request.uri()) as u64 > limits.max_uri_bytes.0 {
        return refuse(StatusCode::URI_TOO_LONG, "the request target is too long");
    }
    if request.headers().len() > limits.max_headers {
        return refuse(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request has too many header fields",
        );
    }
    // hyper has checked the number; one that does not parse here is larger than any limit.
    let is_number = |length: &HeaderValue| {
        let length = length.to_str().ok();
        length.is_some_and(|text| text.parse::<u64>().is_ok())
    };
    match seen.length.is_none_or(is_number) {
        true => Ok(()),
        false => refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request body is too large",
        ),
    }
}

/// RFC 9112 §6.1: we do not decode a coding that we do not know, nor two of them.
fn framing(seen: &DecisiveFields<'_>) -> Result<(), RequestRefusal> {
    match (seen.coding, seen.codings) {
        (None, _) => Ok(()),
        (Some(one), false) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => refuse(
            StatusCode::NOT_IMPLEMENTED,
            "only the transfer coding chunked is understood",
        ),
    }
}

fn target<B>(request: &Request<B>) -> Result<(), RequestRefusal> {
    let uri = request.uri();
    if request.method() == Method::CONNECT {
        return refuse(StatusCode::NOT_IMPLEMENTED, "this is not a forward proxy");
    }
    // Without a scheme only CONNECT may name an authority (RFC 9112 §3.2.3).
    let alone = uri.scheme().is_none() && uri.authority().is_some();
    let foreign = uri
        .scheme_str()
        .is_some_and(|scheme| scheme != "http" && scheme != "https");
    if alone || foreign {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the target is neither a path nor an http URI",
        );
    }
    // HTTP/2 has no absolute form; `?x` would be a path with nothing before its query.
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let is_path = target.starts_with('/') || target == "*";
    if request.version() >= Version::HTTP_2 && !is_path {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the path does not begin with a slash",
        );
    }
    if uri.path() == "*" && request.method() != Method::OPTIONS {
        return refuse(StatusCode::BAD_REQUEST, "* is a target of OPTIONS only");
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return refuse(StatusCode::BAD_REQUEST, "the target names a user");
    }
    Ok(())
}

/// RFC 9112 §3.2: exactly one valid Host, equal to that of an absolute target.
fn host<B>(request: &Request<B>, seen: &DecisiveFields<'_>) -> Result<(), RequestRefusal> {
    if seen.hosts {
        return refuse(StatusCode::BAD_REQUEST, "more than one Host");
    }
    let authority = request.uri().authority();
    let Some(host) = seen.host else {
        return match (request.version(), authority) {
            (Version::HTTP_11, _) | (Version::HTTP_2 | Version::HTTP_3, None) => {
                refuse(StatusCode::BAD_REQUEST, "Host is missing")
            }
            _ => Ok(()),
        };
    };
    let host = host.as_bytes();
    if !is_host(host) {
        return refuse(StatusCode::BAD_REQUEST, "Host is not a host and port");
    }
    match authority {
        Some(authority) if !same_host(authority, host) => {
            refuse(StatusCode::BAD_REQUEST, "Host and the target disagree")
        }
        _ => Ok(()),
    }
}

/// The octets of a `reg-name` (RFC 3986 §3.2.2), as a table: every request's host is checked.
static HOST_OCTETS: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 128 {
        let punctuation = matches!(
            b as u8,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b'%'
        );
        table[b] = (b as u8).is_ascii_alphanumeric() || punctuation;
        b += 1;
    }
    table
};

/// `uri-host [ ":" port ]` (RFC 9110 §7.2), not empty, without a user, and without anything that
/// could become part of a path.
fn is_host(host: &[u8]) -> bool {
    let literal = host.first() == Some(&b'[');
    let end = match literal {
        // An IPv6 address has colons of its own.
        true => host.iter().position(|&b| b == b']').map(|end| end + 1),
        false => host.iter().position(|&b| !HOST_OCTETS[usize::from(b)]),
    };
    let (name, port) = host.split_at(end.unwrap_or(host.len()));
    let numbered = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    numbered
        && if literal {
            is_literal(name)
        } else {
            !name.is_empty()
        }
}

/// `IP-literal`, as far as it matters here: brackets around octets that cannot begin a path.
fn is_literal(name: &[u8]) -> bool {
    let inner = name
        .strip_prefix(b"[")
        .and_then(|name| name.strip_suffix(b"]"));
    let plain = |&b: &u8| b == b':' || HOST_OCTETS[usize::from(b)];
    inner.is_some_and(|inner| !inner.is_empty() && inner.iter().all(plain))
}

fn same_host(authority: &Authority, host: &[u8]) -> bool {
    let bare = |name: &[u8]| {
        let usual = name.strip_suffix(b":80").or(name.strip_suffix(b":443"));
        usual.map_or(name.len(), <[u8]>::len)
    };
    let target = authority.as_str().as_bytes();
    target[..bare(target)].eq_ignore_ascii_case(&host[..bare(host)])
}

fn target_length(uri: &Uri) -> usize {
    uri.path_and_query().map_or(0, |path| path.as_str().len())
        + uri
            .authority()
            .map_or(0, |authority| authority.as_str().len())
}

fn refuse(status: StatusCode, reason: &'static str) -> Result<(), RequestRefusal> {
    Err(RequestRefusal { status, reason })
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode, Version};

    use super::{ListenerLimits, check};

    fn status(version: Version, method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().version(version).method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let limits = ListenerLimits::default();
        check(&request, &limits)
            .err()
            .map(|refusal| refusal.status.as_u16())
    }

    fn get(uri: &str, headers: &[(&str, &str)]) -> Option<u16> {
        status(Version::HTTP_11, "GET", uri, headers)
    }

    #[test]
    fn plain_requests_pass() {
        assert_eq!(get("/a?b", &[("host", "example.com:8080")]), None);
        assert_eq!(get("/", &[("host", "[::1]:80")]), None);
        assert_eq!(
            get("http://Example.com/", &[("host", "example.com:80")]),
            None
        );
        assert_eq!(status(Version::HTTP_10, "GET", "/", &[]), None);
        assert_eq!(status(Version::HTTP_2, "GET", "http://a/", &[]), None);
        assert_eq!(
            status(Version::HTTP_11, "OPTIONS", "*", &[("host", "a")]),
            None
        );
    }

    #[test]
    fn a_host_that_is_missing_doubled_odd_or_another_is_refused() {
        for headers in [
            &[][..],
            &[("host", "a"), ("host", "a")],
            &[("host", "")],
            &[("host", ":80")],
            &[("host", "user@a")],
            &[("host", "a/b")],
            &[("host", "a:b")],
            &[("host", "a:1:2")],
            &[("host", "[::1")],
            &[("host", "[::1]a")],
            &[("host", "a]")],
        ] {
            assert_eq!(get("/", headers), Some(400), "{headers:?}");
        }
        assert_eq!(get("http://a/", &[("host", "b")]), Some(400));
        assert_eq!(get("http://u@a/", &[("host", "a")]), Some(400));
        assert_eq!(
            status(Version::HTTP_2, "GET", "http://a/", &[("host", "b")]),
            Some(400)
        );
    }

    #[test]
    fn sizes_over_a_limit_have_their_own_status() {
        let long = format!("/{}", "x".repeat(9_000));
        assert_eq!(get(&long, &[("host", "a")]), Some(414));
        let many: Vec<_> = (0..101).map(|_| ("x", "y")).collect();
        assert_eq!(get("/", &many), Some(431));
        assert_eq!(
            get(
                "/",
                &[("host", "a"), ("content-length", "99999999999999999999")]
            ),
            Some(413)
        );
        assert_eq!(
            get("/", &[("host", "a"), ("content-length", "9999999999")]),
            None,
            "its route knows what is too large"
        );
    }

    #[test]
    fn strange_framing_and_methods_are_refused() {
        for coding in ["gzip, chunked", "xchunked", "identity"] {
            let headers = [("host", "a"), ("transfer-encoding", coding)];
            assert_eq!(
                get("/", &headers),
                Some(StatusCode::NOT_IMPLEMENTED.as_u16())
            );
        }
        assert_eq!(
            status(Version::HTTP_11, "CONNECT", "a:80", &[("host", "a:80")]),
            Some(501)
        );
        assert_eq!(get("*", &[("host", "a")]), Some(400));
        assert_eq!(get("a", &[("host", "a")]), Some(400));
        assert_eq!(get("ftp://a/", &[("host", "a")]), Some(400));
        assert_eq!(
            status(Version::HTTP_2, "GET", "http://a?x", &[]),
            Some(400),
            "HTTP/2 takes ?x as a path"
        );
        assert_eq!(get("http://a?x", &[("host", "a")]), None);
    }
}
