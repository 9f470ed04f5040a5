//! Byte ranges of a stored, complete 200 response (RFC 9110 §14).
//!
//! A `Range` that is malformed, of another unit, spread over several lines, or asks for more than
//! [`MAX_RANGES`] is ignored, as §14.2 allows: the client gets the whole. Ranges that overlap or
//! touch become one, so no request can get an answer that is longer than the content by more than
//! its part headers. Parts are sent in the order of the request.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use smallvec::SmallVec;

use super::list::{self, QuoteSyntax};
use super::{date, etag::EntityTag};

mod multipart;

pub use multipart::Multipart;

/// The most ranges in one request; a request for more gets the whole.
pub const MAX_RANGES: usize = 16;

/// What to send of a stored response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeAnswer {
    /// 200 with everything.
    Whole,
    /// 206 with the octets from `first` to `last`, both included.
    Part { first: u64, last: u64 },
    /// 206 as `multipart/byteranges`; at least two ranges, which neither overlap nor touch.
    Parts(Vec<(u64, u64)>),
    /// 416 with `Content-Range: bytes */length`.
    Unsatisfiable,
}

/// The octets in a 206 (RFC 9110 §14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    pub first: u64,
    pub last: u64,
    /// The length of the whole; `None` is `*`.
    pub length: Option<u64>,
}

impl ContentRange {
    /// The only `Content-Range` of a response, if it is valid and in octets.
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(header::CONTENT_RANGE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return None;
        };
        let (unit, rest) = line.as_bytes().split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes ") {
            return None;
        }
        let slash = memchr::memchr(b'/', rest)?;
        let dash = memchr::memchr(b'-', &rest[..slash])?;
        let (first, last) = (number(&rest[..dash])?, number(&rest[dash + 1..slash])?);
        let length = match &rest[slash + 1..] {
            b"*" => None,
            digits => Some(number(digits)?),
        };
        // A number that was too large to represent is not a valid position either.
        let valid = first <= last && last < length.unwrap_or(u64::MAX);
        valid.then_some(Self {
            first,
            last,
            length,
        })
    }

    /// The number of octets in the range.
    pub fn octets(self) -> u64 {
        self.last - self.first + 1
    }
}

/// A range as the client wrote it.
#[derive(Clone, Copy)]
enum RangeSpec {
    Between { first: u64, last: u64 },
    Last(u64),
}

type RangeSpecs = SmallVec<[RangeSpec; 4]>;

/// Evaluates `Range` and `If-Range` for a stored response of `length` octets; only for GET.
///
/// `last_modified` must be `None` unless the date is a strong validator
/// ([`super::conditional::strong_last_modified`]); `If-Range` compares strongly (§13.1.5).
/// An empty response has no part to send, so it is always sent whole.
pub fn evaluate(
    request: &HeaderMap,
    method: &Method,
    etag: Option<&HeaderValue>,
    last_modified: Option<SystemTime>,
    length: u64,
    now: SystemTime,
) -> RangeAnswer {
    let mut lines = request.get_all(header::RANGE).iter();
    let (Some(range), None) = (lines.next(), lines.next()) else {
        return RangeAnswer::Whole;
    };
    if *method != Method::GET || length == 0 || !if_range_holds(request, etag, last_modified, now) {
        return RangeAnswer::Whole;
    }
    parse(range.as_bytes()).map_or(RangeAnswer::Whole, |specs| resolve(&specs, length))
}

/// Whether the request asks for one range of octets, and nothing else.
pub fn is_single(request: &HeaderMap) -> bool {
    let mut lines = request.get_all(header::RANGE).iter();
    match (lines.next(), lines.next()) {
        (Some(range), None) => parse(range.as_bytes()).is_some_and(|specs| specs.len() == 1),
        _ => false,
    }
}

/// Where the only range that the request asks for begins, if it has an explicit first octet.
pub fn begins_at(request: &HeaderMap) -> Option<u64> {
    let range = request.get(header::RANGE).filter(|_| is_single(request))?;
    match parse(range.as_bytes())?.first()? {
        RangeSpec::Between { first, .. } => Some(*first),
        RangeSpec::Last(_) => None,
    }
}

/// `Range` for the octets from `first` to `last`, both included.
pub fn request_range(first: u64, last: u64) -> HeaderValue {
    ascii_value(format!("bytes={first}-{last}"))
}

/// `Content-Range` of a single part; without `length` the length of the whole is unknown.
pub fn content_range(first: u64, last: u64, length: impl Into<Option<u64>>) -> HeaderValue {
    ascii_value(match length.into() {
        Some(length) => format!("bytes {first}-{last}/{length}"),
        None => format!("bytes {first}-{last}/*"),
    })
}

/// `Content-Range` of a 416.
pub fn unsatisfied_range(length: u64) -> HeaderValue {
    ascii_value(format!("bytes */{length}"))
}

fn ascii_value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .expect("digits, names and a token are visible ASCII")
}

