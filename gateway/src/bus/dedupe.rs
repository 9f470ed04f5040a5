//! Events that were applied a while ago, by their ids, within bounds.
//!
//! Pure: `now` is an argument. Noted only once an event was applied, so that one that
//! failed can be delivered again.
//!
//! Decision: ids are kept as 128 bits of keyed hashes, since anybody's id may be 64 KiB
//! long. The keys are random, so that nobody can make an id that hides another one's event.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// The ids.
pub struct Dedupe {
    keys: [RandomState; 2],
    seen: HashSet<Mark>,
    turns: VecDeque<(Instant, Mark)>,
    most: usize,
    life: Duration,
}

/// What is kept of an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark([u64; 2]);

impl Dedupe {
    pub fn new(most: usize, life: Duration) -> Self {
        Self {
            keys: Default::default(),
            seen: HashSet::new(),
            turns: VecDeque::new(),
            most,
            life,
        }
    }

    /// What is kept of this id here.
    pub fn mark(&self, id: &str) -> Mark {
        Mark(self.keys.each_ref().map(|key| key.hash_one(id)))
    }

    /// Whether this id was noted lately.
    pub fn knows(&mut self, id: Mark, now: Instant) -> bool {
        self.forget(now);
        self.seen.contains(&id)
    }

    /// Notes an id; the oldest goes where there are too many.
    pub fn note(&mut self, id: Mark, now: Instant) {
        if self.most == 0 || !self.seen.insert(id) {
            return;
        }
        while self.turns.len() >= self.most {
            self.forget_oldest();
        }
        self.turns.push_back((now, id));
    }

    fn forget(&mut self, now: Instant) {
        let life = self.life;
        let over = |noted: &Instant| now.saturating_duration_since(*noted) >= life;
        while self.turns.front().is_some_and(|(noted, _)| over(noted)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.turns.pop_front() {
            self.seen.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_its_time_and_within_the_bound() {
        let (start, life) = (Instant::now(), Duration::from_secs(300));
        let mut seen = Dedupe::new(2, life);
        let [a, b, c] = ["a", "b", "c"].map(|id| seen.mark(id));
        assert!(!seen.knows(a, start));
        seen.note(a, start);
        seen.note(b, start);
        assert!(seen.knows(a, start + life / 2));
        seen.note(b, start + life / 2);
        assert!(seen.knows(a, start), "what is known takes nobody's place");
        seen.note(c, start + life / 2);
        assert!(!seen.knows(a, start + life / 2), "the oldest made room");
        assert!(!seen.knows(b, start + life));
        assert!(seen.knows(c, start + life));
        assert_eq!((seen.seen.len(), seen.turns.len()), (1, 1));
    }

    #[test]
    fn an_id_has_one_mark_that_others_and_other_nodes_have_not() {
        let (one, other) = (
            Dedupe::new(1, Duration::ZERO),
            Dedupe::new(1, Duration::ZERO),
        );
        let long = "x".repeat(64 << 10);
        assert_eq!(one.mark(&long), one.mark(&long));
        assert_ne!(one.mark(&long), one.mark(&long[1..]));
        assert_ne!(one.mark(&long), other.mark(&long));
        let Mark([first, second]) = one.mark("a");
        assert_ne!(first, second, "two keys");
    }
}
