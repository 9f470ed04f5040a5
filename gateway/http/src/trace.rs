//! Methods whose answer repeats the request: TRACE (RFC 9110 §9.3.8), and TRACK, which is the same
//! on some servers.
//!
//! A page that makes its visitor's browser or a proxy send one could read fields that no script
//! may read. So these methods are off unless a route enables them, and fields that may carry a
//! secret are neither repeated by us nor sent on to an origin that would repeat them.

use std::fmt::Write as _;

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Version};
use smallvec::SmallVec;

use super::sensitive;

/// Whether the answer to this method repeats the request.
pub fn is_reflected(method: &Method) -> bool {
    method == Method::TRACE || method.as_str().eq_ignore_ascii_case("track")
}

/// Removes the fields that may carry a secret.
pub fn strip_secrets(headers: &mut HeaderMap) {
    let secret: SmallVec<[HeaderName; 4]> = headers
        .keys()
        .filter(|name| sensitive::is_secret_field(name))
        .cloned()
        .collect();
    for name in secret {
        headers.remove(name);
    }
}

/// The request as `message/http`. Its secrets must have been removed ([`strip_secrets`]).
pub fn reflection(request: &Parts) -> String {
    let version = match request.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_3 => "HTTP/3",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    };
    let mut text = format!("{} {} {version}\r\n", request.method, request.uri);
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_carry_a_secret_is_taken_out() {
        let names = ["cookie", "authorization", "x-api-key", "x-jwt", "accept"];
        let mut headers: HeaderMap = names
            .into_iter()
            .map(|name| (HeaderName::from_static(name), "v".parse().unwrap()))
            .collect();
        strip_secrets(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn track_is_a_trace_in_any_case() {
        for (method, reflected) in [
            ("TRACE", true),
            ("TRACK", true),
            ("Track", true),
            ("GET", false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(is_reflected(&method), reflected, "{method}");
        }
    }
}
