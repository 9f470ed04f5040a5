//! `Range` and `If-Range` against a stored response, and the multipart answer read back.
//!
//! Input: the fields of a request, the fields of a stored response, its body.

use std::future::Future as _;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use lamina_http::conditional::strong_last_modified;
use lamina_http::range::{self, MAX_RANGES, RangeAnswer};

use fuzz_harness::input;

const BOUNDARY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

pub fn check(data: &[u8]) {
    let [request, stored, body] = input::blocks(data);
    let (mut request, stored) = (input::fields(request), input::fields(stored));
    let body = Bytes::copy_from_slice(body);
    let length = body.len() as u64;
    let answer = evaluate(&request, &stored, length);
    within(&answer, length);
    if let RangeAnswer::Parts(parts) = &answer {
        multipart(parts, &body, stored.get(CONTENT_TYPE));
    }
    within(&evaluate(&request, &stored, u64::MAX), u64::MAX);
    let head = range::evaluate(&request, &Method::HEAD, None, None, length, now());
    assert_eq!(
        head,
        RangeAnswer::Whole,
        "only GET has ranges (RFC 9110 §14.2)"
    );
    if request.remove(IF_RANGE).is_some() {
        let without = evaluate(&request, &stored, length);
        assert!(
            answer == RangeAnswer::Whole || answer == without,
            "If-Range only forbids"
        );
    }
    request.append(RANGE, HeaderValue::from_static("bytes=0-"));
    request.append(RANGE, HeaderValue::from_static("bytes=0-"));
    assert_eq!(
        evaluate(&request, &stored, length),
        RangeAnswer::Whole,
        "one line or none"
    );
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_000_000)
}

fn evaluate(request: &HeaderMap, stored: &HeaderMap, length: u64) -> RangeAnswer {
    let modified = strong_last_modified(stored, now());
    range::evaluate(
        request,
        &Method::GET,
        stored.get(ETAG),
        modified,
        length,
        now(),
    )
}

/// Inside the content, apart from each other, and together no longer than it.
fn within(answer: &RangeAnswer, length: u64) {
    let parts = match answer {
        RangeAnswer::Whole => return,
        RangeAnswer::Unsatisfiable => return assert!(length > 0),
        RangeAnswer::Part { first, last } => vec![(*first, *last)],
        RangeAnswer::Parts(parts) => {
            assert!((2..=MAX_RANGES).contains(&parts.len()));
            parts.clone()
        }
    };
    let mut sorted = parts;
    sorted.sort_unstable();
    assert!(
        sorted
            .iter()
            .all(|&(first, last)| first <= last && last < length)
    );
    assert!(sorted.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
}

/// The bytes of an answer that never waits.
fn read_at_once(answer: range::Multipart) -> Bytes {
    let mut reading = std::pin::pin!(answer.collect());
    match reading
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(read) => read.expect("nothing cuts it").to_bytes(),
        Poll::Pending => panic!("the stored body is there, and the answer waits"),
    }
}

/// RFC 9110 §14.6, as a client reads it.
fn multipart(parts: &[(u64, u64)], body: &Bytes, content_type: Option<&HeaderValue>) {
    let answer = range::Multipart::new(
        parts.to_vec(),
        body.clone(),
        content_type.cloned(),
        BOUNDARY.to_owned(),
    );
    assert_eq!(
        answer.content_type(),
        format!("multipart/byteranges; boundary={BOUNDARY}")
    );
    let length = answer.size_hint().exact();
    let bytes = read_at_once(answer);
    assert_eq!(length, Some(bytes.len() as u64), "the length is exact");
    let mut rest = &bytes[..];
    for &(first, last) in parts {
        let mut head = format!("--{BOUNDARY}\r\n").into_bytes();
        if let Some(content_type) = content_type {
            head.extend([b"Content-Type: ", content_type.as_bytes(), b"\r\n"].concat());
        }
        let range = range::content_range(first, last, body.len() as u64);
        head.extend([b"Content-Range: ", range.as_bytes(), b"\r\n\r\n"].concat());
        rest = rest
            .strip_prefix(&head[..])
            .expect("a part begins with its head");
        let content = &body[first as usize..=last as usize];
        rest = rest.strip_prefix(content).expect("then the octets");
        rest = rest.strip_prefix(b"\r\n").expect("then an empty line");
    }
    assert_eq!(rest, format!("--{BOUNDARY}--\r\n").as_bytes());
}
