//! The PROXY protocol, versions 1 and 2: who the client is behind a proxy that does not speak HTTP.
//!
//! Pure and strict: a header is complete and valid, or incomplete, or wrong; nothing is guessed,
//! since the address in it is trusted. `server` decides whose headers are read at all. This is our
//! own parser, since the two forms are 30 lines of grammar.
//! The text: <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The result of parsing the first bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParsedProxyHeader {
    /// The beginning of a header.
    Partial,
    /// A header of `length` bytes. Without `source` the client is the proxy itself, for a health
    /// check, or its address has a form that we do not know.
    Header {
        length: usize,
        source: Option<SocketAddr>,
    },
    Invalid(&'static str),
}

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The most bytes of a line of version 1, including its end (§2.1).
const LINE: usize = 107;

/// Bytes of version 2 before the addresses.
const FIXED: usize = 16;

/// The most bytes of a whole header of version 2; proxies send a few hundred.
const LONGEST: usize = 4 << 10;

/// Parses the header at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> ParsedProxyHeader {
    if bytes.starts_with(V2) {
        binary(bytes)
    } else if bytes.starts_with(V1) {
        line(bytes)
    } else if V2.starts_with(bytes) || V1.starts_with(bytes) {
        ParsedProxyHeader::Partial
    } else {
        ParsedProxyHeader::Invalid("no PROXY protocol header")
    }
}

fn line(bytes: &[u8]) -> ParsedProxyHeader {
    let window = &bytes[..bytes.len().min(LINE)];
    let Some(end) = window.iter().position(|&b| b == b'\n') else {
        return match window.len() < LINE {
            true => ParsedProxyHeader::Partial,
            false => ParsedProxyHeader::Invalid("a line of version 1 that is too long"),
        };
    };
    let text = window[..end]
        .strip_suffix(b"\r")
        .and_then(|text| std::str::from_utf8(&text[V1.len()..]).ok());
    let source = text.and_then(|text| match text.split(' ').collect::<Vec<_>>()[..] {
        ["UNKNOWN", ..] => Some(None),
        ["TCP4", from, to, port, to_port] => {
            to.parse::<Ipv4Addr>().ok()?;
            number(to_port)?;
            let from = from.parse::<Ipv4Addr>().ok()?;
            Some(Some(SocketAddr::from((from, number(port)?))))
        }
        ["TCP6", from, to, port, to_port] => {
            to.parse::<Ipv6Addr>().ok()?;
            number(to_port)?;
            let from = from.parse::<Ipv6Addr>().ok()?;
            Some(Some(SocketAddr::from((from, number(port)?))))
        }
        _ => None,
    });
    match source {
        Some(source) => ParsedProxyHeader::Header {
            length: end + 1,
            source,
        },
        None => ParsedProxyHeader::Invalid("a line of version 1 that is malformed"),
    }
}

