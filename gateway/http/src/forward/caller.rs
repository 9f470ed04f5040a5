//! Who sent a request: who connected to us, and who the client is behind trusted proxies.
//!
//! Anybody can write `X-Forwarded-For` and `Forwarded` (RFC 7239). They are believed only from a
//! peer that the listener trusts, and read from their end, where trusted proxies wrote: the client
//! is the last address that is not one of a trusted proxy. Addresses before it may have been
//! written by the client itself.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, header};
use smallvec::SmallVec;

use super::trust::{ClientField, TrustedProxies};
use super::{FOR, PROTO};
use crate::list::{self, QuoteSyntax};

/// Who sent a request, as far as that can be trusted. Determined once, on arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSender {
    connected: SocketAddr,
    client: Option<IpAddr>,
    scheme: &'static str,
    /// Whether the scheme comes from a trusted proxy, and not from the connection to us.
    scheme_told: bool,
    /// Trusted proxies between the client and the peer that connected, in the order of their hops.
    pub(super) proxies: SmallVec<[IpAddr; 1]>,
}

/// What a proxy says about the peer that connected to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ForwardedNode {
    /// It says nothing.
    Unsaid,
    /// A peer whose address it hides, or whose address cannot be parsed.
    Hidden,
    Address(IpAddr),
}

/// What one proxy reported about the hop before it.
#[derive(Clone, Copy)]
struct Hop {
    from: ForwardedNode,
    scheme: Option<&'static str>,
}

/// What one field says about the way here.
struct ReportedRoute {
    client: ForwardedNode,
    scheme: Option<&'static str>,
    proxies: SmallVec<[IpAddr; 1]>,
}

impl RequestSender {
    /// A sender without a proxy in front.
    pub fn direct(connected: SocketAddr, scheme: &'static str) -> Self {
        let connected = SocketAddr::new(connected.ip().to_canonical(), connected.port());
        Self {
            connected,
            client: Some(connected.ip()),
            scheme,
            scheme_told: false,
            proxies: SmallVec::new(),
        }
    }

    /// No sender: the gateway itself makes the request.
    pub fn nobody(scheme: &'static str) -> Self {
        Self {
            connected: SocketAddr::from(([0; 4], 0)),
            client: None,
            scheme,
            scheme_told: false,
            proxies: SmallVec::new(),
        }
    }

    /// The address at the other end of the connection: that of a proxy, if there is one in front.
    /// For a proxy that speaks the PROXY protocol it is the address that the proxy names.
    pub fn connected(&self) -> SocketAddr {
        self.connected
    }

    /// The client's address. `None` if a trusted proxy hides it, or says two different things.
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// `http` or `https`: what the client spoke, to us or to a trusted proxy.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Whether a trusted proxy said which scheme the client spoke.
    pub fn is_scheme_told(&self) -> bool {
        self.scheme_told
    }

    /// Reads what a trusted proxy says about the client: `X-Forwarded-For` and `-Proto`, and
    /// `Forwarded`, or the one of the two that the listener believes.
    ///
    /// If both name a client and they differ, the client is unknown: a proxy writes one of them and
    /// passes the other on as it came. Of several `X-Forwarded-Proto` the last one counts, which
    /// the proxy next to us wrote; without any, the `proto` of `Forwarded`.
    pub(super) fn behind_proxy(mut self, headers: &HeaderMap, trust: &TrustedProxies) -> Self {
        let believes = |field| [ClientField::Both, field].contains(&trust.client_from());
        let believes_for = believes(ClientField::XForwardedFor);
        let believes_forwarded = believes(ClientField::Forwarded);
        let way = |hops: SmallVec<[Hop; 4]>| {
            let said = !hops.is_empty();
            said.then(|| ReportedRoute::of(&hops, self.connected.ip(), trust))
        };
        let by_for = match believes_for {
            true => way(list::field(headers, &FOR).map(Hop::of_address).collect()),
            false => None,
        };
        let by_forwarded = match believes_forwarded {
            true => way(list::field(headers, &header::FORWARDED)
                .map(forwarded_element)
                .collect()),
            false => None,
        };
        let proto = match believes_for {
            true => list::field(headers, &PROTO).last().and_then(scheme_of),
            false => None,
        };
        let forwarded_proto = by_forwarded.as_ref().and_then(|way| way.scheme);
        let told = proto.or(forwarded_proto);
        self.scheme_told = told.is_some();
        self.scheme = told.unwrap_or(self.scheme);
        let agreed = match (by_for, by_forwarded) {
            (None, None) => return self,
            (Some(one), None) | (None, Some(one)) => one,
            (Some(one), Some(other)) => one.agreed(&other),
        };
        self.client = match agreed.client {
            ForwardedNode::Address(address) => Some(address),
            ForwardedNode::Hidden | ForwardedNode::Unsaid => None,
        };
        self.proxies = agreed.proxies;
        self
    }
}

