//! Hop-by-hop fields and those that pose end here, all others pass; loops and upgrades are seen.
//!
//! Input: the fields of a message, then our name in `CDN-Loop`.

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use lamina_http::forward::{
    HopFieldNames, HopWishes, PeerTrust, RequestSender, append_cdn_loop, append_via,
    end_response_hop, is_hop_by_hop, is_posing, loops, receive, strip_trailers,
};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let [block, name] = input::blocks(data);
    let headers = input::fields(block);
    let request = |headers: &mut HeaderMap| {
        let caller = RequestSender::nobody("http");
        receive(headers, Version::HTTP_11, caller, PeerTrust::Nothing)
    };
    let mut passed = headers.clone();
    let (received, named) = request(&mut passed);
    only_what_must_goes(&headers, &passed, &named);
    assert!(!passed.keys().any(is_posing));
    let mut again = passed.clone();
    let (nothing, _) = request(&mut again);
    assert_eq!(again, passed, "twice is once");
    assert_eq!(nothing.wishes, HopWishes::default());
    if let Some(protocols) = received.wishes.upgrade {
        let members = protocols.to_str().unwrap_or_default().split(',');
        assert!(
            members
                .into_iter()
                .all(|one| !one.trim().eq_ignore_ascii_case("h2c"))
        );
    }
    let mut answer = headers.clone();
    let named = end_response_hop(StatusCode::OK, &mut answer);
    only_what_must_goes(&headers, &answer, &named);
    let mut trailers = headers.clone();
    strip_trailers(&mut trailers, &named);
    assert!(
        !trailers
            .keys()
            .any(|name| is_posing(name) || named.contains(name))
    );
    let token = |text: &&str| HeaderName::from_bytes(text.as_bytes()).is_ok();
    let id = input::texts(name).find(token);
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(id).ok()) {
        looping(headers, &id);
    }
}

/// What goes was named in `Connection` or goes by itself; what matters stays.
fn only_what_must_goes(headers: &HeaderMap, passed: &HeaderMap, named: &HopFieldNames) {
    assert!(
        !passed
            .keys()
            .any(|name| is_hop_by_hop(name) || named.contains(name))
    );
    let listed = |name: &HeaderName| {
        let mut lines = headers.get_all(CONNECTION).iter();
        let is_in = |line: &[u8]| {
            let line = line.to_ascii_lowercase();
            let mut places = line.windows(name.as_str().len());
            places.any(|text| text == name.as_str().as_bytes())
        };
        lines.any(|line| is_in(line.as_bytes()))
    };
    assert!(named.iter().all(listed), "{named:?}");
    for name in headers.keys().filter(|name| !passed.contains_key(*name)) {
        let goes = named.contains(name) || is_hop_by_hop(name) || is_posing(name);
        assert!(goes, "{name}");
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

fn looping(mut headers: HeaderMap, id: &HeaderValue) {
    let had = loops(&headers, id);
    append_via(&mut headers, Version::HTTP_11);
    assert_eq!(loops(&headers, id), had, "Via is for people");
    append_cdn_loop(&mut headers, id);
    assert!(loops(&headers, id), "who was here is known");
}