/// A port in its only valid spelling: without a sign or leading zeros.
fn number(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

fn binary(bytes: &[u8]) -> ParsedProxyHeader {
    let Some(&[command, family, high, low]) = bytes.get(V2.len()..FIXED) else {
        return ParsedProxyHeader::Partial;
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return ParsedProxyHeader::Invalid("a header of version 2 that is too long");
    }
    if !matches!(command, 0x20 | 0x21) {
        return ParsedProxyHeader::Invalid("an unknown version or command");
    }
    let Some(rest) = bytes.get(FIXED..length) else {
        return ParsedProxyHeader::Partial;
    };
    let (source, extensions) = match (command, family) {
        // LOCAL: its addresses must be ignored (§2.2).
        (0x20, _) => (Some(None), &[][..]),
        (_, 0x00) => (Some(None), &[][..]),
        (_, 0x11) => (address::<4>(rest).map(Some), rest.get(12..).unwrap_or(&[])),
        (_, 0x21) => (address::<16>(rest).map(Some), rest.get(36..).unwrap_or(&[])),
        // A Unix socket's path.
        (_, 0x31) if rest.len() >= 216 => (Some(None), &rest[216..]),
        _ => (None, &[][..]),
    };
    match source {
        Some(source) if well_formed(extensions) => ParsedProxyHeader::Header { length, source },
        _ => ParsedProxyHeader::Invalid("a header of version 2 that is malformed"),
    }
}

/// Source and destination address of `N` bytes each, then both ports.
fn address<const N: usize>(bytes: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let from: [u8; N] = bytes.first_chunk().copied()?;
    let port: [u8; 2] = bytes.get(2 * N..2 * N + 4)?.first_chunk().copied()?;
    Some(SocketAddr::new(from.into(), u16::from_be_bytes(port)))
}

/// Whether the space is filled by extensions of type, length and value (§2.2).
fn well_formed(mut extensions: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(next) = rest.get(length..) else {
            return false;
        };
        extensions = next;
    }
    extensions.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LINE, LONGEST, ParsedProxyHeader, parse};

    fn source(bytes: &[u8]) -> Option<String> {
        match parse(bytes) {
            ParsedProxyHeader::Header { length, source } => {
                assert_eq!(length, bytes.len());
                Some(source.map_or("none".into(), |source| source.to_string()))
            }
            _ => None,
        }
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let fixed = [command, family, length[0], length[1]];
        [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], rest].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x10, 0xe1, 0, 80];

    #[test]
    fn both_versions_name_the_client() {
        for (bytes, wanted) in [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 4321 80\r\n".to_vec(),
                "192.0.2.7:4321",
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 4321 80\r\n".to_vec(),
                "[2001:db8::7]:4321",
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), "none"),
            (b"PROXY UNKNOWN anything at all\r\n".to_vec(), "none"),
            (v2(0x21, 0x11, &IPV4), "192.0.2.7:4321"),
            (
                v2(0x21, 0x11, &[&IPV4[..], &[4, 0, 2, 1, 1]].concat()),
                "192.0.2.7:4321",
            ),
            (
                v2(0x21, 0x21, &[&[0x20; 32][..], &[0, 80, 0, 81]].concat()),
                "[2020:2020:2020:2020:2020:2020:2020:2020]:80",
            ),
            (v2(0x20, 0x00, &[]), "none"),
            (v2(0x20, 0xff, b"skipped"), "none"),
            (v2(0x21, 0x00, b"skipped"), "none"),
            (v2(0x21, 0x31, &[0; 216]), "none"),
        ] {
            assert_eq!(source(&bytes).as_deref(), Some(wanted), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let wrong: [&[u8]; 14] = [
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4321\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4321 80 9\r\n",
            b"PROXY TCP4  192.0.2.7 10.0.0.1 4321 80\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 04321 80\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +4321 80\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n",
            b"PROXY TCP4 192.0.2.07 10.0.0.1 1 80\r\n",
            b"PROXY TCP4 ::1 ::1 1 80\r\n",
            b"PROXY TCP6 192.0.2.7 10.0.0.1 1 80\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4321 80\n",
            b"PROXY UDP4 192.0.2.7 10.0.0.1 4321 80\r\n",
            b"PROXY \r\n",
            b"PROXY \xff\r\n",
        ];
        for bytes in wrong {
            assert!(
                matches!(parse(bytes), ParsedProxyHeader::Invalid(_)),
                "{bytes:?}"
            );
        }
        for bytes in [
            v2(0x11, 0x11, &IPV4),
            v2(0x22, 0x11, &IPV4),
            v2(0x21, 0x12, &IPV4),
            v2(0x21, 0x13, &IPV4),
            v2(0x21, 0x11, &IPV4[..11]),
            v2(0x21, 0x21, &IPV4),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[&IPV4[..], &[4, 0]].concat()),
            v2(0x21, 0x11, &[&IPV4[..], &[4, 0, 3, 1]].concat()),
            v2(0x21, 0x00, &vec![0; LONGEST]),
        ] {
            assert!(
                matches!(parse(&bytes), ParsedProxyHeader::Invalid(_)),
                "{bytes:?}"
            );
        }
        let endless = [b"PROXY UNKNOWN ", &[b'x'; LINE][..]].concat();
        assert!(matches!(parse(&endless), ParsedProxyHeader::Invalid(_)));
    }

    proptest! {
        #[test]
        fn every_beginning_of_a_header_is_partial(at in 0_usize..60, tail: Vec<u8>) {
            let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 4321 80\r\n".to_vec();
            for header in [line, v2(0x21, 0x11, &IPV4)] {
                let whole = parse(&header);
                prop_assert_eq!(parse(&[&header[..], &tail].concat()), whole);
                if at < header.len() {
                    prop_assert_eq!(parse(&header[..at]), ParsedProxyHeader::Partial);
                }
            }
        }

        #[test]
        fn any_bytes_are_judged_within_the_limit(
            start in prop_oneof![
                Just(b"PROXY ".to_vec()),
                Just(b"\r\n\r\n\0\r\nQUIT\n".to_vec()),
                Just(Vec::new()),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..5_000),
        ) {
            let bytes = [start, rest].concat();
            match parse(&bytes) {
                ParsedProxyHeader::Header { length, .. } => prop_assert!(length <= bytes.len().min(LONGEST)),
                ParsedProxyHeader::Partial => prop_assert!(bytes.len() < LONGEST),
                ParsedProxyHeader::Invalid(_) => {}
            }
        }
    }
}
