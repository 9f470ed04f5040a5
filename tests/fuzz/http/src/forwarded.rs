//! Who the client is: only what trusted proxies wrote counts, and what we tell is read as we meant it.
//!
//! Input: the fields of a request, then a line with the host it is for, then the text of an address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header::FORWARDED};
use lamina_http::forward::{PeerTrust, RequestSender, TrustedProxies, receive, tell_origin};

use fuzz_harness::input;

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
    let trust = TrustedProxies::new(&["10.0.0.0/8".to_owned()], &[]).expect("a network");
    let found = told(&headers, STRANGER, host, &trust).0;
    assert_eq!(
        (found.client(), found.scheme()),
        (Some(STRANGER), "http"),
        "a stranger speaks for himself"
    );
    from_a_stranger(&headers, host, &trust);
    let (found, told_of_it) = told(&headers, PROXY, host, &trust);
    read_as_meant(&found, &told_of_it, &trust);
    if let Some(address) = input::texts(address).find_map(|text| text.parse::<IpAddr>().ok()) {
        let (found, told_of_it) = told(&headers, address, host, &trust);
        read_as_meant(&found, &told_of_it, &trust);
    }
}

/// Who sent a request with these fields from there, and the head that the origin gets.
fn told(
    headers: &HeaderMap,
    from: IpAddr,
    host: &str,
    trust: &TrustedProxies,
) -> (RequestSender, HeaderMap) {
    let belief = match trust.has_proxy(from) {
        true => PeerTrust::Proxy(trust),
        false => PeerTrust::Nothing,
    };
    let mut sent = headers.clone();
    let direct = RequestSender::direct(SocketAddr::new(from, 1), "http");
    let (received, _) = receive(&mut sent, Version::HTTP_11, direct, belief);
    tell_origin(&mut sent, &received.caller, host);
    (received.caller, sent)
}

/// From a stranger all statements are ours.
fn from_a_stranger(headers: &HeaderMap, host: &str, trust: &TrustedProxies) {
    let sent = told(headers, STRANGER, host, trust).1;
    let bare = told(&HeaderMap::new(), STRANGER, host, trust).1;
    for name in [FOR, PROTO, HOST, FORWARDED] {
        let (lines, ours) = (sent.get_all(&name), bare.get_all(&name));
        assert!(lines.iter().eq(ours.iter()), "{name}: {lines:?}");
    }
}

/// The next proxy, which trusts us, finds the client and the scheme that we found, in either
/// field and in both.
fn read_as_meant(found: &RequestSender, sent: &HeaderMap, trust: &TrustedProxies) {
    for kept in [&[FOR, PROTO][..], &[FORWARDED], &[FOR, PROTO, FORWARDED]] {
        let mut next = HeaderMap::new();
        for name in kept {
            let lines: Vec<_> = sent.get_all(name).iter().collect();
            assert_eq!(lines.len(), 1, "many servers read only one line");
            next.insert(name, lines[0].clone());
        }
        let read = told(&next, PROXY, "a", trust).0;
        assert_eq!(read.client(), found.client(), "{sent:?}");
        assert_eq!(read.scheme(), found.scheme(), "{sent:?}");
    }
}
