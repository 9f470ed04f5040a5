//! PartialBody of a representation: what is held is what arrived, octet for octet, within bounds.
//!
//! Input: a line with the length of the whole (or nothing), then lines `FIRST LENGTH` of what
//! arrives and `?FIRST LENGTH` of what is asked for; last, what a 206 says in `Content-Range`.

use std::ops::Range;

use bytes::Bytes;
use http::header::CONTENT_RANGE;
use lamina_cache::parts::PartialBody;
use lamina_http::range::{ContentRange, content_range};

use fuzz_harness::input;

/// Octets that may be held; the content is twice as long.
const LIMIT: usize = 1 << 11;

pub fn check(data: &[u8]) {
    let [lines, named] = input::blocks(data);
    for line in input::lines(named) {
        place(line);
    }
    let mut lines = input::texts(lines);
    let length = lines.next().and_then(|text| text.parse::<u64>().ok());
    let content: Bytes = (0..2 * LIMIT).map(|at| (at ^ (at >> 8)) as u8).collect();
    let mut parts = PartialBody::of(length);
    let mut arrived = vec![false; content.len()];
    for line in lines.take(200) {
        match line
            .strip_prefix('?')
            .map_or_else(|| (span(line), false), |line| (span(line), true))
        {
            (Some(asked), true) => answer(&parts, &arrived, &content, &asked),
            (Some(came), false) => {
                parts = add(&parts, &content, &came);
                arrived[came].fill(true);
            }
            (None, _) => {}
        }
    }
    answer(&parts, &arrived, &content, &(0..content.len()));
    let whole = parts.whole();
    assert!(
        whole.is_none() || length.is_some(),
        "nobody said that this is all"
    );
    if let (Some(whole), Some(length)) = (whole, length) {
        assert_eq!(whole[..], content[..length as usize]);
    }
}

/// A range inside the content that is not empty.
fn span(line: &str) -> Option<Range<usize>> {
    let (first, length) = line.split_once(' ')?;
    let (first, length) = (first.parse::<usize>().ok()?, length.parse::<usize>().ok()?);
    let end = first.checked_add(length)?;
    (length > 0 && end <= 2 * LIMIT).then_some(first..end)
}

fn add(parts: &PartialBody, content: &Bytes, came: &Range<usize>) -> PartialBody {
    let all = parts.with(came.start as u64, content.slice(came.clone()), LIMIT);
    let (first, last) = (came.start as u64, came.end as u64 - 1);
    let newest = all.slice(first, last);
    assert_eq!(
        newest.as_deref(),
        Some(&content[came.clone()]),
        "what came last is there"
    );
    // 64 segments and what is around them.
    assert!(
        all.size() <= LIMIT.max(came.len()) + 64 * 2 * 64,
        "{}",
        all.size()
    );
    all
}

/// Never an octet that did not arrive, nor another one; what is missing is said exactly.
fn answer(parts: &PartialBody, arrived: &[bool], content: &Bytes, asked: &Range<usize>) {
    let (first, last) = (asked.start as u64, asked.end as u64 - 1);
    match (parts.slice(first, last), parts.missing(first, last)) {
        (Some(bytes), None) => {
            assert_eq!(bytes[..], content[asked.clone()]);
            assert!(arrived[asked.clone()].iter().all(|arrived| *arrived));
        }
        (None, Some((from, to))) => {
            assert!(first <= from && from <= to && to <= last);
            for edge in [first..from, to + 1..last + 1] {
                assert!(edge.is_empty() || parts.slice(edge.start, edge.end - 1).is_some());
            }
        }
        both => panic!("there and missing, or neither: {both:?}"),
    }
}

fn place(line: &[u8]) {
    let headers = input::values(&CONTENT_RANGE, line);
    let Some(place) = ContentRange::of(&headers) else {
        return;
    };
    assert!(place.first <= place.last && place.octets() > 0);
    assert!(place.length.is_none_or(|length| place.last < length));
    let again = content_range(place.first, place.last, place.length);
    assert_eq!(
        ContentRange::of(&[(CONTENT_RANGE, again)].into_iter().collect()),
        Some(place)
    );
    let twice = input::joined(&headers, &headers);
    assert_eq!(ContentRange::of(&twice), None, "one line or none");
}