impl Hop {
    fn of_address(node: &[u8]) -> Self {
        Self {
            from: node_of(node),
            scheme: None,
        }
    }
}

impl ReportedRoute {
    /// Goes back from the peer that connected, as long as trusted proxies report.
    fn of(hops: &[Hop], connected: IpAddr, trust: &TrustedProxies) -> Self {
        let mut way = Self {
            client: ForwardedNode::Address(connected),
            scheme: None,
            proxies: SmallVec::new(),
        };
        for (n, hop) in hops.iter().rev().enumerate() {
            if let (1.., ForwardedNode::Address(proxy)) = (n, way.client) {
                way.proxies.push(proxy);
            }
            way.client = hop.from;
            way.scheme = hop.scheme.or(way.scheme);
            match hop.from {
                ForwardedNode::Address(address) if trust.has_proxy(address) => {}
                _ => break,
            }
        }
        way.proxies.reverse();
        way
    }

    /// The result of two fields together.
    fn agreed(mut self, other: &Self) -> Self {
        let same = other.client == ForwardedNode::Unsaid || other.client == self.client;
        if !same {
            self.client = ForwardedNode::Hidden;
        }
        self
    }
}

/// `for=…;proto=…;…` (RFC 7239 §4). A proxy repeats its client's words in quotes (`host`, `by`),
/// so an element that has a quote where none belongs, or `for` twice, counts as a hidden address.
fn forwarded_element(element: &[u8]) -> Hop {
    read_element(element).unwrap_or(Hop {
        from: ForwardedNode::Hidden,
        scheme: None,
    })
}

fn read_element(mut rest: &[u8]) -> Option<Hop> {
    let mut hop = Hop {
        from: ForwardedNode::Unsaid,
        scheme: None,
    };
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
            if hop.from != ForwardedNode::Unsaid {
                return None;
            }
            hop.from = node_of(value);
        } else if name.eq_ignore_ascii_case(b"proto") {
            hop.scheme = scheme_of(value);
        }
    }
    Some(hop)
}

/// The text up to the next `;` outside quotes, and the text behind it; `None` if a quote does not
/// close.
fn split_pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        match octet {
            b';' => return Some((&text[..at], &text[at + 1..])),
            b'"' => at = list::closing_quote(text, at, QuoteSyntax::Escaped)? + 1,
            _ => at += 1,
        }
    }
    Some((text, &[]))
}

/// A value without its quotes; `None` if they do not enclose all of it.
fn unquoted(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"', inner @ ..] => {
            let whole = list::closing_quote(text, 0, QuoteSyntax::Escaped)? == inner.len();
            whole.then(|| &inner[..inner.len() - 1])
        }
        _ => (!text.contains(&b'"')).then_some(text),
    }
}

fn scheme_of(proto: &[u8]) -> Option<&'static str> {
    let is = |names: [&[u8]; 2]| names.iter().any(|name| proto.eq_ignore_ascii_case(name));
    if is([b"https", b"wss"]) {
        Some("https")
    } else if is([b"http", b"ws"]) {
        Some("http")
    } else {
        None
    }
}

