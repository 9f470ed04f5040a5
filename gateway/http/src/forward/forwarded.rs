//! What the origin is told about the client: `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`
//! (RFC 7239).
//!
//! All of it is made from what the gateway itself uses: the client's address and the trusted
//! proxies, and the scheme and the host in the key. So nothing that a proxy passed on from its
//! client can get into an answer that others receive. A value that a plugin set, or that the
//! listener trusts, is kept.

use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::BytesMut;
use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::caller::RequestSender;
use super::{FOR, HOST, PROTO};

/// Room for the lines of most requests beside the host, so that the buffer need not grow.
const MOST_LINES: usize = 128;

/// Tells the origin who sent the request. `host` is the one in the key.
pub fn tell_origin(headers: &mut HeaderMap, caller: &RequestSender, host: &str) {
    // The values are slices of one buffer: to copy the head does not copy them.
    let mut lines = BytesMut::with_capacity(MOST_LINES + 2 * host.len());
    set_if_absent(headers, header::FORWARDED, || {
        push_forwarded(&mut lines, caller, host);
        taken(&mut lines)
    });
    set_if_absent(headers, FOR, || {
        push_addresses(&mut lines, caller);
        taken(&mut lines)
    });
    set_if_absent(headers, HOST, || {
        push(&mut lines, host);
        taken(&mut lines)
    });
    let scheme = caller.scheme();
    set_if_absent(headers, PROTO, || Some(HeaderValue::from_static(scheme)));
}

/// What has been written, as a value. None if no field can hold it.
fn taken(lines: &mut BytesMut) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(lines.split().freeze()).ok()
}

fn push(lines: &mut BytesMut, text: &str) {
    lines.extend_from_slice(text.as_bytes());
}

/// The client, then each proxy that the request came through.
fn hops(caller: &RequestSender) -> impl Iterator<Item = Option<IpAddr>> {
    let connected = caller.connected().ip();
    let direct = caller.client() == Some(connected) && caller.proxies.is_empty();
    let proxies = caller.proxies.iter().copied().map(Some);
    std::iter::once(caller.client())
        .chain(proxies)
        .chain((!direct).then_some(Some(connected)))
}

fn push_addresses(lines: &mut BytesMut, caller: &RequestSender) {
    for (n, hop) in hops(caller).enumerate() {
        if n > 0 {
            push(lines, ", ");
        }
        match hop {
            Some(address) => push_address(lines, address),
            None => push(lines, "unknown"),
        }
    }
}

/// Adds the address, without the formatter where that is easy: every request to an origin has two.
fn push_address(lines: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut digits = itoa::Buffer::new();
            for (n, octet) in address.octets().into_iter().enumerate() {
                if n > 0 {
                    push(lines, ".");
                }
                push(lines, digits.format(octet));
            }
        }
        IpAddr::V6(address) => {
            let _ = write!(lines, "{address}");
        }
    }
}

fn push_forwarded(lines: &mut BytesMut, caller: &RequestSender, host: &str) {
    for (n, hop) in hops(caller).enumerate() {
        push(lines, if n == 0 { "for=" } else { ", for=" });
        match hop {
            Some(IpAddr::V6(address)) => {
                let _ = write!(lines, "\"[{address}]\"");
            }
            Some(address) => push_address(lines, address),
            None => push(lines, "unknown"),
        }
        if n == 0 {
            push(lines, ";host=");
            push_quoted(lines, host);
            push(lines, ";proto=");
            push(lines, caller.scheme());
        }
    }
}

/// Does nothing if no field can hold the text.
fn set_if_absent(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: impl FnOnce() -> Option<HeaderValue>,
) {
    if let Entry::Vacant(place) = headers.entry(name)
        && let Some(value) = value()
    {
        place.insert(value);
    }
}

fn push_quoted(lines: &mut BytesMut, text: &str) {
    push(lines, "\"");
    for piece in text.split_inclusive(['"', '\\']) {
        let rest = piece.strip_suffix(['"', '\\']).unwrap_or(piece);
        push(lines, rest);
        if rest.len() < piece.len() {
            push(lines, "\\");
            push(lines, &piece[rest.len()..]);
        }
    }
    push(lines, "\"");
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::forward::TrustedProxies;
    use crate::forward::tests::map;

    /// What the origin is told about a request from `connected` with these fields.
    fn told(fields: &[(&'static str, &'static str)], connected: &str) -> HeaderMap {
        let trust = TrustedProxies::new(&["10.0.0.0/8".to_owned(), "::1".to_owned()], &[]).unwrap();
        let connected: IpAddr = connected.parse().unwrap();
        let direct = RequestSender::direct(SocketAddr::new(connected, 4711), "http");
        let caller = match trust.has_proxy(connected) {
            true => direct.behind_proxy(&map(fields), &trust),
            false => direct,
        };
        let mut headers = HeaderMap::new();
        tell_origin(&mut headers, &caller, "example.org:8080");
        headers
    }

    fn expected(
        addresses: &'static str,
        forwarded: &'static str,
        proto: &'static str,
    ) -> HeaderMap {
        map(&[
            ("x-forwarded-for", addresses),
            ("x-forwarded-proto", proto),
            ("x-forwarded-host", "example.org:8080"),
            ("forwarded", forwarded),
        ])
    }

    #[test]
    fn a_client_without_a_proxy_is_told_as_it_is() {
        assert_eq!(
            told(&[("x-forwarded-for", "1.1.1.1")], "::ffff:203.0.113.9"),
            expected(
                "203.0.113.9",
                "for=203.0.113.9;host=\"example.org:8080\";proto=http",
                "http"
            )
        );
    }

    #[test]
    fn behind_proxies_the_way_begins_at_the_client_and_says_nothing_of_its_words() {
        let fields = [
            ("x-forwarded-for", "9.9.9.9, 2001:db8::9, 10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            (
                "forwarded",
                "for=1.1.1.1;host=evil.example, for=\"[2001:db8::9]\"",
            ),
        ];
        assert_eq!(
            told(&fields, "10.0.0.1"),
            expected(
                "2001:db8::9, 10.0.0.2, 10.0.0.1",
                "for=\"[2001:db8::9]\";host=\"example.org:8080\";proto=https, for=10.0.0.2, \
                 for=10.0.0.1",
                "https"
            )
        );
        assert_eq!(
            told(&[("x-forwarded-for", "unknown")], "::1"),
            expected(
                "unknown, ::1",
                "for=unknown;host=\"example.org:8080\";proto=http, for=\"[::1]\"",
                "http"
            )
        );
    }

    #[test]
    fn a_host_cannot_end_its_quotes() {
        let mut headers = HeaderMap::new();
        let caller = RequestSender::direct("203.0.113.9:1".parse().unwrap(), "http");
        tell_origin(&mut headers, &caller, "a\";for=1.1.1.1;b=\"");
        assert_eq!(
            headers["forwarded"],
            "for=203.0.113.9;host=\"a\\\";for=1.1.1.1;b=\\\"\";proto=http"
        );
    }

    #[test]
    fn what_a_plugin_or_a_believed_proxy_said_stands() {
        let said = [
            ("x-forwarded-host", "www.example"),
            ("x-forwarded-for", "1.1.1.1"),
        ];
        let mut headers = map(&said);
        let caller = RequestSender::direct("203.0.113.9:1".parse().unwrap(), "http");
        tell_origin(&mut headers, &caller, "a");
        for (name, value) in said {
            assert_eq!(headers[name], value);
        }
    }
}
