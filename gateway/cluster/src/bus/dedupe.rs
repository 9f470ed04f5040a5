//! Events that were applied recently, by source and id, in bounded memory.
//!
//! Pure: `now` is an argument. An event is noted only after it was applied, so that an event that
//! failed can be delivered again.
//!
//! An id counts only for its source: two services that both begin with `1` do not hide each other's
//! events, and neither does a program that guesses the ids of others. No source may take all of the
//! memory.
//!
//! Decision: ids are kept as 128 bits of keyed hashes, since an id may be 64 KiB long. The keys are
//! random, so that nobody can make an id that hides another source's event.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// The ids that were noted.
pub struct DuplicateFilter {
    keys: [RandomState; 2],
    seen: HashSet<EventFingerprint>,
    turns: VecDeque<(Instant, EventFingerprint)>,
    /// How many ids each source has.
    counts: HashMap<u64, usize>,
    most: usize,
    life: Duration,
}

/// What is kept of an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EventFingerprint {
    source: u64,
    id: [u64; 2],
}

/// One source may take at most this fraction (one half) of the memory.
const SHARE: usize = 2;

impl DuplicateFilter {
    pub fn new(most: usize, life: Duration) -> Self {
        Self {
            keys: Default::default(),
            seen: HashSet::new(),
            turns: VecDeque::new(),
            counts: HashMap::new(),
            most,
            life,
        }
    }

    /// What is kept of this id of this source. The time that the event states counts as part of its
    /// id: a service that counts from 1 again after a restart publishes new events.
    pub fn mark(&self, source: &str, id: (&str, u64)) -> EventFingerprint {
        EventFingerprint {
            source: self.keys[0].hash_one(source),
            id: self.keys.each_ref().map(|key| key.hash_one((source, id))),
        }
    }

    /// Whether this id was noted recently.
    pub fn knows(&mut self, id: EventFingerprint, now: Instant) -> bool {
        self.forget(now);
        self.seen.contains(&id)
    }

    /// Notes an id. If there are too many, of this source or in total, the oldest one is dropped.
    pub fn note(&mut self, id: EventFingerprint, now: Instant) {
        if self.most == 0 || !self.seen.insert(id) {
            return;
        }
        if self.count(id.source) >= self.most.div_ceil(SHARE) {
            self.forget_oldest_of(id.source);
        }
        while self.turns.len() >= self.most {
            self.forget_at(0);
        }
        *self.counts.entry(id.source).or_default() += 1;
        self.turns.push_back((now, id));
    }

    fn count(&self, source: u64) -> usize {
        self.counts.get(&source).copied().unwrap_or(0)
    }

    fn forget(&mut self, now: Instant) {
        let life = self.life;
        let over = |noted: &Instant| now.saturating_duration_since(*noted) >= life;
        while self.turns.front().is_some_and(|(noted, _)| over(noted)) {
            self.forget_at(0);
        }
    }

    fn forget_oldest_of(&mut self, source: u64) {
        let oldest = self.turns.iter().position(|(_, id)| id.source == source);
        if let Some(at) = oldest {
            self.forget_at(at);
        }
    }

    fn forget_at(&mut self, at: usize) {
        let Some((_, id)) = self.turns.remove(at) else {
            return;
        };
        self.seen.remove(&id);
        if let Some(count) = self.counts.get_mut(&id.source) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&id.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_its_time_and_within_the_bound() {
        let (start, life) = (Instant::now(), Duration::from_secs(300));
        let mut seen = DuplicateFilter::new(4, life);
        let [a, b, c] = ["a", "b", "c"].map(|id| seen.mark("s", (id, 0)));
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
        let sizes = (seen.seen.len(), seen.turns.len(), seen.counts.len());
        assert_eq!(sizes, (1, 1, 1));
    }

    #[test]
    fn no_source_takes_the_room_of_another() {
        let now = Instant::now();
        let mut seen = DuplicateFilter::new(10, Duration::from_secs(300));
        let quiet = seen.mark("quiet", ("1", 0));
        seen.note(quiet, now);
        for n in 0..1_000 {
            let loud = seen.mark("loud", (&n.to_string(), 0));
            seen.note(loud, now);
        }
        assert!(seen.knows(quiet, now));
        assert_eq!(seen.turns.len(), 6);
        for n in 0..1_000 {
            let mark = seen.mark(&format!("many {n}"), ("1", 0));
            seen.note(mark, now);
        }
        assert_eq!((seen.turns.len(), seen.counts.len()), (10, 10));
    }

    #[test]
    fn an_id_has_one_mark_that_others_and_other_nodes_have_not() {
        let (one, other) = (
            DuplicateFilter::new(1, Duration::ZERO),
            DuplicateFilter::new(1, Duration::ZERO),
        );
        let long = "x".repeat(64 << 10);
        assert_eq!(one.mark("s", (&long, 0)), one.mark("s", (&long, 0)));
        assert_ne!(one.mark("s", (&long, 0)), one.mark("s", (&long[1..], 0)));
        assert_ne!(one.mark("s", (&long, 0)), one.mark("t", (&long, 0)));
        assert_ne!(one.mark("s", (&long, 0)), one.mark("s", (&long, 1)));
        assert_ne!(one.mark("s", (&long, 0)), other.mark("s", (&long, 0)));
        let [first, second] = one.mark("s", ("a", 0)).id;
        assert_ne!(first, second, "two keys");
    }
}
