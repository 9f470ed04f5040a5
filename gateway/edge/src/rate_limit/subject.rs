//! What a limit counts by: the part of a request that tells one allowance from another.

use std::net::IpAddr;

use http::request::Parts;

use super::config::LimitKey;
use crate::http::cookies;

/// A request as limits see it.
#[derive(Clone, Copy)]
pub struct LimitSubject<'a> {
    pub parts: &'a Parts,
    /// None: trusted proxies hide it.
    pub client: Option<IpAddr>,
    pub route: &'a str,
}

impl LimitSubject<'_> {
    /// Writes what the request has in place of `key`, so that different values give different
    /// octets. A request without that field or cookie counts for its client.
    pub fn write(&self, key: &LimitKey, mut to: impl FnMut(&[u8])) {
        let headers = &self.parts.headers;
        match key {
            LimitKey::Header(name) => match headers.get(name) {
                Some(value) => {
                    to(b"h");
                    to(value.as_bytes());
                }
                None => self.write_client(to),
            },
            LimitKey::Cookie(name) => match cookies::values(headers, name.as_bytes()).next() {
                Some(value) => {
                    to(b"k");
                    to(value);
                }
                None => self.write_client(to),
            },
            LimitKey::PathSegment(number) => {
                let mut segments = self.parts.uri.path().split('/').skip(1);
                to(b"p");
                to(segments.nth(number - 1).unwrap_or_default().as_bytes());
            }
            LimitKey::Route => {
                to(b"r");
                to(self.route.as_bytes());
            }
            LimitKey::Client => self.write_client(to),
        }
    }

    /// An IPv6 client has a network of its own, with as many addresses as it likes.
    fn write_client(&self, mut to: impl FnMut(&[u8])) {
        match self.client.map(|address| address.to_canonical()) {
            // In one piece, which hashers take in less time.
            Some(IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                to(&[b'4', a, b, c, d]);
            }
            Some(IpAddr::V6(address)) => {
                to(b"6");
                to(&address.octets()[..8]);
            }
            None => to(b"-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn key_of(key: &str, client: Option<&str>, fields: &[(&str, &str)], path: &str) -> Vec<u8> {
        let mut request = Request::builder().uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let subject = LimitSubject {
            parts: &parts,
            client: client.map(|client| client.parse().unwrap()),
            route: "site",
        };
        let mut octets = Vec::new();
        subject.write(&key.parse().unwrap(), |part| octets.extend_from_slice(part));
        octets
    }

    #[test]
    fn clients_of_one_ipv6_network_are_one_client() {
        let of = |client| key_of("client", client, &[], "/");
        let one = of(Some("2001:db8:1:2::1"));
        assert_eq!(one, of(Some("2001:db8:1:2:ffff::9")));
        assert_ne!(one, of(Some("2001:db8:1:3::1")));
        assert_ne!(of(Some("192.0.2.1")), of(Some("192.0.2.2")));
        assert_eq!(of(Some("192.0.2.1")), of(Some("::ffff:192.0.2.1")));
        assert_ne!(of(None), of(Some("192.0.2.1")));
    }

    #[test]
    fn a_request_without_the_field_counts_for_its_client() {
        let client = Some("192.0.2.1");
        let of = |key, fields: &[_]| key_of(key, client, fields, "/");
        for key in ["header x-api-key", "cookie sid"] {
            assert_eq!(
                of(key, &[("cookie", "other=1; sidx=2")]),
                of("client", &[]),
                "{key}"
            );
        }
        assert_ne!(
            of("header x-api-key", &[("x-api-key", "a")]),
            of("header x-api-key", &[("x-api-key", "b")])
        );
        let one = of("cookie sid", &[("cookie", "a=1; sid=7")]);
        assert_eq!(one, of("cookie sid", &[("cookie", "sid=7")]));
        assert_eq!(one, of("cookie sid", &[("cookie", "sid\t =7")]));
        assert_ne!(one, of("cookie sid", &[("cookie", "sid=8")]));
        assert_ne!(one, of("header x-api-key", &[("x-api-key", "7")]));
    }

    #[test]
    fn segments_of_the_path_are_numbered_from_one() {
        let of = |number, path| key_of(&format!("path.{number}"), None, &[], path);
        assert_eq!(of(2, "/api/users/7"), b"pusers");
        assert_eq!(of(3, "/api/users/7"), b"p7");
        assert_eq!(of(4, "/api/users/7"), b"p");
    }
}
