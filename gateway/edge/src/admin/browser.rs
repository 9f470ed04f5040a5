//! Tells a request of a page in a browser from a request of a tool.
//!
//! A page of any site may make its browser send requests to this machine. Three things protect
//! against that. Browsers say which site a request comes from (`Sec-Fetch-Site`, and `Origin` for a
//! request that changes something), and a page cannot forge either. And a page can send neither
//! `Content-Type: application/json` nor a field of our own to another site without asking first
//! (the preflight of CORS), which is never allowed here.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, ORIGIN};
use http::uri::{Authority, Scheme, Uri};

use crate::http::fetch_metadata;

/// The field that a change without a body must carry; its value does not matter.
pub const INTENT: HeaderName = HeaderName::from_static("x-lamina-admin");

const SEC_FETCH_MODE: &str = "sec-fetch-mode";
const SEC_FETCH_DEST: &str = "sec-fetch-dest";

/// What a request's form proves about its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrossSiteProof {
    /// No page of another site could have sent it unasked.
    Deliberate,
    /// There is a body, and its type is not JSON.
    NotJson,
    /// There is no body, and there is none of the fields that a page can't send.
    Bare,
}

/// Whether a page of another site sends this request to `host`, the host that the page believes in.
///
/// This is also true of a link that a person follows, which the gate allows for a GET (see
/// [`follows_a_link`]): the page with the link can't read the answer, and a GET changes nothing.
pub fn is_of_another_site(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let foreign_origin = headers
        .get_all(ORIGIN)
        .iter()
        .any(|origin| !is_origin_of(origin.as_bytes(), host));
    fetch_metadata::is_of_another_site(headers) || foreign_origin
}

/// Whether a person follows a link, so that the answer becomes a page of its own.
pub fn follows_a_link(headers: &HeaderMap) -> bool {
    let says = |name: &str, word: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().is_some_and(|value| value == word) && values.next().is_none()
    };
    says(SEC_FETCH_MODE, "navigate")
        && says(SEC_FETCH_DEST, "document")
        && !headers.contains_key(ORIGIN)
}

/// What the form of a request that changes something proves. A page can't send one of `fields`
/// unasked, either.
pub fn form(headers: &HeaderMap, fields: &[HeaderName], has_body: bool) -> CrossSiteProof {
    match has_body {
        _ if is_json(headers) => CrossSiteProof::Deliberate,
        _ if fields.iter().any(|name| headers.contains_key(name)) => CrossSiteProof::Deliberate,
        true => CrossSiteProof::NotJson,
        false if headers.contains_key(INTENT) => CrossSiteProof::Deliberate,
        false => CrossSiteProof::Bare,
    }
}

/// Whether there is exactly one `Content-Type` and it is JSON, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(media), None) = (types.next(), types.next()) else {
        return false;
    };
    let media = media.to_str().unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Whether an `Origin` is that of the requested host. If a TLS proxy is in front, its scheme is