/// Whether `If-Range` allows a range; always true without it (RFC 9110 §13.1.5).
fn if_range_holds(
    request: &HeaderMap,
    etag: Option<&HeaderValue>,
    last_modified: Option<SystemTime>,
    now: SystemTime,
) -> bool {
    let mut lines = request.get_all(header::IF_RANGE).iter();
    let Some(line) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    let tag = EntityTag::of(line);
    if tag.weak || tag.opaque.first() == Some(&b'"') {
        return etag.is_some_and(|etag| tag.strong_eq(EntityTag::of(etag)));
    }
    let given = line.to_str().ok().and_then(|text| date::parse(text, now));
    given.is_some() && given == last_modified
}

/// `bytes=` and a list of `first-last`, `first-` or `-length`; `None` if any of it is not valid.
fn parse(range: &[u8]) -> Option<RangeSpecs> {
    let (unit, set) = range.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut specs = RangeSpecs::new();
    for member in list::members(set, QuoteSyntax::Verbatim) {
        if specs.len() == MAX_RANGES {
            return None;
        }
        specs.push(parse_spec(member)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn parse_spec(text: &[u8]) -> Option<RangeSpec> {
    let dash = memchr::memchr(b'-', text)?;
    let (first, last) = (&text[..dash], &text[dash + 1..]);
    if first.is_empty() {
        return number(last).map(RangeSpec::Last);
    }
    let first = number(first)?;
    let last = if last.is_empty() {
        u64::MAX
    } else {
        number(last)?
    };
    (first <= last).then_some(RangeSpec::Between { first, last })
}

/// Digits only; a number that is too large becomes `u64::MAX`.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, octet| {
        octet.is_ascii_digit().then(|| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(octet - b'0'))
        })
    })
}

fn resolve(specs: &RangeSpecs, length: u64) -> RangeAnswer {
    let satisfiable = specs.iter().filter_map(|spec| match *spec {
        RangeSpec::Between { first, last } if first < length => Some((first, last.min(length - 1))),
        RangeSpec::Last(count) if count > 0 => Some((length.saturating_sub(count), length - 1)),
        _ => None,
    });
    let parts = coalesce(satisfiable.collect());
    match parts[..] {
        [] => RangeAnswer::Unsatisfiable,
        [(first, last)] => RangeAnswer::Part { first, last },
        _ => RangeAnswer::Parts(parts.into_vec()),
    }
}

