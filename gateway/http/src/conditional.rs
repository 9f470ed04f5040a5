//! Conditional requests against a stored response (RFC 9110 §13, RFC 9111 §4.3.2).
//!
//! A cache evaluates `If-None-Match` and, without it, `If-Modified-Since`. `If-Match` and
//! `If-Unmodified-Since` are for the origin and are ignored here (RFC 9111 §4.3.2), so no answer
//! is ever 412. `If-Range` belongs to [`super::range`].

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::digest::DIGEST_FIELDS;
use super::{date, etag, etag::EntityTag};

/// The result of the preconditions for a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreconditionOutcome {
    /// Answer as if there were no preconditions.
    Proceed,
    /// The client already has this response: 304.
    NotModified,
}

static CONDITIONS: [HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Compares the client's validators with those of the stored response; only for GET and HEAD.
///
/// `last_modified` is the stored `Last-Modified` or, without one, its `Date` (RFC 9111 §4.3.2).
/// `If-None-Match` compares weakly; if it is present, `If-Modified-Since` is ignored.
pub fn evaluate(
    method: &Method,
    request: &HeaderMap,
    etag: Option<&HeaderValue>,
    last_modified: Option<SystemTime>,
    now: SystemTime,
) -> PreconditionOutcome {
    let by_tag = request.contains_key(header::IF_NONE_MATCH);
    if !by_tag && !request.contains_key(header::IF_MODIFIED_SINCE)
        || !matches!(*method, Method::GET | Method::HEAD)
    {
        return PreconditionOutcome::Proceed;
    }
    let known_to_client = if by_tag {
        none_match_names(request, etag)
    } else {
        let since = date::field(request, &header::IF_MODIFIED_SINCE, now).at();
        since
            .zip(last_modified)
            .is_some_and(|(since, modified)| modified <= since)
    };
    if known_to_client {
        PreconditionOutcome::NotModified
    } else {
        PreconditionOutcome::Proceed
    }
}

/// Whether `If-None-Match` names this response. `*` names every one (RFC 9110 §13.1.2).
fn none_match_names(request: &HeaderMap, etag: Option<&HeaderValue>) -> bool {
    let mut tags = request
        .get_all(header::IF_NONE_MATCH)
        .into_iter()
        .flat_map(etag::list);
    tags.any(|tag| tag.opaque == b"*" || etag.is_some_and(|etag| tag.weak_eq(EntityTag::of(etag))))
}

/// Whether the request may be answered with less than the whole, because it has a precondition or
/// `Range`. Every hit asks this: one pass costs less than six look-ups by hash, and few names
/// begin as these do.
pub fn asks_for_less(request: &HeaderMap) -> bool {
    request.keys().any(|name| match name.as_str().as_bytes() {
        [b'i', b'f', b'-', ..] => CONDITIONS.contains(name),
        [b'r', b'a', ..] => *name == header::RANGE,
        _ => false,
    })
}

/// Removes preconditions and `Range`, so that the request fetches the whole representation.
pub fn strip_conditionals(request: &mut HeaderMap) {
    if !asks_for_less(request) {
        return;
    }
    for name in &CONDITIONS {
        request.remove(name);
    }
    request.remove(header::RANGE);
}

/// `Last-Modified` if it is a strong validator: at least a second before `Date`
/// (RFC 9110 §8.8.2.2). For [`super::range::evaluate`].
pub fn strong_last_modified(stored: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    let modified = date::field(stored, &header::LAST_MODIFIED, now).at()?;
    let sent = date::field(stored, &header::DATE, now).at()?;
    (modified.checked_add(Duration::from_secs(1))? <= sent).then_some(modified)
}

/// The strong validator, as `If-Range` takes it: a strong `ETag`, or, if there is no `ETag` at
/// all, a strong `Last-Modified` (RFC 9110 §8.8, §13.1.5).
pub fn strong_validator(stored: &HeaderMap, now: SystemTime) -> Option<&HeaderValue> {
    match stored.get(header::ETAG) {
        Some(tag) => (!EntityTag::of(tag).weak).then_some(tag),
        None => strong_last_modified(stored, now).and_then(|_| stored.get(header::LAST_MODIFIED)),
    }
}

/// Whether two responses have the same strong validator, so that their parts belong
/// together (RFC 9110 §15.3.7.3).
pub fn same_representation(one: &HeaderMap, other: &HeaderMap, now: SystemTime) -> bool {
    match (one.get(header::ETAG), other.get(header::ETAG)) {
        (Some(a), Some(b)) => EntityTag::of(a).strong_eq(EntityTag::of(b)),
        (None, None) => {
            let modified = strong_last_modified(one, now);
            modified.is_some() && modified == strong_last_modified(other, now)
        }
        _ => false,
    }
}

/// Whether the request has a precondition other than `If-Range`.
pub fn has_preconditions(request: &HeaderMap) -> bool {
    CONDITIONS
        .iter()
        .any(|name| *name != header::IF_RANGE && request.contains_key(name))
}

/// The header of a 304 for a stored response (RFC 9110 §15.4.5).
///
/// It has all fields of the 200, except those that describe the content, which is not sent: caches
/// behind us update their copy from it, and browsers check its CORS and policy fields.
/// `Last-Modified` is kept only without an `ETag`. `Content-Location` is kept.
pub fn not_modified_headers(stored: &HeaderMap) -> HeaderMap {
    let mut headers = stored.clone();
    for name in CONTENT_FIELDS.iter().chain(&DIGEST_FIELDS) {
        headers.remove(name);
    }
    if headers.contains_key(header::ETAG) {
        headers.remove(header::LAST_MODIFIED);
    }
    headers
}

/// Representation metadata and framing that a 304 leaves out, beside digests.
const CONTENT_FIELDS: [HeaderName; 8] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    header::ACCEPT_RANGES,
    header::TRAILER,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_000_000)
    }

    fn map(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    fn answer(
        etag: Option<&'static str>,
        request: &[(HeaderName, &'static str)],
    ) -> PreconditionOutcome {
        let etag = etag.map(HeaderValue::from_static);
        evaluate(
            &Method::GET,
            &map(request),
            etag.as_ref(),
            date::parse(MODIFIED, now()),
            now(),
        )
    }

    #[test]
    fn if_none_match_compares_weakly_and_goes_first() {
        use PreconditionOutcome::{NotModified, Proceed};
        for (etag, lines, expected, section) in [
            (Some("\"a\""), &["\"a\""][..], NotModified, "13.1.2"),
            (
                Some("\"a\""),
                &["W/\"a\""],
                NotModified,
                "13.1.2: weak comparison",
            ),
            (
                Some("W/\"a\""),
                &["\"a\""],
                NotModified,
                "13.1.2: weak comparison",
            ),
            (
                Some("\"a\""),
                &["\"x\", \"a\" , \"y\""],
                NotModified,
                "13.1.2: list",
            ),
            (
                Some("\"a\""),
                &["\"x\"", "\"a\""],
                NotModified,
                "5.3: several lines",
            ),
            (
                Some("\"a,b\""),
                &["\"a,b\""],
                NotModified,
                "8.8.3: comma in a tag",
            ),
            (Some("\"a\""), &["*"], NotModified, "13.1.2"),
            (None, &["*"], NotModified, "13.1.2"),
            (None, &["\"a\""], Proceed, "13.1.2"),
            (Some("\"a\""), &["\"b\""], Proceed, "13.1.2"),
            (
                Some("\"a\""),
                &["a"],
                Proceed,
                "8.8.3: quotes are part of the tag",
            ),
            (Some("\"a\""), &[""], Proceed, "13.1.2"),
        ] {
            let mut request: Vec<_> = lines
                .iter()
                .map(|line| (header::IF_NONE_MATCH, *line))
                .collect();
            assert_eq!(
                answer(etag, &request),
                expected,
                "{etag:?} {lines:?}: RFC 9110 §{section}"
            );
            request.push((
                header::IF_MODIFIED_SINCE,
                if expected == Proceed { LATER } else { EARLIER },
            ));
            assert_eq!(
                answer(etag, &request),
                expected,
                "{etag:?} {lines:?}: RFC 9110 §13.2.2 precedence"
            );
        }
    }

    #[test]
    fn if_modified_since_asks_for_a_newer_one() {
        use PreconditionOutcome::{NotModified, Proceed};
        for (since, expected) in [
            (MODIFIED, NotModified),
            (LATER, NotModified),
            (EARLIER, Proceed),
            ("yesterday", Proceed),
        ] {
            assert_eq!(
                answer(None, &[(header::IF_MODIFIED_SINCE, since)]),
                expected,
                "{since}: RFC 9110 §13.1.3"
            );
        }
        let twice = [
            (header::IF_MODIFIED_SINCE, LATER),
            (header::IF_MODIFIED_SINCE, LATER),
        ];
        assert_eq!(
            answer(None, &twice),
            Proceed,
            "more than one member is ignored"
        );
        assert_eq!(
            evaluate(&Method::GET, &map(&twice[..1]), None, None, now()),
            Proceed
        );
    }

    #[test]
    fn other_preconditions_and_other_methods_proceed() {
        for name in [header::IF_MATCH, header::IF_UNMODIFIED_SINCE] {
            assert_eq!(
                answer(Some("\"a\""), &[(name, "\"b\"")]),
                PreconditionOutcome::Proceed,
                "RFC 9111 §4.3.2"
            );
        }
        let request = map(&[(header::IF_NONE_MATCH, "*")]);
        assert_eq!(
            evaluate(&Method::POST, &request, None, None, now()),
            PreconditionOutcome::Proceed
        );
    }

    #[test]
    fn a_stripped_request_asks_for_the_whole() {
        let mut request = map(&[
            (header::IF_RANGE, "\"a\""),
            (header::IF_MATCH, "*"),
            (header::RANGE, "bytes=0-1"),
            (header::ACCEPT, "*/*"),
        ]);
        assert!(asks_for_less(&request));
        strip_conditionals(&mut request);
        assert!(!asks_for_less(&request));
        assert_eq!(request, map(&[(header::ACCEPT, "*/*")]));
    }

    #[test]
    fn a_304_carries_all_but_what_describes_the_content() {
        let stored = map(&[
            (header::ETAG, "\"a\""),
            (header::LAST_MODIFIED, MODIFIED),
            (header::CONTENT_LENGTH, "5"),
            (header::CONTENT_TYPE, "text/plain"),
            (header::CONTENT_LOCATION, "/a"),
            (header::CACHE_CONTROL, "max-age=5"),
            (header::VARY, "foo"),
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        ]);
        let kept = not_modified_headers(&stored);
        let names = [
            header::ETAG,
            header::CONTENT_LOCATION,
            header::CACHE_CONTROL,
            header::VARY,
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
        ];
        assert!(names.iter().all(|name| kept.contains_key(name)), "{kept:?}");
        assert_eq!(kept.len(), names.len());
        assert!(
            not_modified_headers(&map(&[(header::LAST_MODIFIED, MODIFIED)]))
                .contains_key(header::LAST_MODIFIED)
        );
    }

    #[test]
    fn last_modified_is_strong_a_second_before_date() {
        let stored = |sent| map(&[(header::LAST_MODIFIED, MODIFIED), (header::DATE, sent)]);
        assert_eq!(
            strong_last_modified(&stored(LATER), now()),
            date::parse(MODIFIED, now())
        );
        assert_eq!(strong_last_modified(&stored(MODIFIED), now()), None);
        assert_eq!(
            strong_last_modified(&map(&[(header::LAST_MODIFIED, MODIFIED)]), now()),
            None
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
                    let request = HeaderMap::from_iter([(name, value.clone())]);
                    evaluate(&Method::GET, &request, Some(&value), Some(now()), now());
                }
            }
        }
    }
}
