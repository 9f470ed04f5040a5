//! The head of an origin's response: what passes has one length, or a coding that is chunked.
//!
//! Input: a line with the status, then fields.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Response, StatusCode};
use lamina_edge::origin::response;

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let end = data
        .iter()
        .position(|&octet| octet == b'\n')
        .unwrap_or(data.len());
    let status = input::texts(&data[..end])
        .next()
        .and_then(|text| text.parse().ok());
    let mut head = Response::new(());
    *head.status_mut() = status.unwrap_or(StatusCode::OK);
    *head.headers_mut() = input::fields(data.get(end + 1..).unwrap_or_default());
    let given = head.headers().clone();
    if response::check(&mut head, false).is_err() {
        return;
    }
    assert_ne!(head.status(), StatusCode::SWITCHING_PROTOCOLS);
    let lengths: Vec<_> = head.headers().get_all(CONTENT_LENGTH).iter().collect();
    let codings = head.headers().get_all(TRANSFER_ENCODING).iter().count();
    assert!(lengths.len() + codings <= 1, "one way to tell the end");
    for length in lengths {
        let number: u64 = length.to_str().expect("digits").parse().expect("a length");
        assert_eq!(*length, number.to_string(), "in its one spelling");
        for line in given.get_all(CONTENT_LENGTH) {
            let members = line.to_str().expect("digits").split(',');
            assert!(
                members
                    .into_iter()
                    .all(|one| one.trim().parse() == Ok(number))
            );
        }
    }
    let mut again = head.map(|()| ());
    let headers = again.headers().clone();
    assert!(response::check(&mut again, false).is_ok() && *again.headers() == headers);
}
