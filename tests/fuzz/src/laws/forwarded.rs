//! Who the client is: only what trusted proxies wrote counts, and what we add is read as we meant it.
//!
//! Input: the fields of a request, then a line with the host it is for, then the text of an address.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use lamina::http::cidr::Cidr;
use lamina::http::forward::{client, set_forwarded};

use crate::input;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

pub fn check(data: &[u8]) {
    let [headers, host, address] = input::blocks(data);
    let headers = input::fields(headers);
    let held = |text: &&str| HeaderValue::from_str(text).is_ok();
    let host = input::texts(host).find(held).unwrap_or("example.org");
    let trusted: Cidr = "10.0.0.0/8".parse().expect("a network");
    let found = client(&headers, STRANGER, false, &[trusted]);
    assert_eq!(
        (found.address, found.https),
        (STRANGER, false),
        "a stranger speaks for himself"
    );
    let found = client(&headers, PROXY, false, &[trusted]);
    assert_eq!(found.address, found.address.to_canonical());
    from_a_stranger(&headers, host);
    through_a_proxy(&headers, host, &[trusted]);
    if let Some(address) = input::texts(address).find_map(|text| text.parse::<IpAddr>().ok()) {
        chain(&headers, address, host, &[trusted]);
    }
}

/// From a stranger all statements are ours.
fn from_a_stranger(headers: &HeaderMap, host: &str) {
    let mut sent = headers.clone();
    set_forwarded(&mut sent, STRANGER, "http", host, false);
    let mut bare = HeaderMap::new();
    set_forwarded(&mut bare, STRANGER, "http", host, false);
    for name in [FOR, PROTO, HOST, FORWARDED] {
        let (lines, ours) = (sent.get_all(&name), bare.get_all(&name));
        assert!(lines.iter().eq(ours.iter()), "{name}: {lines:?}");
    }
}

/// The next proxy, which trusts us, finds the client that we saw, whatever he wrote.
fn through_a_proxy(headers: &HeaderMap, host: &str, trusted: &[Cidr]) {
    for name in [FORWARDED, FOR] {
        let mut sent = headers.clone();
        for other in [FOR, FORWARDED, PROTO] {
            if other != name {
                sent.remove(other);
            }
        }
        set_forwarded(&mut sent, STRANGER, "http", host, false);
        sent.remove(if name == FOR { FORWARDED } else { FOR });
        assert_eq!(
            client(&sent, PROXY, false, trusted).address,
            STRANGER,
            "{name}"
        );
    }
}

/// A proxy that trusts the one before it adds the address that it saw, and that one is found.
fn chain(headers: &HeaderMap, address: IpAddr, host: &str, trusted: &[Cidr]) {
    for name in [FORWARDED, FOR] {
        let mut sent = headers.clone();
        set_forwarded(&mut sent, address, "https", host, true);
        let lines = sent.get_all(&name).iter().count();
        assert!(lines <= 1, "many servers read only one line");
        sent.remove(if name == FOR { FORWARDED } else { FOR });
        let found = client(&sent, PROXY, false, trusted).address;
        let near = address.to_canonical();
        if !trusted.iter().any(|network| network.contains(near)) {
            assert_eq!(found, near, "{name}: {sent:?}");
        }
    }
}
