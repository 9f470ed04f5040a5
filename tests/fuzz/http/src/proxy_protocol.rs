//! The PROXY protocol: a header is the same whatever follows it, and its beginnings are beginnings.
//!
//! Input: the first bytes of a connection.

use std::net::SocketAddr;

use lamina_http::proxy_protocol::{ParsedProxyHeader, parse};

pub fn check(data: &[u8]) {
    match parse(data) {
        ParsedProxyHeader::Header { length, source } => header(&data[..length], data, source),
        ParsedProxyHeader::Partial => assert!(data.len() < 4_096 + 16, "a header has an end"),
        ParsedProxyHeader::Invalid(reason) => {
            assert!(!reason.is_empty());
            let more = [data, b"\r\n0"].concat();
            assert!(
                matches!(parse(&more), ParsedProxyHeader::Invalid(_)),
                "nothing mends it"
            );
        }
    }
}

fn header(bytes: &[u8], all: &[u8], source: Option<SocketAddr>) {
    let whole = ParsedProxyHeader::Header {
        length: bytes.len(),
        source,
    };
    assert_eq!(parse(bytes), whole);
    assert_eq!(parse(&[all, b"GET / HTTP/1.1\r\n\r\n"].concat()), whole);
    for end in (0..bytes.len()).rev().take(64).chain([0, 1, 12]) {
        if end < bytes.len() {
            assert_eq!(
                parse(&bytes[..end]),
                ParsedProxyHeader::Partial,
                "{end} bytes of it"
            );
        }
    }
    if bytes[0] == b'P' {
        line(bytes, source);
    } else if let Some(source) = source {
        let address: Vec<u8> = match source {
            SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
            SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
        };
        assert_eq!(bytes[16..16 + address.len()], address);
        assert_eq!(bytes[12], 0x21, "only PROXY names anybody");
    }
}

fn line(bytes: &[u8], source: Option<SocketAddr>) {
    let text = std::str::from_utf8(bytes).expect("a line of version 1 is text");
    let words: Vec<_> = text.trim_end().split(' ').collect();
    let Some(source) = source else {
        return assert_eq!(words[1], "UNKNOWN");
    };
    assert_eq!(words.len(), 6);
    assert_eq!(words[1], if source.is_ipv4() { "TCP4" } else { "TCP6" });
    assert_eq!(words[2].parse(), Ok(source.ip()));
    assert_eq!(words[4], source.port().to_string());
}
