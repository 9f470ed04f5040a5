//! Purges that were said, for who did not hear them.

use std::collections::VecDeque;

use bytes::Bytes;

/// The last purges, within bounds.
#[derive(Default)]
pub struct History {
    /// Their numbers ascend by one.
    said: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// To be said again, from this number on, up to that one.
    again: Option<(u64, u64)>,
}

/// Purges at most, and their bytes.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 4 << 20;

impl History {
    /// A purge is said.
    pub fn note(&mut self, number: u64, bytes: Bytes) {
        self.bytes += bytes.len();
        self.said.push_back((number, bytes));
        while self.said.len() > MOST || self.bytes > MOST_BYTES {
            let Some((_, bytes)) = self.said.pop_front() else {
                return;
            };
            self.bytes -= bytes.len();
        }
    }

    /// Asks for all from this number on. Several who ask are answered as one.
    pub fn ask(&mut self, from: u64) {
        let Some((newest, _)) = self.said.back() else {
            return;
        };
        let from = self.again.map_or(from, |(other, _)| from.min(other));
        self.again = Some((from, *newest));
    }

    /// The next that is to be said again.
    pub fn next(&mut self) -> Option<Bytes> {
        let (from, to) = self.again?;
        let first = self.said.front()?.0;
        let number = from.max(first);
        self.again = (number < to).then_some((number + 1, to));
        let at = usize::try_from(number - first).ok()?;
        Some(self.said.get(at)?.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(history: &mut History) -> Vec<Bytes> {
        std::iter::from_fn(|| history.next()).collect()
    }

    #[test]
    fn what_was_said_is_said_again_from_where_somebody_asks() {
        let mut history = History::default();
        history.ask(1);
        assert!(again(&mut history).is_empty());
        for number in 1..=5_u8 {
            history.note(number.into(), Bytes::copy_from_slice(&[number]));
        }
        assert!(again(&mut history).is_empty());
        history.ask(4);
        history.ask(3);
        assert_eq!(again(&mut history), [&b"\x03"[..], b"\x04", b"\x05"]);
        assert!(again(&mut history).is_empty());
    }

    #[test]
    fn it_keeps_to_its_bounds() {
        let mut history = History::default();
        for number in 1..=MOST as u64 + 10 {
            history.note(number, Bytes::from_static(b"x"));
        }
        history.ask(1);
        assert_eq!(again(&mut history).len(), MOST);
        history.note(MOST as u64 + 11, Bytes::from(vec![0; MOST_BYTES]));
        assert_eq!((history.said.len(), history.bytes), (1, MOST_BYTES));
    }
}
