//! What may pass a proxy: hop-by-hop fields end here, `Via` and `CDN-Loop` begin here (RFC 9110 §7.6).
//!
//! `Connection` can name any field for removal, so a client could make us drop what the
//! origin's safety or our own key rests on. Fields meant for everybody may not be named
//! there (§7.6.1), and those that matter stay whatever it says. Who the client is, and
//! what of it the origin is told, is in [`forwarded`].

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use smallvec::SmallVec;

use super::list;

mod forwarded;

pub use forwarded::{Client, client, set_forwarded};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Fields for one hop only (RFC 9110 §7.6.1, §11.7; RFC 9111 §3.1), whether or not `Connection` names them.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
];

/// End-to-end fields that `Connection` cannot remove, with all that begin with a prefix below.
const PROTECTED: [HeaderName; 25] = [
    header::AGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    CDN_LOOP,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPECT,
    header::EXPIRES,
    header::FORWARDED,
    header::HOST,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::ORIGIN,
    header::PRAGMA,
    header::RANGE,
    header::REFERER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("x-real-ip"),
];

/// Fields besides those above that say nothing good behind a body.
const NO_TRAILERS: [HeaderName; 2] = [header::TRAILER, header::MAX_FORWARDS];

/// Protected fields that are made for trailers: their value is known at the end.
const TRAILERS: [HeaderName; 3] = [
    header::ETAG,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
];

const PROTECTED_PREFIXES: [&str; 5] =
    ["content-", "if-", "x-forwarded-", "access-control-", "sec-"];

