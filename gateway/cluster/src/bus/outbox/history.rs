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
    /// The first number of the last round of publishing again.
    round: Option<PublisherNumber>,
    /// When another round may begin.
    rested: Option<Instant>,
}

/// The most purges that are kept, and their bytes.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 4 << 20;
/// The time between two rounds of publishing again: to ask is cheap, and each answer goes to all
/// nodes. It is a share of [`REST_MAX`] that is as large as the round's share of all that may be
/// kept, and at least [`REST_MIN`]. After an outage each node asks when it hears again, so a node
/// that comes back shortly after another one must not wait for long.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(1);

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

    /// When the next round begins, if a node has asked for one.
    pub fn due(&self) -> Option<Instant> {
        self.asked.and(self.rested)
    }

    /// What was published again last may not have arrived: begins that round anew.
    pub fn round_failed(&mut self) {
        self.again = None;
        if let Some(from) = self.round {
            self.ask(from);
        }
    }

    fn begin(&mut self, now: Instant) {
        let (Some(from), Some((newest, _))) = (self.asked, self.said.back()) else {
            self.asked = None;
            return;
        };
        if self.rested.is_none_or(|rested| rested <= now) {
            self.asked = None;
            self.round = Some(from);
            self.again = (from <= *newest).then_some((from, *newest));
            self.rested = Some(now + self.rest_after(from));
        }
    }

    /// How long to rest after publishing everything again from this number on.
    fn rest_after(&self, from: PublisherNumber) -> Duration {
        let skipped = self.said.front().map_or(0, |(first, _)| from.since(*first));
        let count = (self.said.len() as u64).saturating_sub(skipped);
        let bytes: usize = self
            .said
            .iter()
            .rev()
            .take(count as usize)
            .map(|(_, bytes)| bytes.len())
            .sum();
        let share = (count as f64 / MOST as f64).max(bytes as f64 / MOST_BYTES as f64);
        REST_MAX.mul_f64(share.min(1.0)).max(REST_MIN)
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
            assert!(again(&mut history, now + REST_MAX).is_empty(), "{from}");
        }
    }

    #[test]
    fn who_asks_soon_after_another_is_answered_soon_after_it() {
        let (mut history, now) = (PurgeHistory::default(), Instant::now());
        history.note(PublisherNumber::new(1), Bytes::from_static(b"x"));
        let mut said = 0;
        for n in 0..1_000 {
            history.ask(PublisherNumber::new(n % 2));
            said += again(&mut history, now).len();
        }
        assert_eq!(said, 1);
        assert_eq!(history.due(), Some(now + REST_MIN), "it was kept in mind");
        assert_eq!(again(&mut history, now + REST_MIN).len(), 1);
        assert_eq!(history.due(), None);
        assert!(again(&mut history, now + REST_MIN * 2).is_empty());
    }

    #[test]
    fn the_rest_after_a_round_grows_with_it() {
        for (size, of, least) in [(1, MOST, 1.0), (MOST_BYTES / 4, 4, 1.0), (1, MOST / 2, 0.5)] {
            let (mut history, now) = (PurgeHistory::default(), Instant::now());
            for number in 1..=of as u64 {
                history.note(PublisherNumber::new(number), Bytes::from(vec![0; size]));
            }
            history.ask(PublisherNumber::new(1));
            assert_eq!(again(&mut history, now).len(), of);
            history.ask(PublisherNumber::new(1));
            let rest = history.due().map(|due| due - now);
            assert_eq!(rest, Some(REST_MAX.mul_f64(least)), "{of} of {size} bytes");
        }
    }

    #[test]
    fn a_round_that_failed_begins_anew() {
        let (mut history, now) = (PurgeHistory::default(), Instant::now());
        history.round_failed();
        assert_eq!(history.due(), None);
        for number in 1..=3_u8 {
            history.note(
                PublisherNumber::new(number.into()),
                Bytes::copy_from_slice(&[number]),
            );
        }
        history.ask(PublisherNumber::new(2));
        assert_eq!(history.next(now).as_deref(), Some(&b"\x02"[..]));
        history.round_failed();
        assert_eq!(history.next(now), None);
        let said = again(&mut history, now + REST_MIN);
        assert_eq!(said, [&b"\x02"[..], b"\x03"]);
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
