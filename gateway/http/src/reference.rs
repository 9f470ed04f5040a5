//! Resolves a reference in a header field against the request's URI (RFC 3986 §5.2).
//!
//! For `Location` and `Content-Location`, whose URIs an unsafe request may have changed. Fragments
//! are removed, and the rest gets the normal form of [`path`](super::path), as the paths of
//! requests do.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::Uri;

use super::path;

/// The URI that `reference` names: only a path and query, unless it names an authority. `None`
/// when it is not a valid URI, or one without an authority of a scheme of its own (`mailto:`, or a
/// native application's of RFC 8252): such a one names nothing that is asked for over HTTP.
///
/// `base` is the request's URI and `scheme` its scheme, which it need not name.
pub fn resolve(base: &Uri, scheme: &str, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or("");
    let (scheme, rest) = match reference.split_once(':') {
        Some((named, rest)) if is_scheme(named) => (named, Some(rest.strip_prefix("//")?)),
        _ => (scheme, reference.strip_prefix("//")),
    };
    let Some(rest) = rest else {
        return path::normal(&joined(base, reference)).parse().ok();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path::normal(path);
    format!("{scheme}://{authority}{path}").parse().ok()
}

/// A reference without an authority, resolved against the base's path.
fn joined(base: &Uri, reference: &str) -> String {
    let path = base.path();
    let beside = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
    match reference.bytes().next() {
        None => base
            .path_and_query()
            .map_or("/", |all| all.as_str())
            .to_owned(),
        Some(b'?') => format!("{path}{reference}"),
        Some(b'/') => reference.to_owned(),
        Some(_) => format!("{beside}{reference}"),
    }
}

/// The host of an authority, without its port.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    }
}

/// A host without port in which an address of IPv6 has its one spelling (RFC 5952), as `[::1]` for
/// `[0:0:0:0:0:0:0:1]`. All others are as they were.
pub fn normal_address(host: &str) -> Cow<'_, str> {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok()) {
        Some(address) => Cow::Owned(format!("[{address}]")),
        None => Cow::Borrowed(host),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From RFC 3986 §5.4, with the base `/b/c/d?q`.
    #[test]
    fn references_are_resolved_as_rfc_3986_has_it() {
        let base: Uri = "/b/c/d?q".parse().unwrap();
        for (reference, uri) in [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("//g", "https://g/"),
            ("?y", "/b/c/d?y"),
            ("g?y/../x", "/b/c/g?y/../x"),
            ("#s", "/b/c/d?q"),
            ("g#s/../x", "/b/c/g"),
            ("", "/b/c/d?q"),
            (".", "/b/c/"),
            ("..", "/b/"),
            ("../g", "/b/g"),
            ("../../../../g", "/g"),
            ("/./g", "/g"),
            ("g..", "/b/c/g.."),
            ("./g/.", "/b/c/g/"),
            ("g/../h", "/b/c/h"),
            ("https://a.example?x", "https://a.example/?x"),
            ("http://a.example/x/../y", "http://a.example/y"),
            ("g?u=http://h/x", "/b/c/g?u=http://h/x"),
            ("./g:h", "/b/c/g:h"),
            ("größe?ü#ä", "/b/c/gr%C3%B6%C3%9Fe?%C3%BC"),
            ("/日本", "/%E6%97%A5%E6%9C%AC"),
        ] {
            let found = resolve(&base, "https", reference);
            assert_eq!(found, uri.parse().ok(), "{reference}");
        }
        for elsewhere in [
            "http://",
            "g:h",
            "http:g",
            "mailto:a@b.example",
            "tel:+49123",
            "com.example.app:/oauth2redirect?code=1",
            "intent:#Intent;end",
            "data:text/html,x",
            "javascript:void(0)",
        ] {
            assert_eq!(resolve(&base, "https", elsewhere), None, "{elsewhere}");
        }
    }
}