/// Removes from a request what is for this connection only.
///
/// `TE: trailers` stays, reduced to that: we pass trailers on, and gRPC asks for it. On
/// HTTP/1.1 the sender names `TE` in `Connection` anew.
pub fn strip_request(headers: &mut HeaderMap) {
    let trailers =
        list::field(headers, &header::TE).any(|member| member.eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes from a response what is for this connection only. `Trailer` stays, as it
/// announces what we pass on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: SmallVec<[HeaderName; 4]> = list::field(headers, &header::CONNECTION)
        .filter_map(|member| HeaderName::from_bytes(member).ok())
        .filter(|name| !is_protected(name))
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Removes what must not stand behind a body: what frames, routes, authenticates or says how
/// to read the message (RFC 9110 §6.5.1). Whoever merges trailers into the head would believe it.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    let forbidden: SmallVec<[HeaderName; 4]> = trailers
        .keys()
        .filter(|name| {
            HOP_BY_HOP.contains(name) || NO_TRAILERS.contains(name) || is_protected(name)
        })
        .filter(|name| !TRAILERS.contains(name))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

fn is_protected(name: &HeaderName) -> bool {
    PROTECTED.contains(name)
        || PROTECTED_PREFIXES
            .iter()
            .any(|prefix| name.as_str().starts_with(prefix))
}

/// The protocols that a request wants to change to (RFC 9110 §7.8), for the caller to send on to the
/// origin; ask before [`strip_request`].
///
/// Never `h2c`: behind such an upgrade the client would speak to the origin unseen.
pub fn wants_upgrade(request: &HeaderMap) -> Option<HeaderValue> {
    let asked = list::field(request, &header::CONNECTION)
        .any(|member| member.eq_ignore_ascii_case(b"upgrade"));
    if !asked {
        return None;
    }
    let protocols = list::field(request, &header::UPGRADE)
        .filter(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"));
    let protocols = protocols.collect::<SmallVec<[&[u8]; 4]>>().join(&b", "[..]);
    if protocols.is_empty() {
        None
    } else {
        HeaderValue::from_bytes(&protocols).ok()
    }
}

/// Adds our hop to `Via` (RFC 9110 §7.6.3); `version` is the protocol of the message as it came in.
pub fn append_via(headers: &mut HeaderMap, version: Version, pseudonym: &str) {
    let protocol = match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    append_text(headers, header::VIA, &format!("{protocol} {pseudonym}"));
}

/// How many times `pseudonym` stands in `Via`.
pub fn passes(headers: &HeaderMap, pseudonym: &str) -> usize {
    list::field(headers, &header::VIA)
        .filter(|hop| {
            let by = hop
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .nth(1);
            by.is_some_and(|by| by.eq_ignore_ascii_case(pseudonym.as_bytes()))
        })
        .count()
}

/// True if a request has been here before: `CDN-Loop` names us (RFC 8586 §2).
pub fn loops(headers: &HeaderMap, cdn_id: &str) -> bool {
    list::field(headers, &CDN_LOOP).any(|member| {
        let id = member
            .split(|&octet| octet == b';')
            .next()
            .unwrap_or_default();
        list::trim(id).eq_ignore_ascii_case(cdn_id.as_bytes())
    })
}

/// Adds us to `CDN-Loop`, behind those that are there (RFC 8586 §2).
pub fn append_cdn_loop(headers: &mut HeaderMap, cdn_id: &str) {
    append_text(headers, CDN_LOOP, cdn_id);
}

/// Adds a member as a line of its own; a text that no field can hold adds nothing.
fn append_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn stripped(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = map(fields);
        strip_request(&mut headers);
        headers
    }

    #[test]
    fn connection_and_what_it_names_are_removed() {
        let headers = stripped(&[
            ("connection", "close, X-One"),
            ("connection", "x-two,,"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
        ]);
        assert_eq!(headers, map(&[("x-three", "3")]), "RFC 9110 §7.6.1");
    }

    #[test]
    fn known_hop_by_hop_fields_go_unnamed() {
        let headers = stripped(&[
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABk"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic x"),
            ("trailer", "x-sum"),
        ]);
        assert_eq!(headers, map(&[("trailer", "x-sum")]), "RFC 9110 §7.6.1");
    }

    #[test]
    fn connection_cannot_remove_what_matters_for_safety() {
        let fields = [
            ("authorization", "Basic x"),
            ("host", "a"),
            ("cookie", "a=1"),
            ("cache-control", "no-store"),
            ("content-length", "5"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("if-none-match", "*"),
        ];
        let names = fields.map(|(name, _)| name).join(",");
        let mut headers = map(&fields);
        headers.insert(header::CONNECTION, HeaderValue::from_str(&names).unwrap());
        strip_request(&mut headers);
        assert_eq!(headers, map(&fields));
    }

    #[test]
    fn te_trailers_is_kept_alone() {
        assert_eq!(
            stripped(&[("te", "gzip;q=0.5, Trailers"), ("connection", "te")]),
            map(&[("te", "trailers")])
        );
    }

    #[test]
    fn trailers_say_nothing_of_framing_or_authority() {
        let mut trailers = map(&[
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
            ("authorization", "Basic x"),
            ("x-forwarded-for", "10.0.0.1"),
            ("trailer", "x"),
            ("x-sum", "1"),
            ("grpc-status", "0"),
            ("etag", "\"a\""),
        ]);
        strip_trailers(&mut trailers);
        let kept = map(&[("x-sum", "1"), ("grpc-status", "0"), ("etag", "\"a\"")]);
        assert_eq!(trailers, kept, "RFC 9110 §6.5.1");
    }

    #[test]
    fn an_upgrade_is_asked_for_in_two_fields() {
        assert_eq!(
            wants_upgrade(&map(&[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "websocket")
            ]))
            .unwrap(),
            "websocket"
        );
        assert_eq!(
            wants_upgrade(&map(&[
                ("connection", "upgrade"),
                ("upgrade", "h2c, x/1"),
                ("upgrade", "y")
            ]))
            .unwrap(),
            "x/1, y"
        );
        for fields in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "upgrade"), ("upgrade", "H2C")],
            &[],
        ] {
            assert_eq!(wants_upgrade(&map(fields)), None, "{fields:?}");
        }
    }

    #[test]
    fn via_gains_a_hop() {
        let mut headers = map(&[("via", "1.0 fred")]);
        append_via(&mut headers, Version::HTTP_11, "lamina");
        append_via(&mut headers, Version::HTTP_2, "lamina");
        let hops: Vec<_> = headers.get_all(header::VIA).iter().collect();
        assert_eq!(hops, ["1.0 fred", "1.1 lamina", "2 lamina"]);
        let odd = map(&[(
            "via",
            "1.1  Lamina (x, lamina), lamina, 1.1 lamina2,, 2 lamina",
        )]);
        assert_eq!(passes(&headers, "lamina"), 2);
        assert_eq!(passes(&odd, "lamina"), 2);
    }

    #[test]
    fn a_request_that_names_us_has_been_here() {
        for (line, loops_here) in [
            ("lamina", true),
            ("foo, Lamina; x=1", true),
            ("foo;a=\"x, lamina\"", false),
            ("lamina.example", false),
            ("", false),
        ] {
            assert_eq!(
                loops(&map(&[("cdn-loop", line)]), "lamina"),
                loops_here,
                "{line}: RFC 8586 §2"
            );
        }
        let mut headers = map(&[("cdn-loop", "foo")]);
        append_cdn_loop(&mut headers, "lamina");
        assert!(loops(&headers, "foo") && loops(&headers, "lamina"));
    }

    proptest! {
        #[test]
        fn any_connection_field_leaves_the_protected_ones(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = map(&[("host", "a"), ("authorization", "b")]);
                headers.insert(header::CONNECTION, value.clone());
                headers.insert(header::UPGRADE, value);
                wants_upgrade(&headers);
                strip_request(&mut headers);
                prop_assert_eq!(headers, map(&[("host", "a"), ("authorization", "b")]));
            }
        }
    }
}
