//! The octets of a representation that are held when not all of them are (RFC 9111 §3.3, §3.4).
//!
//! This is a value: adding octets makes a new value that shares the same bytes, so an entry does
//! not change while others read it. Segments never overlap. Of octets that arrive, only the missing
//! ones are taken; a piece is copied, so that no segment keeps a larger buffer alive than it
//! accounts for.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

use crate::http::memory::stored::{AnswersAtOnce, StoredBody, StoredReaders};

/// Parts of one representation.
#[derive(Clone, Debug, Default)]
pub struct PartialBody {
    /// Sorted by position; neighbours may touch.
    segments: Vec<Segment>,
    /// The number of octets of the whole, if the origin stated it.
    pub length: Option<u64>,
    /// The `Range` that the newest part answered, and its first and last octet. An equal request is
    /// answered by it even when the length of the whole is unknown.
    answered: Option<(HeaderValue, u64, u64)>,
}

#[derive(Clone, Debug)]
struct Segment {
    first: u64,
    bytes: StoredBody,
}

/// The largest number of segments of one representation. Beyond it, touching segments are joined,
/// and what is still too much is dropped.
const MAX_SEGMENTS: usize = 64;

impl Segment {
    /// The position after its last octet.
    fn end(&self) -> u64 {
        self.first + self.bytes.len() as u64
    }
}

impl PartialBody {
    /// No octets of a representation of this length.
    pub fn of(length: Option<u64>) -> Self {
        Self {
            length,
            ..Self::default()
        }
    }

    /// These octets and the ones that arrived, at most `limit` in all. Octets that were held before
    /// are dropped first.
    pub fn with(&self, first: u64, bytes: impl Into<StoredBody>, limit: usize) -> Self {
        let bytes = bytes.into();
        let mut all = self.clone();
        let room = (limit as u64).saturating_sub(bytes.len() as u64);
        all.shrink(room);
        let end = first + bytes.len() as u64;
        let mut from = first;
        let mut missing = Vec::new();
        for held in &all.segments {
            let gap_end = held.first.clamp(from, end);
            missing.push((from, gap_end));
            from = held.end().clamp(from, end);
        }
        missing.push((from, end));
        for (from, to) in missing.into_iter().filter(|(from, to)| from < to) {
            let piece = match (from, to) == (first, end) {
                true => bytes.clone(),
                false => {
                    let missing = &bytes[(from - first) as usize..(to - first) as usize];
                    Bytes::copy_from_slice(missing).into()
                }
            };
            all.segments.push(Segment {
                first: from,
                bytes: piece,
            });
        }
        all.segments.sort_unstable_by_key(|segment| segment.first);
        all.settle(first);
        all
    }

    /// Notes the request that the octets from `first` to `last` answered.
    pub fn answering(mut self, range: HeaderValue, first: u64, last: u64) -> Self {
        self.answered = Some((range, first, last));
        self
    }

    /// The first and last octet with which a request with this `Range` was answered before.
    pub fn answered(&self, range: &HeaderValue) -> Option<(u64, u64)> {
        let (known, first, last) = self.answered.as_ref()?;
        (known == range).then_some((*first, *last))
    }

    /// The octets from `first` to `last`, both included, if all are held: as slices of the stored
    /// bytes, in order.
    pub fn slices(&self, first: u64, last: u64) -> Option<Vec<Bytes>> {
        if self.missing(first, last).is_some() {
            return None;
        }
        let pieces = self.overlapping(first, last).map(|segment| {
            let from = first.max(segment.first);
            let to = last.saturating_add(1).min(segment.end());
            segment
                .bytes
                .octets((from - segment.first) as usize..(to - segment.first) as usize)
        });
        Some(pieces.collect())
    }

    /// The same in one piece. It is a copy when several segments hold the octets.
    pub fn slice(&self, first: u64, last: u64) -> Option<Bytes> {
        let mut pieces = self.slices(first, last)?;
        match pieces.len() {
            0 => None,
            1 => pieces.pop(),
            _ => Some(pieces.concat().into()),
        }
    }