/// https.
fn is_origin_of(origin: &[u8], host: Option<&Authority>) -> bool {
    let origin = Uri::try_from(origin).unwrap_or_default();
    let default_port = match origin.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => 80,
        Some(scheme) if *scheme == Scheme::HTTPS => 443,
        _ => return false,
    };
    let (Some(origin), Some(host)) = (origin.authority(), host) else {
        return false;
    };
    let port = |of: &Authority| of.port_u16().unwrap_or(default_port);
    origin.host().eq_ignore_ascii_case(host.host()) && port(origin) == port(host)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn foreign(lines: &[(&str, &str)]) -> bool {
        let host = Authority::from_static("localhost:9180");
        is_of_another_site(&headers(lines), Some(&host))
    }

    #[test]
    fn tools_and_our_own_pages_are_no_other_site() {
        for lines in [
            &[][..],
            &[("sec-fetch-site", "none")],
            &[
                ("sec-fetch-site", "same-origin"),
                ("origin", "http://localhost:9180"),
            ],
            &[("origin", "https://localhost:9180")],
            &[("origin", "http://LOCALHOST:9180")],
        ] {
            assert!(!foreign(lines), "{lines:?}");
        }
        let host = Authority::from_static("admin.example");
        let origin = headers(&[("origin", "https://admin.example")]);
        assert!(!is_of_another_site(&origin, Some(&host)));
    }

    #[test]
    fn what_names_another_site_or_nothing_certain_is_one() {
        for lines in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "Same-Origin")],
            &[("sec-fetch-site", "")],
            &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://localhost")],
            &[("origin", "http://127.0.0.1:9180")],
            &[("origin", "http://localhost:9180.evil.example")],
            &[("origin", "http://evil.example#@localhost:9180")],
            &[("origin", "chrome-extension://localhost:9180")],
            &[
                ("origin", "http://localhost:9180"),
                ("origin", "http://evil.example"),
            ],
            &[
                ("sec-fetch-site", "same-origin"),
                ("origin", "http://evil.example"),
            ],
        ] {
            assert!(foreign(lines), "{lines:?}");
        }
        assert!(is_of_another_site(
            &headers(&[("origin", "http://a")]),
            None
        ));
    }

    #[test]
    fn only_json_or_our_own_field_show_intent() {
        for (lines, with_body, without) in [
            (&[][..], CrossSiteProof::NotJson, CrossSiteProof::Bare),
            (
                &[("content-type", "application/json")],
                CrossSiteProof::Deliberate,
                CrossSiteProof::Deliberate,
            ),
            (
                &[("content-type", "Application/JSON ; charset=utf-8")],
                CrossSiteProof::Deliberate,
                CrossSiteProof::Deliberate,
            ),
            (
                &[("content-type", "text/plain")],
                CrossSiteProof::NotJson,
                CrossSiteProof::Bare,
            ),
            (
                &[("content-type", "text/plain; application/json")],
                CrossSiteProof::NotJson,
                CrossSiteProof::Bare,
            ),
            (
                &[("content-type", "application/x-www-form-urlencoded")],
                CrossSiteProof::NotJson,
                CrossSiteProof::Bare,
            ),
            (
                &[(
                    "content-type",
                    "multipart/form-data; boundary=application/json",
                )],
                CrossSiteProof::NotJson,
                CrossSiteProof::Bare,
            ),
            (
                &[("content-type", "application/json, text/plain")],
                CrossSiteProof::NotJson,
                CrossSiteProof::Bare,
            ),
            (
                &[("content-type", "application/json5")],
                CrossSiteProof::NotJson,
                CrossSiteProof::Bare,
            ),
            (
                &[
                    ("content-type", "application/json"),
                    ("content-type", "text/plain"),
                ],
                CrossSiteProof::NotJson,
                CrossSiteProof::Bare,
            ),
            (
                &[("x-lamina-admin", "1")],
                CrossSiteProof::NotJson,
                CrossSiteProof::Deliberate,
            ),
        ] {
            let headers = headers(lines);
            assert_eq!(form(&headers, &[], true), with_body, "{lines:?}");
            assert_eq!(form(&headers, &[], false), without, "{lines:?}");
        }
    }

    #[test]
    fn a_field_of_another_api_shows_intent_where_that_api_is_asked() {
        let key = HeaderName::from_static("fastly-key");
        let sent = headers(&[("fastly-key", "x"), ("content-type", "text/plain")]);
        for with_body in [true, false] {
            let of_api = form(&sent, std::slice::from_ref(&key), with_body);
            assert_eq!(of_api, CrossSiteProof::Deliberate);
            assert_ne!(form(&sent, &[], with_body), CrossSiteProof::Deliberate);
        }
    }

    #[test]
    fn a_link_is_a_navigation_to_a_page_and_nothing_else() {
        let link = [
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(follows_a_link(&headers(&link)));
        for other in [
            &[link[0]][..],
            &[link[1]],
            &[link[0], ("sec-fetch-dest", "iframe")],
            &[("sec-fetch-mode", "no-cors"), link[1]],
            &[link[0], link[1], ("sec-fetch-mode", "cors")],
            &[link[0], link[1], ("origin", "null")],
        ] {
            assert!(!follows_a_link(&headers(other)), "{other:?}");
        }
    }
}
