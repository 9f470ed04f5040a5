//! Hop-by-hop fields end here, all others pass; loops and upgrades are seen.
//!
//! Input: the fields of a message, then our name in `CDN-Loop`.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use lamina::http::forward::{append_cdn_loop, append_via, loops, strip_hop_by_hop, wants_upgrade};

use crate::input;

pub fn check(data: &[u8]) {
    let [block, name] = input::blocks(data);
    let headers = input::fields(block);
    let mut passed = headers.clone();
    strip_hop_by_hop(&mut passed);
    for gone in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        assert!(!passed.contains_key(gone));
    }
    assert!(passed.get(TE).is_none_or(|te| te == "trailers"));
    nothing_else_goes(&headers, &passed);
    let mut again = passed.clone();
    strip_hop_by_hop(&mut again);
    assert_eq!(again, passed, "twice is once");
    if let Some(protocols) = wants_upgrade(&headers) {
        let members = protocols.to_str().unwrap_or_default().split(',');
        assert!(
            members
                .into_iter()
                .all(|one| !one.trim().eq_ignore_ascii_case("h2c"))
        );
    }
    let token = |text: &&str| HeaderName::from_bytes(text.as_bytes()).is_ok();
    if let Some(name) = input::texts(name).find(token) {
        looping(headers, name);
    }
}

/// What goes was named in `Connection` or is hop-by-hop by itself; what matters stays.
fn nothing_else_goes(headers: &HeaderMap, passed: &HeaderMap) {
    let all = |name: &HeaderName| {
        headers.get_all(name).iter().flat_map(|line: &HeaderValue| {
            line.as_bytes()
                .to_ascii_lowercase()
                .into_iter()
                .chain([b','])
        })
    };
    let named: Vec<u8> = all(&CONNECTION).collect();
    let own = [
        "keep-alive",
        "proxy-",
        "http2-settings",
        "te",
        "transfer-encoding",
        "upgrade",
        "connection",
    ];
    for name in headers.keys().filter(|name| !passed.contains_key(*name)) {
        let listed = named
            .windows(name.as_str().len())
            .any(|text| text == name.as_str().as_bytes());
        assert!(
            listed || own.iter().any(|prefix| name.as_str().starts_with(prefix)),
            "{name}"
        );
    }
    for name in [HOST, AUTHORIZATION, CONTENT_LENGTH] {
        assert!(
            headers
                .get_all(&name)
                .iter()
                .eq(passed.get_all(&name).iter())
        );
    }
}

fn looping(mut headers: HeaderMap, name: &str) {
    let had = loops(&headers, name);
    append_via(&mut headers, Version::HTTP_11, name);
    assert_eq!(loops(&headers, name), had, "Via is for people");
    append_cdn_loop(&mut headers, name);
    assert!(loops(&headers, name), "who was here is known");
}