    /// Where readers of the octets from `first` to `last` report that they read.
    pub fn readers(&self, first: u64, last: u64) -> Vec<Arc<StoredReaders>> {
        self.overlapping(first, last)
            .filter_map(|segment| segment.bytes.readers(AnswersAtOnce::Many).cloned())
            .collect()
    }

    fn overlapping(&self, first: u64, last: u64) -> impl Iterator<Item = &Segment> {
        let overlaps = move |segment: &&Segment| segment.first <= last && first < segment.end();
        self.segments.iter().filter(overlaps)
    }

    /// The smallest range that contains all missing octets of `first..=last`.
    pub fn missing(&self, first: u64, last: u64) -> Option<(u64, u64)> {
        let end = last.saturating_add(1);
        let mut from = first;
        for segment in &self.segments {
            if segment.first <= from {
                from = from.max(segment.end());
            }
        }
        let mut to = end;
        for segment in self.segments.iter().rev() {
            if segment.end() >= to {
                to = to.min(segment.first);
            }
        }
        (from < to).then(|| (from, to - 1))
    }

    /// All octets, if all are held.
    pub fn whole(&self) -> Option<StoredBody> {
        let length = self.length?;
        match &self.segments[..] {
            _ if length == 0 => Some(StoredBody::default()),
            [all] if all.first == 0 && all.end() == length => Some(all.bytes.clone()),
            _ => self.slice(0, length - 1).map(StoredBody::new),
        }
    }

    /// Its size in bytes beside the entry.
    pub fn size(&self) -> usize {
        let overhead: usize = self.segments.iter().map(|s| s.bytes.overhead()).sum();
        self.octets() as usize
            + overhead
            + self.segments.capacity() * size_of::<Segment>()
            + size_of::<Self>()
    }

    fn octets(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.bytes.len() as u64)
            .sum()
    }

    /// Drops segments from the front until at most `room` octets are left.
    fn shrink(&mut self, room: u64) {
        let mut octets = self.octets();
        let too_much = self
            .segments
            .iter()
            .take_while(|segment| {
                let over = octets > room;
                octets -= if over { segment.bytes.len() as u64 } else { 0 };
                over
            })
            .count();
        self.segments.drain(..too_much);
    }

    /// Keeps the number of segments within bounds, and always keeps the one with octet `newest`.
    fn settle(&mut self, newest: u64) {
        if self.segments.len() <= MAX_SEGMENTS {
            return;
        }
        self.join();
        while self.segments.len() > MAX_SEGMENTS {
            let front = self.segments[0].end() > newest;
            self.segments
                .remove(if front { self.segments.len() - 1 } else { 0 });
        }
    }

    fn join(&mut self) {
        let mut joined: Vec<Segment> = Vec::new();
        let mut run: Vec<Segment> = Vec::new();
        for segment in self.segments.drain(..) {
            if run.last().is_some_and(|last| last.end() != segment.first) {
                joined.extend(melt(&mut run));
            }
            run.push(segment);
        }
        joined.extend(melt(&mut run));
        self.segments = joined;
    }
}

