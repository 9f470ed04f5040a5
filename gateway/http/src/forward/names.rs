//! Field names that are removed from a request on its arrival, and how they are recognised.
//!
//! CGI and the interfaces that copy it turn every octet of a name that is neither a letter nor a
//! digit into an underscore, so `X_Original_URL` and `X-Original-URL` are one variable there.
//! Names are therefore compared by [`spelled_alike`]. Most names of a request are none of these,
//! which their length and first letter show without a comparison.

use http::{HeaderMap, HeaderName, header};

/// Fields for one hop only (RFC 9110 §7.6.1, §11.7; RFC 9111 §3.1), whether or not `Connection`
/// names them (sorted).
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The field whose wish the listener itself grants: it answers `Expect: 100-continue` with a 100 or
/// a final status (RFC 9110 §10.1.1), so the expectation is met before anybody else reads the head.
const GRANTED: &str = "expect";

/// Fields by which a request poses as another (with another path, method, host, scheme or
/// address), besides all that begin with `x-forwarded` (sorted).
const POSING: [&str; 44] = [
    "cf-connecting-ip",
    "client-cert",
    "client-cert-chain",
    "client-ip",
    "client-ja4",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",
    "forwarded-for",
    "front-end-https",
    "lamina-upstream",
    // CGI programs read it as HTTP_PROXY ("httpoxy").
    "proxy",
    "proxy-client-ip",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-arr-ssl",
    "x-azure-clientip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-envoy-original-path",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-method",
    "x-original-proto",
    "x-original-uri",
    "x-original-url",
    "x-originating-ip",
    "x-override-url",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-rewrite-uri",
    "x-rewrite-url",
    "x-scheme",
    "x-script-name",
    "x-server-name",
    "x-url-scheme",
];

/// The field with the certificate that a client has shown (RFC 9440 §2.2), which the listener
/// itself sets.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The field with the certificates of the authorities that a client's certificate was verified by
/// (RFC 9440 §2.3), which the listener itself sets.
pub const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// The field with the fingerprint of a client's software (JA4), which the listener itself sets for
/// routes and plugins. Origins do not get it.
pub const CLIENT_JA4: HeaderName = HeaderName::from_static("client-ja4");

/// The field with the upstream that was chosen for a request, which the gateway itself sets for keys.
/// Origins do not get it.
pub const CHOSEN_UPSTREAM: HeaderName = HeaderName::from_static("lamina-upstream");

const POSING_PREFIX: &str = "x-forwarded";

/// The lengths that the names above have, by first letter; all lengths for that of the prefix.
static LENGTHS: [u64; 26] = {
    let mut lengths = [0; 26];
    let mut at = 0;
    while at < HOP_BY_HOP.len() + POSING.len() {
        let name = if at < HOP_BY_HOP.len() {
            HOP_BY_HOP[at].as_bytes()
        } else {
            POSING[at - HOP_BY_HOP.len()].as_bytes()
        };
        lengths[(name[0] - b'a') as usize] |= 1 << name.len();
        at += 1;
    }
    lengths[(GRANTED.as_bytes()[0] - b'a') as usize] |= 1 << GRANTED.len();
    lengths[(POSING_PREFIX.as_bytes()[0] - b'a') as usize] = u64::MAX;
    lengths
};

/// Why a field is removed on arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FieldRemovalReason {
    /// It is for this connection only.
    HopByHop,
    /// The listener has done what it asks for.
    Granted,
    /// It claims what only a proxy in front could know.
    Posing,
}

/// Whether a field of this name is removed on arrival, and why.
pub(super) fn ending(name: &HeaderName) -> Option<FieldRemovalReason> {
    let name = name.as_str();
    if !is_like_one(name) {
        return None;
    }
    let among = |known: &[&str]| {
        let compared = known.binary_search_by(|known| known.bytes().cmp(hyphenated(name)));
        compared.is_ok()
    };
    if among(&HOP_BY_HOP) {
        Some(FieldRemovalReason::HopByHop)
    } else if name == GRANTED {
        Some(FieldRemovalReason::Granted)
    } else if among(&POSING) || begins_posing(name) {
        Some(FieldRemovalReason::Posing)
    } else {
        None
    }
}

/// Whether a field is for one connection only, so that nobody may set it for another one.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    ending(name) == Some(FieldRemovalReason::HopByHop)
}

/// Whether a request poses as another by a field of this name.
pub fn is_posing(name: &HeaderName) -> bool {
    ending(name) == Some(FieldRemovalReason::Posing)
}

/// Removes a field under every spelling that servers may take for its name.
pub fn remove_spellings(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    while let Some(other) = other_spelling(headers, name) {
        headers.remove(other);
    }
}

