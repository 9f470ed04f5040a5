//! What is for one connection alone ends with it (RFC 9110 §7.6.1), once for each message.
//!
//! What the rest of the program needs of those fields stands beside the head as a value:
//! [`HopWishes`]. So nothing looks at a client's `Connection` a second time, and it can't name
//! what a plugin sets later.
//!
//! `Connection` may name any field, but not one that is meant for all recipients (§7.6.1). Those
//! stay, whatever it says: a proxy in front that passes a client's `Connection` on would
//! otherwise let the client remove what that proxy says of it, what ends a loop, and what a
//! cache goes by.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use smallvec::SmallVec;

use super::names::{self, FieldRemovalReason};
use crate::list;

/// Names of fields; hardly ever any.
pub type HopFieldNames = Vec<HeaderName>;

/// What the sender of a request asked of this connection alone; the head says it no more.
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

/// End-to-end fields that `Connection` cannot remove, with all that begin with a prefix below.
const PROTECTED: [HeaderName; 28] = [
    header::AGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
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

/// Protected fields that are made for trailers: their value is known at the end.
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

/// The protocols that a request wants to change to. Only HTTP/1.1 has such a wish (§7.8).
///
/// Never `h2c`: behind such an upgrade the client would speak to the origin unseen.
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

/// The end-to-end fields that `Connection` names and may name.
pub(super) fn named(headers: &HeaderMap) -> HopFieldNames {
    // They end by themselves, and name no other field.
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

/// Removes from a response what is for the connection only, and returns what else `Connection`
/// named, for its trailers. `Trailer` stays, as it announces what we pass on; so does the
/// protocol that a 101 changes to.
pub fn end_response_hop(status: StatusCode, headers: &mut HeaderMap) -> HopFieldNames {
    let named = named(headers);
    // Both say of which protocols they speak (RFC 9110 §15.2.2, §15.5.22).
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

/// Removes what must not stand behind a body: what frames, routes, authenticates or says how
/// to read the message (RFC 9110 §6.5.1), what poses as a proxy's word, and what the head's
/// `Connection` named (§7.6.1). Whoever merges trailers into the head would believe it.
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
        Some(FieldRemovalReason::HopByHop | FieldRemovalReason::Posing) => true,
        None => *name == header::TRAILER || is_protected(name) && !TRAILERS.contains(name),
    }
}

/// A field that poses ends anyway, unless the listener believes it: then a proxy has set it.
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