/// Joins touching segments into one.
fn melt(run: &mut Vec<Segment>) -> Option<Segment> {
    let first = run.first()?.first;
    if run.len() == 1 {
        return run.pop();
    }
    let mut bytes = BytesMut::new();
    run.drain(..)
        .for_each(|segment| bytes.extend_from_slice(&segment.bytes));
    Some(Segment {
        first,
        bytes: bytes.freeze().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    const LIMIT: usize = 1_000;

    fn add(parts: &PartialBody, first: usize, last: usize) -> PartialBody {
        parts.with(
            first as u64,
            Bytes::from_static(&WHOLE[first..=last]),
            LIMIT,
        )
    }

    fn empty() -> PartialBody {
        PartialBody::of(Some(WHOLE.len() as u64))
    }

    #[test]
    fn parts_that_touch_or_overlap_answer_as_one() {
        let parts = add(&add(&add(&empty(), 0, 4), 8, 10), 3, 8);
        assert_eq!(parts.slice(1, 9).as_deref(), Some(&WHOLE[1..=9]));
        assert_eq!(parts.slice(1, 11), None);
        assert_eq!(parts.octets(), 11, "what was there is not held twice");
    }

    #[test]
    fn what_is_missing_is_one_range() {
        let parts = add(&add(&empty(), 0, 4), 10, 14);
        for ((first, last), missing) in [
            ((0, 4), None),
            ((2, 7), Some((5, 7))),
            ((2, 12), Some((5, 9))),
            ((6, 8), Some((6, 8))),
            ((6, 20), Some((6, 20))),
            ((12, 20), Some((15, 20))),
            ((0, u64::MAX), Some((5, u64::MAX - 1))),
        ] {
            assert_eq!(parts.missing(first, last), missing, "{first}-{last}");
        }
    }

    #[test]
    fn all_parts_are_the_whole() {
        let parts = add(&add(&empty(), 0, 20), 20, 35);
        assert_eq!(parts.whole().as_deref().map(|all| &all[..]), Some(WHOLE));
        let unknown = PartialBody::of(None).with(0, Bytes::from_static(WHOLE), LIMIT);
        assert!(unknown.whole().is_none(), "nobody said that this is all");
    }

    #[test]
    fn the_same_range_is_answered_again_without_knowing_the_length() {
        let range = HeaderValue::from_static("bytes=-3");
        let parts = PartialBody::of(None)
            .with(33, Bytes::from_static(&WHOLE[33..]), LIMIT)
            .answering(range.clone(), 33, 35);
        assert_eq!(parts.answered(&range), Some((33, 35)));
        assert_eq!(parts.answered(&HeaderValue::from_static("bytes=-4")), None);
    }

    #[test]
    fn octets_and_segments_are_bounded_and_the_newest_stay() {
        let byte = |parts: &PartialBody, at: u64| parts.with(at, Bytes::from_static(b"x"), 300);
        let apart = (0..200).fold(PartialBody::of(None), |parts, n| byte(&parts, n * 2));
        assert_eq!(apart.segments.len(), MAX_SEGMENTS);
        assert!(apart.slice(398, 398).is_some());
        let backwards = (0..200)
            .rev()
            .fold(PartialBody::of(None), |parts, n| byte(&parts, n * 2));
        assert!(backwards.segments.len() == MAX_SEGMENTS && backwards.slice(0, 0).is_some());
        let touching = (0..500).fold(PartialBody::of(None), |parts, n| byte(&parts, n));
        assert!(touching.octets() <= 300 && touching.slice(499, 499).is_some());
    }

    proptest! {
        /// Compares the parts with a plain map of octets.
        #[test]
        fn what_is_held_is_what_arrived(adds in prop::collection::vec((0usize..36, 0usize..36), 0..12), ask in (0usize..36, 0usize..36)) {
            let mut parts = empty();
            let mut held = [false; 36];
            for (a, b) in adds {
                let (first, last) = (a.min(b), a.max(b));
                parts = add(&parts, first, last);
                held[first..=last].fill(true);
            }
            let (first, last) = (ask.0.min(ask.1), ask.0.max(ask.1));
            let all = held[first..=last].iter().all(|h| *h);
            prop_assert_eq!(parts.slice(first as u64, last as u64), all.then(|| Bytes::from_static(&WHOLE[first..=last])));
            let missing: Vec<u64> = (first..=last).filter(|at| !held[*at]).map(|at| at as u64).collect();
            prop_assert_eq!(parts.missing(first as u64, last as u64), missing.first().copied().zip(missing.last().copied()));
            prop_assert_eq!(parts.octets(), held.iter().filter(|h| **h).count() as u64);
        }
    }
}
