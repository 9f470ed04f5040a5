//! Purges that were published, kept for nodes that did not receive them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::bus::event::PublisherNumber;

/// The last purges, bounded in number and bytes.
#[derive(Default)]
pub struct PurgeHistory {
    /// Their numbers increase by one.
    said: VecDeque<(PublisherNumber, Bytes)>,
    bytes: usize,
    /// The range of numbers that is being published again: the next one, and the last one.
    again: Option<(PublisherNumber, PublisherNumber)>,
    /// A node has asked for the purges from this number on, and publishing them again has not
    /// begun.
    asked: Option<PublisherNumber>,
    /// When publishing again last began.
    began: Option<Instant>,
}

/// The most purges that are kept, and their bytes.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 4 << 20;
/// The least time between two rounds of publishing again: to ask is cheap, and each answer goes to
/// all nodes.
const REST: Duration = Duration::from_secs(1);

impl PurgeHistory {
    /// Adds a purge that is being published.
    pub fn note(&mut self, number: PublisherNumber, bytes: Bytes) {
        self.bytes += bytes.len();
        self.said.push_back((number, bytes));
        while self.said.len() > MOST || self.bytes > MOST_BYTES {
            let Some((_, bytes)) = self.said.pop_front() else {
                return;
            };
            self.bytes -= bytes.len();
        }
    }

    /// Replaces the bytes of a purge that was added.
    pub fn replace(&mut self, number: PublisherNumber, bytes: &Bytes) {
        let noted = self.said.iter_mut().rev().find(|(n, _)| *n == number);
        if let Some((_, noted)) = noted {
            self.bytes = self.bytes - noted.len() + bytes.len();
            *noted = bytes.clone();
        }
    }

    /// Asks for all purges from this number on. Several requests are answered by one round.
    pub fn ask(&mut self, from: PublisherNumber) {
        self.asked = Some(self.asked.map_or(from, |other| from.min(other)));
    }

    /// The next purge that is to be published again.
    pub fn next(&mut self, now: Instant) -> Option<Bytes> {
        if self.again.is_none() {
            self.begin(now);
        }
        let (from, to) = self.again?;
        let first = self.said.front()?.0;
        let number = from.max(first);
        self.again = (number < to).then_some((number.next(), to));
        let at = usize::try_from(number.since(first)).ok()?;
        Some(self.said.get(at)?.1.clone())
    }

    fn begin(&mut self, now: Instant) {
        let rests = |began: Instant| now.saturating_duration_since(began) < REST;
        let (Some(from), Some((newest, _))) = (self.asked, self.said.back()) else {
            self.asked = None;
            return;
        };
        if !self.began.is_some_and(rests) {
            self.asked = None;
            self.began = Some(now);
            self.again = (from <= *newest).then_some((from, *newest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(history: &mut PurgeHistory, now: Instant) -> Vec<Bytes> {
        std::iter::from_fn(|| history.next(now)).collect()
    }

    #[test]
    fn what_was_said_is_said_again_from_where_somebody_asks() {
        let (mut history, now) = (PurgeHistory::default(), Instant::now());
        history.ask(PublisherNumber::new(1));
        assert!(again(&mut history, now).is_empty());
        for number in 1..=5_u8 {
            history.note(
                PublisherNumber::new(number.into()),
                Bytes::copy_from_slice(&[number]),
            );
        }
        assert!(again(&mut history, now).is_empty());
        history.ask(PublisherNumber::new(4));
        history.ask(PublisherNumber::new(3));
        assert_eq!(again(&mut history, now), [&b"\x03"[..], b"\x04", b"\x05"]);
        assert!(again(&mut history, now).is_empty());
        for from in [6, u64::MAX] {
            history.ask(PublisherNumber::new(from));
            assert!(again(&mut history, now + REST).is_empty(), "{from}");
        }
    }

    #[test]
    fn who_asks_again_and_again_is_answered_once_a_second() {
        let (mut history, now) = (PurgeHistory::default(), Instant::now());
        history.note(PublisherNumber::new(1), Bytes::from_static(b"x"));
        let mut said = 0;
        for n in 0..1_000 {
            history.ask(PublisherNumber::new(n % 2));
            said += again(&mut history, now).len();
        }
        assert_eq!(said, 1);
        assert_eq!(
            again(&mut history, now + REST).len(),
            1,
            "it was kept in mind"
        );
        assert!(again(&mut history, now + REST * 2).is_empty());
    }

    #[test]
    fn it_keeps_to_its_bounds() {
        let mut history = PurgeHistory::default();
        for number in 1..=MOST as u64 + 10 {
            history.note(PublisherNumber::new(number), Bytes::from_static(b"x"));
        }
        history.ask(PublisherNumber::new(1));
        assert_eq!(again(&mut history, Instant::now()).len(), MOST);
        let number = PublisherNumber::new(MOST as u64 + 11);
        history.note(number, Bytes::from(vec![0; MOST_BYTES]));
        assert_eq!((history.said.len(), history.bytes), (1, MOST_BYTES));
    }
}
