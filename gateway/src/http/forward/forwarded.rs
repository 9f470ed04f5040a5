//! Who the client is, and what the origin is told of it: `X-Forwarded-*` and `Forwarded` (RFC 7239).
//!
//! Anybody can write these fields. They are believed only from a peer that the
//! configuration trusts; from a stranger they are dropped, together with every field
//! by which frameworks let a request pose as another (path, method, address), and
//! with spellings in underscores, which CGI-like servers cannot tell from hyphens.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::http::cidr::Cidr;
use crate::http::list::{self, Quotes};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields by which a request poses as another, besides all of `X-Forwarded-*` (sorted).
const POSING: [&str; 25] = [
    "cf-connecting-ip",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "front-end-https",
    // Read as HTTP_PROXY by CGI programs ("httpoxy").
    "proxy",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-originating-ip",
    "x-override-url",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-rewrite-url",
    "x-url-scheme",
];

/// Where a request came from, as far as it can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub address: IpAddr,
    /// True if the client itself spoke TLS, to us or to a trusted proxy before us.
    pub https: bool,
}

/// Finds the client behind the trusted proxies: the last address that no trusted one reported.
///
/// Reads `X-Forwarded-For` and `-Proto`, or `Forwarded` where the former is absent. A list is read from
/// its end, where trusted proxies wrote; what stands before a stranger's address was written by him.
pub fn client(headers: &HeaderMap, peer: IpAddr, https: bool, trusted: &[Cidr]) -> Client {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = Client {
        address: peer.to_canonical(),
        https,
    };
    if !is_trusted(peer) {
        return client;
    }
    let by_forwarded = !headers.contains_key(FOR) && headers.contains_key(header::FORWARDED);
    // One statement for the whole chain, by the proxy next to us; `Forwarded` has one for each hop.
    if !by_forwarded && let Some(proto) = list::field(headers, &PROTO).last() {
        client.https = is_https(proto);
    }
    let hops: SmallVec<[Hop; 4]> = if by_forwarded {
        list::field(headers, &header::FORWARDED)
            .map(forwarded_element)
            .collect()
    } else {
        list::field(headers, &FOR)
            .map(|node| Hop {
                address: node_address(node),
                https: None,
            })
            .collect()
    };
    for hop in hops.into_iter().rev() {
        let Some(address) = hop.address else { break };
        client.address = address.to_canonical();
        client.https = hop.https.unwrap_or(client.https);
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// Tells the origin who asks: sets `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`.
///
/// From a `trusted` peer the lists grow by `peer`, and what it says of scheme and host stays; from
/// any other all such fields are replaced. `scheme` and `host` are those of the request to us.
pub fn set_forwarded(
    headers: &mut HeaderMap,
    peer: IpAddr,
    scheme: &str,
    host: &str,
    trusted: bool,
) {
    if !trusted {
        drop_posing(headers);
    }
    let peer = peer.to_canonical();
    let node = if peer.is_ipv6() {
        format!("\"[{peer}]\"")
    } else {
        peer.to_string()
    };
    let element = format!("for={node};host={};proto={scheme}", quoted(host));
    if headers
        .get_all(header::FORWARDED)
        .iter()
        .any(leaves_a_quote_open)
    {
        // It would take our element in.
        headers.remove(header::FORWARDED);
    }
    append_member(headers, header::FORWARDED, &element);
    append_member(headers, FOR, &peer.to_string());
    set_if_absent(headers, PROTO, scheme);
    set_if_absent(headers, HOST, host);
}

fn drop_posing(headers: &mut HeaderMap) {
    let posing: SmallVec<[HeaderName; 8]> = headers
        .keys()
        .filter(|name| is_posing(name.as_str()))
        .cloned()
        .collect();
    for name in posing {
        headers.remove(name);
    }
}

fn is_posing(name: &str) -> bool {
    let is = |name: &str| name.starts_with("x-forwarded-") || POSING.binary_search(&name).is_ok();
    is(name) || name.contains('_') && is(&name.replace('_', "-"))
}

/// Adds `member` at the end of a list, on one line: many servers read only one.
fn append_member(headers: &mut HeaderMap, name: HeaderName, member: &str) {
    let mut line = headers
        .get_all(&name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<SmallVec<[&[u8]; 4]>>()
        .join(&b", "[..]);
    if !line.is_empty() {
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(member.as_bytes());
    set(headers, name, &line);
}

fn leaves_a_quote_open(line: &HeaderValue) -> bool {
    let line = line.as_bytes();
    let mut at = 0;
    while let Some(open) = line.get(at..).and_then(|rest| memchr::memchr(b'"', rest)) {
        match list::closing_quote(line, at + open, Quotes::Escaped) {
            Some(close) => at = close + 1,
            None => return true,
        }
    }
    false
}

fn set_if_absent(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if !headers.contains_key(&name) {
        set(headers, name, text.as_bytes());
    }
}

/// Text that no field can hold removes the field: better no statement than somebody else's.
fn set(headers: &mut HeaderMap, name: HeaderName, text: &[u8]) {
    match HeaderValue::from_bytes(text) {
        Ok(value) => headers.insert(name, value),
        Err(_) => headers.remove(name),
    };
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What one proxy reported of the one before it.
#[derive(Default)]
struct Hop {
    address: Option<IpAddr>,
    https: Option<bool>,
}

/// `for=…;proto=…;…` (RFC 7239 §4). A proxy repeats its client's words in quotes (`host`, `by`),
/// so an element that has a quote where none belongs, or `for` twice, says nothing at all.
fn forwarded_element(element: &[u8]) -> Hop {
    read_element(element).unwrap_or_default()
}

fn read_element(mut rest: &[u8]) -> Option<Hop> {
    let mut hop = Hop::default();
    let mut named = false;
    while !rest.is_empty() {
        let pair;
        (pair, rest) = split_pair(rest)?;
        let Some(equals) = memchr::memchr(b'=', pair) else {
            continue;
        };
        let (name, value) = (
            list::trim(&pair[..equals]),
            unquoted(list::trim(&pair[equals + 1..]))?,
        );
        if name.eq_ignore_ascii_case(b"for") {
            if std::mem::replace(&mut named, true) {
                return None;
            }
            hop.address = node_address(value);
        } else if name.eq_ignore_ascii_case(b"proto") {
            hop.https = Some(is_https(value));
        }
    }
    Some(hop)
}

/// Up to the next `;` outside quotes, and what is behind it; `None` where a quote does not close.
fn split_pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        match octet {
            b';' => return Some((&text[..at], &text[at + 1..])),
            b'"' => at = list::closing_quote(text, at, Quotes::Escaped)? + 1,
            _ => at += 1,
        }
    }
    Some((text, &[]))
}

/// A value without its quotes; `None` where they are not around the whole of it.
fn unquoted(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"', inner @ ..] => {
            let whole = list::closing_quote(text, 0, Quotes::Escaped)? == inner.len();
            whole.then(|| &inner[..inner.len() - 1])
        }
        _ => (!text.contains(&b'"')).then_some(text),
    }
}

fn is_https(proto: &[u8]) -> bool {
    proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
}

/// An address, in brackets or not, with a port or not; `unknown` and hidden names are none.
fn node_address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let bare = node
        .strip_prefix('[')
        .and_then(|node| node.strip_suffix(']'))
        .unwrap_or(node);
    bare.parse()
        .ok()
        .or_else(|| node.parse::<SocketAddr>().ok().map(|node| node.ip()))
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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found(fields: &[(&'static str, &'static str)], peer: &str) -> (String, bool) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        let client = client(&map(fields), ip(peer), false, &trusted);
        (client.address.to_string(), client.https)
    }

    #[test]
    fn from_a_stranger_every_statement_is_replaced() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/admin"),
            ("x_forwarded_host", "evil.example"),
            ("forwarded", "for=1.1.1.1"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("x-real-ip", "1.1.1.1"),
            ("proxy", "http://evil.example"),
            ("accept", "*/*"),
        ]);
        set_forwarded(
            &mut headers,
            ip("::ffff:203.0.113.9"),
            "http",
            "example.org:8080",
            false,
        );
        let expected = map(&[
            ("accept", "*/*"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "example.org:8080"),
            (
                "forwarded",
                "for=203.0.113.9;host=\"example.org:8080\";proto=http",
            ),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn from_a_trusted_peer_lists_grow_and_statements_stay() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=1.1.1.1;proto=https"),
            ("x-original-url", "/a"),
        ]);
        set_forwarded(&mut headers, ip("2001:db8::1"), "http", "example.org", true);
        let expected = map(&[
            ("x-forwarded-for", "1.1.1.1, 10.0.0.2, 2001:db8::1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "example.org"),
            (
                "forwarded",
                "for=1.1.1.1;proto=https, for=\"[2001:db8::1]\";host=\"example.org\";proto=http",
            ),
            ("x-original-url", "/a"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_reported() {
        let client = |address: &str, https| (address.to_owned(), https);
        let spoofed = [
            ("x-forwarded-for", "9.9.9.9, 203.0.113.9, 10.0.0.2"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(found(&spoofed, "10.0.0.1"), client("203.0.113.9", true));
        assert_eq!(
            found(&spoofed, "198.51.100.1"),
            client("198.51.100.1", false),
            "a stranger is not believed"
        );
        assert_eq!(
            found(
                &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")],
                "::ffff:10.0.0.1"
            ),
            client("10.0.0.3", false)
        );
        assert_eq!(
            found(&[("x-forwarded-for", "203.0.113.9, unknown")], "10.0.0.1"),
            client("10.0.0.1", false)
        );
        assert_eq!(
            found(&[("x-forwarded-for", "203.0.113.9:4711")], "::1"),
            client("203.0.113.9", false)
        );
        assert_eq!(found(&[], "10.0.0.1"), client("10.0.0.1", false));
        assert_eq!(
            found(&[("x-forwarded-proto", "http, https")], "10.0.0.1"),
            client("10.0.0.1", true)
        );
    }

    #[test]
    fn forwarded_is_read_where_x_forwarded_for_is_absent() {
        let line = "for=9.9.9.9, FOR=\"[2001:db8::9]:4711\" ; Proto=https, for=10.0.0.2;proto=http";
        assert_eq!(
            found(&[("forwarded", line)], "10.0.0.1"),
            ("2001:db8::9".to_owned(), true)
        );
        let both = [("forwarded", "for=9.9.9.9"), ("x-forwarded-for", "8.8.8.8")];
        assert_eq!(found(&both, "10.0.0.1").0, "8.8.8.8");
    }

    /// Guards against a client's `Host`, which its proxy repeats in quotes, that names an address.
    #[test]
    fn what_a_proxy_repeats_in_quotes_names_nobody() {
        for (line, address) in [
            ("for=203.0.113.9;host=\"a;for=9.9.9.9;b\"", "203.0.113.9"),
            (
                "for=203.0.113.9;host=\"a\\\";for=9.9.9.9;b\"",
                "203.0.113.9",
            ),
            ("for=203.0.113.9;for=9.9.9.9", "10.0.0.1"),
            ("for=203.0.113.9;host=\"a", "10.0.0.1"),
            ("for=9.9.9.9;x=\", for=203.0.113.9;host=\"a\"", "10.0.0.1"),
            ("for=\"203.0.113.9\"x", "10.0.0.1"),
        ] {
            assert_eq!(
                found(&[("forwarded", line)], "10.0.0.1").0,
                address,
                "{line}"
            );
        }
    }

    #[test]
    fn an_open_quote_does_not_take_our_element_in() {
        let mut headers = map(&[("forwarded", "for=1.1.1.1, for=\"x")]);
        set_forwarded(&mut headers, ip("203.0.113.9"), "http", "a", true);
        assert_eq!(
            headers["forwarded"],
            "for=203.0.113.9;host=\"a\";proto=http"
        );
    }

    #[test]
    fn the_list_of_posing_fields_is_sorted() {
        assert!(POSING.is_sorted());
    }

    proptest! {
        #[test]
        fn any_bytes_from_a_trusted_peer_are_read(value in proptest::collection::vec(any::<u8>(), 0..60), name in prop::sample::select(vec![FOR, PROTO, header::FORWARDED])) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::from_iter([(name, value)]);
                client(&headers, ip("10.0.0.1"), false, &["10.0.0.0/8".parse().unwrap()]);
                set_forwarded(&mut headers, ip("10.0.0.1"), "http", "a\"b", true);
                prop_assert!(headers.contains_key(FOR) && headers.contains_key(header::FORWARDED));
            }
        }
    }
}
