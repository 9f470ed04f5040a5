//! Events that were applied a while ago, by their ids, within bounds.
//!
//! Pure: `now` is an argument. Noted only once an event was applied, so that one that
//! failed can be delivered again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The ids.
pub struct Dedupe {
    seen: HashMap<Box<str>, Instant>,
    turns: VecDeque<(Instant, Box<str>)>,
    most: usize,
    life: Duration,
}

impl Dedupe {
    pub fn new(most: usize, life: Duration) -> Self {
        Self {
            seen: HashMap::new(),
            turns: VecDeque::new(),
            most,
            life,
        }
    }

    /// Whether this id was noted lately.
    pub fn knows(&mut self, id: &str, now: Instant) -> bool {
        self.forget(now);
        self.seen.contains_key(id)
    }

    /// Notes an id; the oldest goes where there are too many.
    pub fn note(&mut self, id: &str, now: Instant) {
        if self.most == 0 {
            return;
        }
        while self.turns.len() >= self.most {
            self.forget_oldest();
        }
        if self.seen.insert(id.into(), now).is_none() {
            self.turns.push_back((now, id.into()));
        }
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
        assert!(!seen.knows("a", start));
        seen.note("a", start);
        seen.note("b", start);
        assert!(seen.knows("a", start + life / 2));
        seen.note("c", start + life / 2);
        assert!(!seen.knows("a", start + life / 2), "the oldest made room");
        assert!(!seen.knows("b", start + life));
        assert!(seen.knows("c", start + life));
        assert_eq!((seen.seen.len(), seen.turns.len()), (1, 1));
    }
}
