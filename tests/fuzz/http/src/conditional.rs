//! Preconditions: a 304 only for who has it, `If-None-Match` before `If-Modified-Since`.
//!
//! Input: the fields of a request, the fields of a stored response, further lines of `If-None-Match`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue, Method};
use lamina_http::conditional::{
    PreconditionOutcome, asks_for_less, evaluate, not_modified_headers, strip_conditionals,
    strong_last_modified,
};
use lamina_http::{date, etag};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let [request, stored, more] = input::blocks(data);
    let (request, stored) = (input::fields(request), input::fields(stored));
    let answer = ask(&request, &stored);
    if answer == PreconditionOutcome::NotModified {
        assert!(asks_for_less(&request));
        known_to_client(&request, &stored);
    }
    precedence(&request, &stored, answer);
    let longer = input::joined(&request, &input::values(&IF_NONE_MATCH, more));
    if request.contains_key(IF_NONE_MATCH) && answer == PreconditionOutcome::NotModified {
        assert_eq!(
            ask(&longer, &stored),
            answer,
            "a longer list matches no less"
        );
    }
    tag_names_itself(&stored);
    let mut plain = request;
    strip_conditionals(&mut plain);
    assert!(!asks_for_less(&plain) && !plain.contains_key(RANGE));
    assert_eq!(ask(&plain, &stored), PreconditionOutcome::Proceed);
    header_of_304(&stored);
    let strong = strong_last_modified(&stored, now());
    let field = date::field(&stored, &LAST_MODIFIED, now()).at();
    assert!(strong.is_none() || strong == field);
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_000_000)
}

fn ask(request: &HeaderMap, stored: &HeaderMap) -> PreconditionOutcome {
    let modified = date::field(stored, &LAST_MODIFIED, now()).at();
    let answers = [Method::GET, Method::HEAD, Method::POST]
        .map(|method| evaluate(&method, request, stored.get(ETAG), modified, now()));
    assert_eq!(answers[0], answers[1], "GET and HEAD are asked alike");
    assert_eq!(
        answers[2],
        PreconditionOutcome::Proceed,
        "others are not (RFC 9110 §13.2.1)"
    );
    answers[0]
}

fn known_to_client(request: &HeaderMap, stored: &HeaderMap) {
    let bytes = |name| {
        request
            .get_all(name)
            .iter()
            .flat_map(|line: &HeaderValue| line.as_bytes())
    };
    if request.contains_key(IF_NONE_MATCH) {
        let star = bytes(IF_NONE_MATCH).any(|&octet| octet == b'*');
        assert!(
            star || stored.contains_key(ETAG),
            "a tag that is stored, or any"
        );
    } else {
        assert!(request.contains_key(IF_MODIFIED_SINCE) && stored.contains_key(LAST_MODIFIED));
    }
}

/// RFC 9110 §13.1.3: with `If-None-Match` the date says nothing.
fn precedence(request: &HeaderMap, stored: &HeaderMap, answer: PreconditionOutcome) {
    if request.contains_key(IF_NONE_MATCH) {
        let mut without = request.clone();
        without.remove(IF_MODIFIED_SINCE);
        assert_eq!(ask(&without, stored), answer);
    }
}

/// A client that repeats a stored tag has it, weak or strong.
fn tag_names_itself(stored: &HeaderMap) {
    let Some(tag) = stored.get(ETAG) else { return };
    let quoted = tag.as_bytes().strip_prefix(b"W/").unwrap_or(tag.as_bytes());
    let [b'"', inner @ .., b'"'] = quoted else {
        return;
    };
    if !inner.contains(&b'"') {
        let request = HeaderMap::from_iter([(IF_NONE_MATCH, tag.clone())]);
        assert_eq!(ask(&request, stored), PreconditionOutcome::NotModified);
        assert_eq!(etag::list(tag).count(), 1);
    }
}

fn header_of_304(stored: &HeaderMap) {
    let headers = not_modified_headers(stored);
    for name in [
        CONTENT_LENGTH,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_RANGE,
    ] {
        assert!(!headers.contains_key(name));
    }
    let validators = [ETAG, LAST_MODIFIED];
    let has = |headers: &HeaderMap| validators.iter().any(|name| headers.contains_key(name));
    assert_eq!(
        has(&headers),
        has(stored),
        "a 304 has a validator if the 200 had one"
    );
}
