//! What may pass a proxy: hop-by-hop fields are removed here, and `Via` and `CDN-Loop` are added
//! (RFC 9110 §7.6).
//!
//! A request's head is normalised on its arrival ([`receive`]), a response's when it comes from
//! the origin ([`end_response_hop`]); nothing looks at `Connection` after that. Who sent the
//! request is then a value ([`RequestSender`]), and what it asked of the connection another
//! ([`HopWishes`]); from both are made the fields that tell the origin about them
//! ([`tell_origin`]). The list [`DIFFERENCES`] has all fields in which the head for the origin may
//! differ from the head that everything else uses.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::list;

mod arrival;
mod caller;
mod forwarded;
mod hop;
mod names;
mod trust;

pub use arrival::{ForwardingContext, NAMED_HOST, PeerTrust, receive};
pub use caller::RequestSender;
pub use forwarded::tell_origin;
pub use hop::{HopFieldNames, HopWishes, TrailerWish, end_response_hop, strip_trailers};
pub use names::{
    CHOSEN_UPSTREAM, CLIENT_CERT, CLIENT_CERT_CHAIN, CLIENT_JA4, has_spelling, is_hop_by_hop,
    is_posing, remove_ambiguous, remove_spellings,
};
pub use trust::{ClientField, HeaderError, TrustedProxies, trusted_header};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The beginning of the path that a gateway has taken away.
pub const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The name of a request, for those who look for it in several logs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a field may differ between the head that route, key, `Vary`, plugins and log use and the
/// head that the origin gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadDifferenceReason {
    /// The gateway makes it from the client's address, which no key holds.
    OfTheAddress,
    /// The gateway makes it from the scheme, the host or the path, which every key holds, or the
    /// upstream sets its own host.
    OfTheKey,
    /// The gateway gives each request its own.
    OfTheRequest,
    /// The gateway adds its own hop to the value.
    OurHop,
    /// It belongs to the connection to the origin. A request that serves one client only also
    /// passes on that client's wish for an upgrade.
    OfTheConnection,
    /// The client that waits for the load accepts trailers (`TE: trailers`). This selects no
    /// representation: an answer that has trailers is not stored.
    OfTheWish,
    /// A load asks for the whole representation, whatever range or condition its client asks for,
    /// and sends the validators of the stored response.
    TheWhole,
    /// TRACE and OPTIONS, which are never stored, count their hops.
    HopsLeft,
}

/// All fields in which those two heads may differ, beside those that the `headers.request` of a route
/// names.
pub static DIFFERENCES: [(HeaderName, HeadDifferenceReason); 19] = [
    (FOR, HeadDifferenceReason::OfTheAddress),
    (header::FORWARDED, HeadDifferenceReason::OfTheAddress),
    (PROTO, HeadDifferenceReason::OfTheKey),
    (HOST, HeadDifferenceReason::OfTheKey),
    (PREFIX, HeadDifferenceReason::OfTheKey),
    (REQUEST_ID, HeadDifferenceReason::OfTheRequest),
    (header::HOST, HeadDifferenceReason::OfTheKey),
    (header::VIA, HeadDifferenceReason::OurHop),
    (CDN_LOOP, HeadDifferenceReason::OurHop),
    (header::CONNECTION, HeadDifferenceReason::OfTheConnection),
    (header::UPGRADE, HeadDifferenceReason::OfTheConnection),
    (header::TE, HeadDifferenceReason::OfTheWish),
    (header::IF_MATCH, HeadDifferenceReason::TheWhole),
    (header::IF_NONE_MATCH, HeadDifferenceReason::TheWhole),
    (header::IF_MODIFIED_SINCE, HeadDifferenceReason::TheWhole),
    (header::IF_UNMODIFIED_SINCE, HeadDifferenceReason::TheWhole),
    (header::IF_RANGE, HeadDifferenceReason::TheWhole),
    (header::RANGE, HeadDifferenceReason::TheWhole),
    (header::MAX_FORWARDS, HeadDifferenceReason::HopsLeft),
];

/// Whether the origin gets a field that may differ between two requests that are otherwise the
/// same to the cache, so that a response that varies by it is for one client only.
pub fn differs_by_client(name: &HeaderName) -> bool {
    DIFFERENCES.iter().any(|(known, why)| {
        known == name
            && matches!(
                why,
                HeadDifferenceReason::OfTheAddress
                    | HeadDifferenceReason::OfTheRequest
                    | HeadDifferenceReason::OfTheWish
            )
    })
}

/// Our name in `Via`, `Cache-Status` and `Proxy-Status`.
pub const PSEUDONYM: &str = "lamina";

/// Adds our hop to `Via` (RFC 9110 §7.6.3); `version` is the protocol of the message as received.
/// The text is a constant, which a value refers to without a copy.
pub fn append_via(headers: &mut HeaderMap, version: Version) {
    let hop = match version {
        Version::HTTP_09 => "0.9 lamina",
        Version::HTTP_10 => "1.0 lamina",
        Version::HTTP_2 => "2 lamina",
        Version::HTTP_3 => "3 lamina",
        _ => "1.1 lamina",
    };
    headers.append(header::VIA, HeaderValue::from_static(hop));
}

/// How many times our name occurs in `Via`.
pub fn passes(headers: &HeaderMap) -> usize {
    list::field(headers, &header::VIA)
        .filter(|hop| {
            let by = hop
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .nth(1);
            by.is_some_and(|by| by.eq_ignore_ascii_case(PSEUDONYM.as_bytes()))
        })
        .count()
}

/// Whether a request has passed this gateway before: `CDN-Loop` names us (RFC 8586 §2).
pub fn loops(headers: &HeaderMap, cdn_id: &HeaderValue) -> bool {
    list::field(headers, &CDN_LOOP).any(|member| {
        let id = member
            .split(|&octet| octet == b';')
            .next()
            .unwrap_or_default();
        list::trim(id).eq_ignore_ascii_case(cdn_id.as_bytes())
    })
}

/// Adds us to `CDN-Loop`, behind the members that are there (RFC 8586 §2).
pub fn append_cdn_loop(headers: &mut HeaderMap, cdn_id: &HeaderValue) {
    headers.append(CDN_LOOP, cdn_id.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
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

    #[test]
    fn via_gains_a_hop() {
        let mut headers = map(&[("via", "1.0 fred")]);
        append_via(&mut headers, Version::HTTP_11);
        append_via(&mut headers, Version::HTTP_2);
        let hops: Vec<_> = headers.get_all(header::VIA).iter().collect();
        assert_eq!(hops, ["1.0 fred", "1.1 lamina", "2 lamina"]);
        let odd = map(&[(
            "via",
            "1.1  Lamina (x, lamina), lamina, 1.1 lamina2,, 2 lamina",
        )]);
        assert_eq!(passes(&headers), 2);
        assert_eq!(passes(&odd), 2);
    }

    #[test]
    fn a_request_that_names_us_has_been_here() {
        let own = HeaderValue::from_static("lamina");
        for (line, loops_here) in [
            ("lamina", true),
            ("foo, Lamina; x=1", true),
            ("foo;a=\"x, lamina\"", false),
            ("lamina.example", false),
            ("", false),
        ] {
            assert_eq!(
                loops(&map(&[("cdn-loop", line)]), &own),
                loops_here,
                "{line}: RFC 8586 §2"
            );
        }
        let mut headers = map(&[("cdn-loop", "foo")]);
        append_cdn_loop(&mut headers, &own);
        assert!(loops(&headers, &HeaderValue::from_static("foo")) && loops(&headers, &own));
    }
}