/// Joins ranges that overlap or touch. Each result takes the position of its first member.
fn coalesce(ranges: SmallVec<[(u64, u64); 4]>) -> SmallVec<[(u64, u64); 4]> {
    let mut sorted: SmallVec<[_; 4]> = ranges
        .into_iter()
        .enumerate()
        .map(|(order, (first, last))| (first, last, order))
        .collect();
    sorted.sort_unstable();
    sorted.dedup_by(|next, kept| {
        // `last` is below the length, so adding one cannot overflow.
        let joins = next.0 <= kept.1 + 1;
        if joins {
            *kept = (kept.0, kept.1.max(next.1), kept.2.min(next.2));
        }
        joins
    });
    sorted.sort_unstable_by_key(|&(_, _, order)| order);
    sorted
        .into_iter()
        .map(|(first, last, _)| (first, last))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_000_000)
    }

    fn ask(range: &str, length: u64) -> RangeAnswer {
        let request =
            HeaderMap::from_iter([(header::RANGE, HeaderValue::from_str(range).unwrap())]);
        evaluate(&request, &Method::GET, None, None, length, now())
    }

    #[test]
    fn a_content_range_is_valid_or_nothing() {
        for (line, octets) in [
            ("bytes 0-0/1", Some((0, 0, Some(1)))),
            ("Bytes 4-9/10", Some((4, 9, Some(10)))),
            ("bytes 4-9/*", Some((4, 9, None))),
            ("bytes 4-9/9", None),
            ("bytes 9-4/10", None),
            ("bytes */10", None),
            ("bytes 4-9", None),
            ("bytes 4-/10", None),
            ("bytes=4-9/10", None),
            ("lines 4-9/10", None),
            ("bytes 0-99999999999999999999999/*", None),
        ] {
            let headers =
                HeaderMap::from_iter([(header::CONTENT_RANGE, HeaderValue::from_static(line))]);
            let read = ContentRange::of(&headers).map(|r| (r.first, r.last, r.length));
            assert_eq!(read, octets, "{line}: RFC 9110 §14.4");
        }
    }

    #[test]
    fn ranges_of_ten_octets() {
        use RangeAnswer::{Part, Parts, Unsatisfiable, Whole};
        for (range, expected) in [
            ("bytes=0-1", Part { first: 0, last: 1 }),
            ("Bytes=0-1", Part { first: 0, last: 1 }),
            ("bytes=5-", Part { first: 5, last: 9 }),
            ("bytes=5-99", Part { first: 5, last: 9 }),
            ("bytes=-3", Part { first: 7, last: 9 }),
            ("bytes=-99", Part { first: 0, last: 9 }),
            (
                "bytes=0-99999999999999999999999",
                Part { first: 0, last: 9 },
            ),
            ("bytes=10-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=20-30, 40-", Unsatisfiable),
            ("bytes=20-30, 2-3", Part { first: 2, last: 3 }),
            ("bytes=0-1, 3-4", Parts(vec![(0, 1), (3, 4)])),
            ("bytes=-1 ,, 0-1,", Parts(vec![(9, 9), (0, 1)])),
            ("bytes=0-1,2-3", Part { first: 0, last: 3 }),
            ("bytes=8-, 0-3, 2-5", Parts(vec![(8, 9), (0, 5)])),
            ("bytes=0-,0-,0-,0-", Part { first: 0, last: 9 }),
            ("bytes=", Whole),
            ("bytes=,", Whole),
            ("bytes=-", Whole),
            ("bytes=3-2", Whole),
            ("bytes=0-1, 3-2", Whole),
            ("bytes=0-1, x", Whole),
            ("bytes=+0-1", Whole),
            ("bytes=0 - 1", Whole),
            ("bytes=0x0-1", Whole),
            ("bytes 0-1", Whole),
            ("items=0-1", Whole),
            ("", Whole),
        ] {
            assert_eq!(ask(range, 10), expected, "{range}: RFC 9110 §14.1.2");
        }
    }

    #[test]
    fn more_than_sixteen_ranges_get_the_whole() {
        let many = |count: u64| {
            format!(
                "bytes={}",
                (0..count)
                    .map(|n| format!("{}-{}", n * 3, n * 3))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        };
        assert!(matches!(ask(&many(16), 1000), RangeAnswer::Parts(parts) if parts.len() == 16));
        assert_eq!(ask(&many(17), 1000), RangeAnswer::Whole);
        assert_eq!(ask(&many(10_000), 1000), RangeAnswer::Whole);
    }

    #[test]
    fn an_empty_response_other_methods_and_several_lines_get_the_whole() {
        assert_eq!(ask("bytes=0-", 0), RangeAnswer::Whole);
        let mut request =
            HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=0-1"))]);
        assert_eq!(
            evaluate(&request, &Method::HEAD, None, None, 10, now()),
            RangeAnswer::Whole
        );
        request.append(header::RANGE, HeaderValue::from_static("bytes=2-3"));
        assert_eq!(
            evaluate(&request, &Method::GET, None, None, 10, now()),
            RangeAnswer::Whole
        );
    }

    #[test]
    fn if_range_compares_strongly() {
        const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (if_range, etag, holds) in [
            ("\"a\"", Some("\"a\""), true),
            ("\"a\"", Some("\"b\""), false),
            ("\"a\"", Some("W/\"a\""), false),
            ("W/\"a\"", Some("W/\"a\""), false),
            ("W/\"a\"", Some("\"a\""), false),
            ("\"a\"", None, false),
            (DATE, None, true),
            (DATE, Some("\"a\""), true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", None, false),
            ("tomorrow", None, false),
        ] {
            let request = HeaderMap::from_iter([
                (header::RANGE, HeaderValue::from_static("bytes=0-1")),
                (header::IF_RANGE, HeaderValue::from_static(if_range)),
            ]);
            let etag = etag.map(HeaderValue::from_static);
            let answer = evaluate(
                &request,
                &Method::GET,
                etag.as_ref(),
                date::parse(DATE, now()),
                10,
                now(),
            );
            assert_eq!(
                answer != RangeAnswer::Whole,
                holds,
                "{if_range} {etag:?}: RFC 9110 §13.1.5"
            );
        }
        let request = HeaderMap::from_iter([
            (header::RANGE, HeaderValue::from_static("bytes=0-1")),
            (header::IF_RANGE, HeaderValue::from_static(DATE)),
        ]);
        assert_eq!(
            evaluate(&request, &Method::GET, None, None, 10, now()),
            RangeAnswer::Whole,
            "no strong date stored"
        );
    }

    #[test]
    fn content_range_is_spelled_as_rfc_9110_14_4_says() {
        assert_eq!(content_range(0, 1, 10), "bytes 0-1/10");
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }

    proptest! {
        #[test]
        fn parts_are_inside_and_apart(specs in proptest::collection::vec("[0-9]{0,2}-[0-9]{0,2}", 1..20), length in 0u64..60) {
            let parts = match ask(&format!("bytes={}", specs.join(",")), length) {
                RangeAnswer::Part { first, last } => vec![(first, last)],
                RangeAnswer::Parts(parts) => { prop_assert!(parts.len() > 1); parts }
                RangeAnswer::Whole | RangeAnswer::Unsatisfiable => vec![],
            };
            let mut sorted = parts.clone();
            sorted.sort_unstable();
            prop_assert!(parts.iter().all(|&(first, last)| first <= last && last < length));
            prop_assert!(sorted.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }

        #[test]
        fn any_bytes_are_answered(range in proptest::collection::vec(any::<u8>(), 0..40), length in any::<u64>()) {
            if let Ok(value) = HeaderValue::from_bytes(&[b"bytes=", &range[..]].concat()) {
                let request = HeaderMap::from_iter([(header::RANGE, value.clone()), (header::IF_RANGE, value)]);
                evaluate(&request, &Method::GET, None, None, length, now());
            }
        }
    }
}