/// Removes from a request for an origin each field whose name a server may take for another one
/// (`X_Tenant`, `X.Tenant`) that is there as well, or that the gateway goes by: those of
/// [`GONE_BY`], and those for which `is_gone_by` holds. Most heads have no such name.
pub fn remove_ambiguous(headers: &mut HeaderMap, is_gone_by: impl Fn(&HeaderName) -> bool) {
    let is_odd = |name: &&HeaderName| {
        let mut octets = name.as_str().bytes();
        octets.any(|octet| !octet.is_ascii_alphanumeric() && octet != b'-')
    };
    if !headers.keys().any(|name| is_odd(&name)) {
        return;
    }
    let is_ambiguous = |name: &&HeaderName| {
        let meant = HeaderName::from_bytes(with_hyphens(name).as_bytes());
        meant.is_ok_and(|meant| {
            headers.contains_key(&meant)
                || GONE_BY.contains(&meant)
                || super::DIFFERENCES.iter().any(|(known, _)| *known == meant)
                || is_gone_by(&meant)
        })
    };
    let odd = headers.keys().filter(is_odd).filter(is_ambiguous);
    for name in odd.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Fields that say how a request is read and which answer it gets, beside those that the gateway
/// writes itself.
static GONE_BY: [HeaderName; 8] = [
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::USER_AGENT,
];

/// Whether a field is present under its name or under a spelling that servers may take for it.
pub fn has_spelling(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.contains_key(name) || other_spelling(headers, name).is_some()
}

fn other_spelling(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderName> {
    let alike =
        |other: &&HeaderName| *other != name && spelled_alike(other.as_str(), name.as_str());
    headers.keys().find(alike).cloned()
}

fn spelled_alike(one: &str, other: &str) -> bool {
    one.len() == other.len() && hyphenated(one).eq(hyphenated(other))
}

/// The spelling of a name with hyphens only.
pub(super) fn with_hyphens(name: &HeaderName) -> String {
    hyphenated(name.as_str()).map(char::from).collect()
}

/// A name with a hyphen for each octet that CGI cannot tell from one.
fn hyphenated(name: &str) -> impl Iterator<Item = u8> {
    name.bytes()
        .map(|octet| match octet.is_ascii_alphanumeric() {
            true => octet,
            false => b'-',
        })
}

fn is_like_one(name: &str) -> bool {
    let first = name
        .as_bytes()
        .first()
        .map_or(0, |first| first.wrapping_sub(b'a'));
    let lengths = LENGTHS.get(usize::from(first)).copied().unwrap_or(0);
    lengths >> name.len().min(63) & 1 == 1
}

fn begins_posing(name: &str) -> bool {
    let beginning = hyphenated(name).take(POSING_PREFIX.len());
    beginning.eq(POSING_PREFIX.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &'static str) -> HeaderName {
        HeaderName::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_lists_are_sorted_and_each_name_in_them_ends() {
        assert!(HOP_BY_HOP.is_sorted() && POSING.is_sorted());
        for name in HOP_BY_HOP {
            assert_eq!(
                ending(&named(name)),
                Some(FieldRemovalReason::HopByHop),
                "{name}"
            );
        }
        for name in POSING {
            assert_eq!(
                ending(&named(name)),
                Some(FieldRemovalReason::Posing),
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_that_cgi_cannot_tell_from_one_is_that_one() {
        for name in [
            "X_Original_URL",
            "x_original-url",
            "X.Original.URL",
            "x-forwarded",
            "X_Forwarded_Prefix",
            "x~forwarded-server",
        ] {
            assert_eq!(
                ending(&named(name)),
                Some(FieldRemovalReason::Posing),
                "{name}"
            );
        }
        assert_eq!(
            ending(&named("Proxy_Connection")),
            Some(FieldRemovalReason::HopByHop)
        );
        assert_eq!(ending(&named("Expect")), Some(FieldRemovalReason::Granted));
    }

    #[test]
    fn other_names_go_on() {
        for name in [
            "host",
            "x",
            "accept",
            "expect-ct",
            "te-x",
            "x-forward",
            "x-original-filename",
            "x-forwarde",
            "xforwardedfor",
            "trailer",
            "upgrade-insecure-requests",
            "0",
        ] {
            assert_eq!(ending(&named(name)), None, "{name}");
        }
        let long = HeaderName::from_bytes(&[b'x'; 300]).unwrap();
        assert_eq!(ending(&long), None);
    }

    #[test]
    fn a_name_that_a_server_takes_for_one_that_the_gateway_goes_by_ends() {
        let names = [
            "x-plain",
            "x_plain",
            "x_own",
            "x_tenant",
            "accept_language",
            "if_none_match",
            "content_length",
            "x_request_id",
            "x.tenant",
        ];
        let mut headers: HeaderMap = names
            .into_iter()
            .map(|name| (named(name), http::HeaderValue::from_static("1")))
            .collect();
        remove_ambiguous(&mut headers, |name| name == "x-tenant");
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-plain", "x_own"]);
    }

    #[test]
    fn a_field_goes_with_all_its_spellings() {
        let names = ["x-user", "x_user", "x.user", "x-users"];
        let mut headers: HeaderMap = names
            .into_iter()
            .map(|name| (named(name), http::HeaderValue::from_static("1")))
            .collect();
        remove_spellings(&mut headers, &named("x-user"));
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-users"]);
        assert!(has_spelling(&headers, &named("x_users")));
    }
}