/// An address, in brackets or not, with or without a port. `unknown` and hidden names are not
/// addresses.
fn node_of(node: &[u8]) -> ForwardedNode {
    address(node).map_or(ForwardedNode::Hidden, |address| {
        ForwardedNode::Address(address.to_canonical())
    })
}

fn address(node: &[u8]) -> Option<IpAddr> {
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
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::forward::tests::map;

    fn trust() -> TrustedProxies {
        TrustedProxies::new(&["10.0.0.0/8".to_owned(), "::1".to_owned()], &[]).unwrap()
    }

    fn caller(headers: &HeaderMap, connected: &str) -> RequestSender {
        let connected: IpAddr = connected.parse().unwrap();
        let direct = RequestSender::direct(SocketAddr::new(connected, 4711), "http");
        match trust().has_proxy(connected) {
            true => direct.behind_proxy(headers, &trust()),
            false => direct,
        }
    }

    /// The client and its scheme.
    fn found(fields: &[(&'static str, &'static str)], connected: &str) -> (String, &'static str) {
        let caller = caller(&map(fields), connected);
        let client = caller.client();
        let client = client.map_or("hidden".to_owned(), |client| client.to_string());
        (client, caller.scheme())
    }

    fn client(fields: &[(&'static str, &'static str)]) -> String {
        found(fields, "10.0.0.1").0
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        for (addresses, who) in [
            ("9.9.9.9, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8::9]:4711", "2001:db8::9"),
            ("2001:db8::9", "2001:db8::9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("203.0.113.9, ::ffff:10.0.0.2", "203.0.113.9"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("203.0.113.9, unknown", "hidden"),
            ("203.0.113.9, 10.0.0.2, _secret", "hidden"),
            ("203.0.113.9, unknown, 10.0.0.2", "hidden"),
            ("", "10.0.0.1"),
            (",,", "10.0.0.1"),
        ] {
            let headers = [("x-forwarded-for", addresses)];
            assert_eq!(found(&headers, "10.0.0.1").0, who, "{addresses}");
            assert_eq!(found(&headers, "::ffff:10.0.0.1").0, who, "{addresses}");
        }
        let two_lines = [
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-for", "8.8.8.8"),
        ];
        assert_eq!(client(&two_lines), "8.8.8.8");
        assert_eq!(client(&[]), "10.0.0.1");
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let fields = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=203.0.113.9;proto=https"),
        ];
        let who = found(&fields, "198.51.100.1");
        assert_eq!(who, ("198.51.100.1".to_owned(), "http"));
    }

    #[test]
    fn forwarded_names_the_client_where_x_forwarded_for_does_not() {
        let line = "for=9.9.9.9, FOR=\"[2001:db8::9]:4711\" ; Proto=https, for=10.0.0.2;proto=http";
        assert_eq!(
            found(&[("forwarded", line)], "10.0.0.1"),
            ("2001:db8::9".to_owned(), "https")
        );
        assert_eq!(client(&[("forwarded", "proto=https")]), "hidden");
    }

    #[test]
    fn of_two_fields_that_name_different_clients_neither_is_believed() {
        for (addresses, line, who) in [
            ("8.8.8.8", "for=9.9.9.9", "hidden"),
            ("8.8.8.8", "for=unknown", "hidden"),
            ("unknown", "for=8.8.8.8", "hidden"),
            ("8.8.8.8", "for=9.9.9.9, for=8.8.8.8", "8.8.8.8"),
            ("8.8.8.8, 10.0.0.2", "for=8.8.8.8", "8.8.8.8"),
            ("8.8.8.8", "proto=https;host=a", "8.8.8.8"),
        ] {
            let fields = [("x-forwarded-for", addresses), ("forwarded", line)];
            assert_eq!(client(&fields), who, "{addresses} {line}");
        }
    }

    /// Guards against a client that adds the field that its proxy passes on as it came.
    #[test]
    fn a_listener_may_believe_one_of_the_two_fields() {
        let fields = map(&[
            ("x-forwarded-for", "8.8.8.8"),
            ("x-forwarded-proto", "https"),
            (
                "forwarded",
                "for=9.9.9.9;proto=http, for=7.7.7.7;proto=http",
            ),
        ]);
        for (field, who, scheme) in [
            (ClientField::Both, None, "https"),
            (ClientField::XForwardedFor, Some("8.8.8.8"), "https"),
            (ClientField::Forwarded, Some("7.7.7.7"), "http"),
        ] {
            let trust = trust().naming_clients_in(field);
            let proxy = RequestSender::direct("10.0.0.1:4711".parse().unwrap(), "http");
            let caller = proxy.behind_proxy(&fields, &trust);
            let who = who.map(|who| who.parse().unwrap());
            assert_eq!(
                (caller.client(), caller.scheme()),
                (who, scheme),
                "{field:?}"
            );
        }
        let trust = trust().naming_clients_in(ClientField::Forwarded);
        let proxy = RequestSender::direct("10.0.0.1:4711".parse().unwrap(), "http");
        let named_otherwise = map(&[("x-forwarded-for", "8.8.8.8")]);
        let caller = proxy.behind_proxy(&named_otherwise, &trust);
        assert_eq!(caller.client(), "10.0.0.1".parse().ok(), "nobody is named");
    }

    #[test]
    fn one_rule_says_which_scheme_counts() {
        for (fields, scheme) in [
            (&[("x-forwarded-proto", "HTTPS")][..], "https"),
            (&[("x-forwarded-proto", "http, https")], "https"),
            (&[("x-forwarded-proto", "https, http")], "http"),
            (
                &[("x-forwarded-proto", "http"), ("x-forwarded-proto", "wss")],
                "https",
            ),
            (&[("forwarded", "proto=https")], "https"),
            (&[("forwarded", "for=8.8.8.8;proto=https")], "https"),
            (
                &[(
                    "forwarded",
                    "for=1.1.1.1;proto=https, for=8.8.8.8;proto=http",
                )],
                "http",
            ),
            (
                &[("x-forwarded-proto", "http"), ("forwarded", "proto=https")],
                "http",
            ),
            (
                &[
                    ("x-forwarded-proto", "gopher"),
                    ("forwarded", "proto=https"),
                ],
                "https",
            ),
            (&[("x-forwarded-proto", "gopher")], "http"),
            (&[], "http"),
        ] {
            assert_eq!(found(fields, "10.0.0.1").1, scheme, "{fields:?}");
        }
    }

    /// Guards against a client that names an address in its `Host`, which its proxy repeats in
    /// quotes.
    #[test]
    fn what_a_proxy_repeats_in_quotes_names_nobody() {
        for (line, who) in [
            ("for=203.0.113.9;host=\"a;for=9.9.9.9;b\"", "203.0.113.9"),
            (
                "for=203.0.113.9;host=\"a\\\";for=9.9.9.9;b\"",
                "203.0.113.9",
            ),
            ("for=203.0.113.9;for=9.9.9.9", "hidden"),
            ("for=203.0.113.9;host=\"a", "hidden"),
            ("for=9.9.9.9;x=\", for=203.0.113.9;host=\"a\"", "hidden"),
            ("for=\"203.0.113.9\"x", "hidden"),
        ] {
            assert_eq!(client(&[("forwarded", line)]), who, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_from_a_trusted_peer_are_read(
            value in proptest::collection::vec(any::<u8>(), 0..60),
            name in prop::sample::select(vec![FOR, PROTO, header::FORWARDED]),
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(HeaderName::clone(&name), value)]);
                let caller = caller(&headers, "10.0.0.1");
                prop_assert!(["http", "https"].contains(&caller.scheme()));
            }
        }
    }
}
