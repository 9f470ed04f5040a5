//! Resolves a reference in a header field against the request's URI (RFC 3986 §5.2).
//!
//! For `Location` and `Content-Location`, whose URIs an unsafe request may have changed. Fragments
//! are removed, and the rest gets the normal form of [`path`](super::path), as the paths of
//! requests do.

use http::Uri;

use super::path;

/// The URI that `reference` names: only a path and query, unless it names an authority. `None`
/// when it is not a valid URI.
pub fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or("");
    let (scheme, rest) = match reference.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), Some(rest)),
        _ => (None, reference.strip_prefix("//")),
    };
    let Some(rest) = rest else {
        return path::normal(&joined(base, reference)).parse().ok();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let scheme = scheme.or(base.scheme_str()).unwrap_or("http");
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
            ("//g", "http://g/"),
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
        ] {
            let found = resolve(&base, reference);
            assert_eq!(found, uri.parse().ok(), "{reference}");
        }
        assert_eq!(resolve(&base, "http://"), None);
    }
}
