//! The guard over request heads: what passes has one host, one length, one meaning.
//!
//! Input: a request.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Version};
use lamina_http::config::ListenerLimits;
use lamina_http::guard;

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let Some(parts) = input::request(data) else {
        return;
    };
    let limits = ListenerLimits::default();
    let mut request = Request::from_parts(parts, ());
    match guard::check(&request, &limits) {
        Ok(()) => passed(&request, &limits),
        Err(refusal) => {
            assert!(refusal.status.is_client_error() || refusal.status.is_server_error());
            assert!(!refusal.reason.is_empty());
        }
    }
    request
        .headers_mut()
        .append(HOST, HeaderValue::from_static("a"));
    request
        .headers_mut()
        .append(HOST, HeaderValue::from_static("a"));
    assert!(
        guard::check(&request, &limits).is_err(),
        "two hosts are none"
    );
}

fn passed(request: &Request<()>, limits: &ListenerLimits) {
    let headers = request.headers();
    assert!(headers.len() <= limits.max_headers);
    assert_ne!(request.method(), Method::CONNECT);
    let hosts: Vec<_> = headers
        .get_all(HOST)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    assert!(hosts.len() <= 1);
    if request.version() == Version::HTTP_11 {
        assert_eq!(hosts.len(), 1, "RFC 9112 §3.2");
    }
    for host in hosts {
        assert!(!host.is_empty() && !host.iter().any(|octet| b"@/?#\\ \t".contains(octet)));
    }
    if let Some(length) = headers.get(CONTENT_LENGTH) {
        let digits = length.to_str().expect("digits");
        assert!(digits.parse::<u64>().is_ok(), "{digits} is no length");
    }
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    assert!(
        codings.is_empty()
            || codings.len() == 1 && codings[0].as_bytes().eq_ignore_ascii_case(b"chunked")
    );
    assert!(
        !request
            .uri()
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
    );
}
