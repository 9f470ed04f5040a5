//! Ends what is for one connection only (RFC 9110 §7.6.1), once for each message.
//!
//! What the rest of the program needs of those fields is kept beside the head as a value:
//! [`HopWishes`]. So nothing looks at a client's `Connection` a second time, and it cannot name
//! fields that a plugin sets later.
//!
//! `Connection` may name any field, but not one that is meant for all recipients (§7.6.1). Those
//! are kept, whatever it says: otherwise a proxy in front that passes on a client's `Connection`
//! would let the client remove what that proxy says about it, what ends a loop, and what a cache
//! decides by.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use smallvec::SmallVec;

use super::names;
use crate::list;

/// Names of fields. Nearly always empty.
pub type HopFieldNames = Vec<HeaderName>;

/// What the sender of a request asked of this connection only; its head no longer says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HopWishes {
    /// The protocols that it wants to change to (§7.8), as the origin may be asked for them.
    pub upgrade: Option<HeaderValue>,
    pub trailers: TrailerWish,
}

/// Whether a client takes trailers (`TE: trailers`, RFC 9110 §10.1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrailerWish {
    #[default]
    Unsaid,
    Accepted,
}

/// End-to-end fields that `Connection` cannot remove, besides all that begin with one of
/// [`PROTECTED_PREFIXES`].
const PROTECTED: [HeaderName; 27] = [
    header::AGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::COOKIE,
    header::DATE,
    header::ETAG,
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
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("cdn-loop"),
    HeaderName::from_static("edge-cache-tag"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("surrogate-key"),
    header::MAX_FORWARDS,
];

const PROTECTED_PREFIXES: [&str; 6] = [
    "content-",
    "if-",
    "x-forwarded-",
    "access-control-",
    "sec-",
    "cache-group",
];

/// Protected fields that are meant for trailers, because their value is known only at the end.
const TRAILERS: [HeaderName; 3] = [
    header::ETAG,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
];

impl HopWishes {
    /// Reads the wishes of a request.
    pub(super) fn of(headers: &HeaderMap, version: Version) -> Self {
        let mut te = list::field(headers, &header::TE);
        let trailers = match te.any(|member| member.eq_ignore_ascii_case(b"trailers")) {
            true => TrailerWish::Accepted,
            false => TrailerWish::Unsaid,
        };
        Self {
            upgrade: upgrade(headers, version),
            trailers,
        }
    }
}

/// The protocols that a request wants to change to. Only HTTP/1.1 has this (§7.8).
///
/// Never `h2c`: after such an upgrade the gateway could not see what the client asks the origin.
fn upgrade(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let asked = version == Version::HTTP_11
        && list::field(headers, &header::CONNECTION)
            .any(|member| member.eq_ignore_ascii_case(b"upgrade"));
    if !asked {
        return None;
    }
    let protocols = list::field(headers, &header::UPGRADE)
        .filter(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"));
    let protocols = protocols.collect::<SmallVec<[&[u8]; 4]>>().join(&b", "[..]);
    if protocols.is_empty() {
        None
    } else {
        HeaderValue::from_bytes(&protocols).ok()
    }
}

/// The end-to-end fields that `Connection` names and is allowed to name.
pub(super) fn named(headers: &HeaderMap) -> HopFieldNames {
    // These are removed in any case, and name no other field.
    let ends_anyway = |member: &[u8]| {
        [&b"keep-alive"[..], b"close", b"te", b"upgrade"]
            .iter()
            .any(|option| member.eq_ignore_ascii_case(option))
    };
    list::field(headers, &header::CONNECTION)
        .filter(|member| !ends_anyway(member))
        .filter_map(|member| HeaderName::from_bytes(member).ok())
        .filter(|name| !is_protected(name))
        .collect()
}

/// Removes from a response what is for the connection only, and returns which other fields
/// `Connection` named, for its trailers. `Trailer` stays, as it announces what we pass on; so does
/// the protocol that a 101 changes to.
pub fn end_response_hop(status: StatusCode, headers: &mut HeaderMap) -> HopFieldNames {
    let named = named(headers);
    // Both statuses name the protocols that they are about (RFC 9110 §15.2.2, §15.5.22).
    let protocols = match status {
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED => {
            headers.get(header::UPGRADE).cloned()
        }
        _ => None,
    };
    let hop_by_hop: SmallVec<[HeaderName; 4]> = headers
        .keys()
        .filter(|name| names::is_hop_by_hop(name))
        .cloned()
        .collect();
    for name in hop_by_hop.iter().chain(&named) {
        headers.remove(name);
    }
    if let Some(protocol) = protocols {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    named
}

/// Removes fields that are not allowed in trailers: those that frame, route, authenticate or say
/// how to read the message (RFC 9110 §6.5.1), those that pose as the word of a proxy, and those
/// that the head's `Connection` named (§7.6.1). A recipient that merges trailers into the head
/// would believe them.
pub fn strip_trailers(trailers: &mut HeaderMap, named: &[HeaderName]) {
    let forbidden: SmallVec<[HeaderName; 4]> = trailers
        .keys()
        .filter(|name| is_forbidden_trailer(name) || named.contains(name))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

fn is_forbidden_trailer(name: &HeaderName) -> bool {
    match names::ending(name) {
        Some(_) => true,
        None => *name == header::TRAILER || is_protected(name) && !TRAILERS.contains(name),
    }
}

/// A field by which a request poses as another is removed in any case, unless the listener trusts
/// it: then a proxy has set it, and it is protected.
fn is_protected(name: &HeaderName) -> bool {
    PROTECTED.contains(name)
        || names::is_posing(name)
        || PROTECTED_PREFIXES
            .iter()
            .any(|prefix| name.as_str().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::tests::map;

    fn wishes(fields: &[(&'static str, &'static str)], version: Version) -> HopWishes {
        HopWishes::of(&map(fields), version)
    }

    #[test]
    fn an_upgrade_is_asked_for_in_two_fields_of_http_1_1() {
        let asked = |fields: &[_]| wishes(fields, Version::HTTP_11).upgrade;
        let websocket = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ];
        assert_eq!(asked(&websocket).unwrap(), "websocket");
        assert_eq!(
            asked(&[
                ("connection", "upgrade"),
                ("upgrade", "h2c, x/1"),
                ("upgrade", "y")
            ])
            .unwrap(),
            "x/1, y"
        );
        for fields in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "upgrade"), ("upgrade", "H2C")],
            &[],
        ] {
            assert_eq!(asked(fields), None, "{fields:?}");
        }
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert_eq!(wishes(&websocket, version).upgrade, None, "{version:?}");
        }
    }

    #[test]
    fn trailers_are_accepted_by_that_word_alone() {
        for (te, wish) in [
            ("gzip;q=0.5, Trailers", TrailerWish::Accepted),
            ("gzip", TrailerWish::Unsaid),
            ("xtrailers", TrailerWish::Unsaid),
        ] {
            assert_eq!(
                wishes(&[("te", te)], Version::HTTP_11).trailers,
                wish,
                "{te}"
            );
        }
    }

    #[test]
    fn a_response_loses_what_is_for_the_connection_and_nothing_that_caches_go_by() {
        let kept = [
            ("cache-control", "no-store"),
            ("vary", "accept"),
            ("set-cookie", "a=1"),
            ("location", "/"),
            ("surrogate-key", "a"),
            ("cache-groups", "\"a\""),
            ("content-type", "text/plain"),
        ];
        let names = kept.map(|(name, _)| name).join(", ");
        let mut headers = map(&kept);
        headers.extend(map(&[
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("proxy-authenticate", "Basic"),
            ("connection", "X-Hop,, close"),
            ("trailer", "x-sum"),
        ]));
        headers.append(header::CONNECTION, names.parse().unwrap());
        let named = end_response_hop(StatusCode::OK, &mut headers);
        let mut left = map(&kept);
        left.extend(map(&[("trailer", "x-sum")]));
        assert_eq!(headers, left, "RFC 9110 §7.6.1");
        assert_eq!(named[..], [HeaderName::from_static("x-hop")]);
    }

    #[test]
    fn a_101_and_a_426_keep_the_protocol_and_nothing_else_of_the_connection() {
        for status in [
            StatusCode::SWITCHING_PROTOCOLS,
            StatusCode::UPGRADE_REQUIRED,
        ] {
            let mut headers = map(&[
                ("connection", "upgrade, x-hop"),
                ("upgrade", "websocket"),
                ("keep-alive", "timeout=5"),
                ("x-hop", "1"),
                ("sec-websocket-accept", "x"),
            ]);
            end_response_hop(status, &mut headers);
            let kept = [
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-accept", "x"),
            ];
            assert_eq!(headers, map(&kept), "{status}");
        }
    }

    #[test]
    fn trailers_say_nothing_of_framing_authority_or_the_connection() {
        let mut trailers = map(&[
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
            ("authorization", "Basic x"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_original_url", "/admin"),
            ("trailer", "x"),
            ("x-hop", "1"),
            ("x-sum", "1"),
            ("grpc-status", "0"),
            ("etag", "\"a\""),
        ]);
        strip_trailers(&mut trailers, &[HeaderName::from_static("x-hop")]);
        let kept = map(&[("x-sum", "1"), ("grpc-status", "0"), ("etag", "\"a\"")]);
        assert_eq!(trailers, kept, "RFC 9110 §6.5.1, §7.6.1");
    }
}
