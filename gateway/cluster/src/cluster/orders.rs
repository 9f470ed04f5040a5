//! The place of each publisher's purges in our order, so that a value of another node can be put
//! where it belongs: before the purges that were not known when its load began.
//!
//! Used where nodes do not follow a common log. Each publisher numbers its purges, and we note at
//! which place of our order each was applied. A load that began at `born` knew the purges before
//! that place. A receiver puts the value right before the first purge that was not known to the
//! value's load; from there on, the purge log judges it like any other.
//!
//! Pure: `now` is an argument. Invariant: where the notes don't reach back far enough, the answer
//! is none, and the value is not stored.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::inheritance::HeardPublisher;
use crate::bus::event::PublisherNumber;
use crate::cache::purge::PurgeOrder;

/// Publishers and how many of their purges were known: source, boot, number.
pub type HeardPurges = Vec<(String, u64, PublisherNumber)>;

/// The notes of all publishers.
#[derive(Default)]
pub struct PublisherOrders {
    publishers: HashMap<(String, u64), PublisherNotes>,
    /// Purges of our own that have no number yet: no other node knows of them.
    own: OwnPurges,
    /// Notes were lost: until then nothing can be judged.
    blind_until: Option<Instant>,
}

/// Purges of our own that wait for their numbers.
#[derive(Default)]
struct OwnPurges {
    count: u64,
    /// All of them come after this place.
    after: PurgeOrder,
}

/// One life of a publisher.
struct PublisherNotes {
    /// The newest number.
    last: PublisherNumber,
    /// The notes, in ascending order of their numbers.
    notes: VecDeque<PurgeOrderNote>,
    /// `shed` is the newest number that was dropped because there was no room. `forgotten` is the
    /// latest place that was dropped, for that reason or because of its age.
    shed: PublisherNumber,
    forgotten: PurgeOrder,
    /// The newest number that was applied by the process before, whose order is not ours, and since
    /// when this process goes on.
    before_us: Option<(PublisherNumber, Instant)>,
}

struct PurgeOrderNote {
    number: PublisherNumber,
    order: PurgeOrder,
    at: Instant,
}

/// The most notes of one publisher.
const NOTES: usize = 256;
/// The most publishers; each life counts as one.
const PUBLISHERS: usize = 256;
/// Every load is taken to know the purges that are older than this, since no load takes that long.
const KEEP: Duration = Duration::from_secs(600);

impl PublisherOrders {
    /// Notes that a purge with this number was applied at this place. For a hole in the numbers,
    /// note the first number that is missing, at the place where the hole was seen.
    pub fn note(
        &mut self,
        source: &str,
        boot: u64,
        number: PublisherNumber,
        order: PurgeOrder,
        now: Instant,
    ) {
        let ring = self.notes_of(source, boot, now);
        ring.forget(now);
        ring.last = ring.last.max(number);
        let at = ring.notes.partition_point(|note| note.number < number);
        let note = PurgeOrderNote {
            number,
            order,
            at: now,
        };
        ring.notes.insert(at, note);
    }

    /// Up to this number the purges of a publisher were applied by the process before: their places
    /// are not known here, but that they come before loads that begin from `order` on.
    pub fn begin_at(&mut self, of: &HeardPublisher, order: PurgeOrder, now: Instant) {
        let has_room = self.publishers.len() < PUBLISHERS;
        if of.purges == PublisherNumber::ZERO || !(of.is_recent || has_room) {
            return;
        }
        // No room is made, which may drop everything: what is recent was in the notes of the
        // process before.
        let publisher = (of.source.clone(), of.boot);
        let ring = self.publishers.entry(publisher);
        let ring = ring.or_insert_with(PublisherNotes::none);
        ring.last = ring.last.max(of.purges);
        ring.forgotten = ring.forgotten.max(order);
        if of.is_recent {
            ring.before_us = Some((of.purges, now));
        }
    }

    /// Whether a load that is under way may not know of the newest purge of a publisher.
    pub fn is_recent(&self, source: &str, boot: u64, now: Instant) -> bool {
        let ring = self.publishers.get(&(source.to_owned(), boot));
        self.is_blind(now) || ring.is_some_and(|ring| !ring.is_over(now))
    }

    fn notes_of(&mut self, source: &str, boot: u64, now: Instant) -> &mut PublisherNotes {
        let publisher = (source.to_owned(), boot);
        if !self.publishers.contains_key(&publisher) {
            self.make_room(now);
        }
        let ring = self.publishers.entry(publisher);
        ring.or_insert_with(PublisherNotes::none)
    }

    /// Drops the notes of a publisher: its numbers turned out to be wrong.
    pub fn lose(&mut self, source: &str, boot: u64, now: Instant) {
        self.publishers.remove(&(source.to_owned(), boot));
        self.blind_until = Some(now + KEEP);
    }

    /// A purge of our own begins, and will come after this place.
    pub fn begin_own(&mut self, after: PurgeOrder) {
        if self.own.count == 0 {
            self.own.after = after;
        }
        self.own.count += 1;
    }

    /// `count` of them have a number now.
    pub fn end_own(&mut self, count: u64) {
        self.own.count = self.own.count.saturating_sub(count);
    }

    fn make_room(&mut self, now: Instant) {
        if self.publishers.len() >= PUBLISHERS {
            self.publishers.retain(|_, ring| !ring.is_over(now));
        }
        if self.publishers.len() >= PUBLISHERS {
            self.publishers.clear();
            self.blind_until = Some(now + KEEP);
        }
    }

    /// The purges that were known to a load that began at `born`.
    pub fn heard_at(&self, born: PurgeOrder, now: Instant) -> Option<HeardPurges> {
        if self.is_blind(now) {
            return None;
        }
        let heard = self.publishers.iter().map(|((source, boot), ring)| {
            let number = ring.heard_at(born)?;
            Some((source.clone(), *boot, number))
        });
        heard.collect()
    }

    /// The place in our order of a value whose load knew these purges; `newest` if it knew all that
    /// we know.
    pub fn order_of_value(
        &self,
        heard: &HeardPurges,
        newest: PurgeOrder,
        now: Instant,
    ) -> Option<PurgeOrder> {
        if self.is_blind(now) {
            return None;
        }
        let heard: HashMap<(&str, u64), PublisherNumber> = heard
            .iter()
            .map(|(source, boot, number)| ((source.as_str(), *boot), *number))
            .collect();
        let mut place = match self.own.count {
            0 => newest,
            _ => newest.min(self.own.after),
        };
        for ((source, boot), ring) in &self.publishers {
            let known = heard
                .get(&(source.as_str(), *boot))
                .copied()
                .unwrap_or_default();
            place = place.min(ring.before_news(known, now)?);
        }
        Some(place)
    }

    fn is_blind(&self, now: Instant) -> bool {
        self.blind_until.is_some_and(|until| now < until)
    }
}

impl PublisherNotes {
    fn none() -> Self {
        Self {
            last: PublisherNumber::ZERO,
            notes: VecDeque::new(),
            shed: PublisherNumber::ZERO,
            forgotten: PurgeOrder::BEFORE_ALL,
            before_us: None,
        }
    }

    /// Every load knows its purges.
    fn is_over(&self, now: Instant) -> bool {
        self.newest()
            .is_none_or(|at| now.duration_since(at) >= KEEP)
    }

    fn newest(&self) -> Option<Instant> {
        let noted = self.notes.iter().map(|note| note.at);
        noted.chain(self.before_us.map(|(_, at)| at)).max()
    }

    fn forget(&mut self, now: Instant) {
        while let Some(first) = self.notes.front() {
            let full = self.notes.len() >= NOTES;
            if !full && now.duration_since(first.at) < KEEP {
                return;
            }
            self.forgotten = self.forgotten.max(first.order);
            if full {
                self.shed = self.shed.max(first.number);
            }
            self.notes.pop_front();
        }
    }

    /// How many of its purges, counted without a hole, stand at or before `born`.
    fn heard_at(&self, born: PurgeOrder) -> Option<PublisherNumber> {
        if born < self.forgotten {
            return None;
        }
        let news = self.notes.iter().filter(|note| note.order > born);
        let first = news.map(|note| note.number).min();
        Some(first.map_or(self.last, |first| first.before()))
    }

    /// The place before the first purge with a number greater than `known`.
    fn before_news(&self, known: PublisherNumber, now: Instant) -> Option<PurgeOrder> {
        let is_before_us = |(number, at)| known < number && now.duration_since(at) < KEEP;
        if known < self.shed || self.before_us.is_some_and(is_before_us) {
            return None;
        }
        let news = self.notes.iter().rev();
        let news = news.take_while(|note| note.number > known);
        let recent = news.filter(|note| now.duration_since(note.at) < KEEP);
        Some(
            recent
                .map(|note| note.order.before())
                .min()
                .unwrap_or(PurgeOrder::AFTER_ALL),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(of: &[(&str, u64, u64)]) -> HeardPurges {
        of.iter()
            .map(|(source, boot, number)| {
                ((*source).to_owned(), *boot, PublisherNumber::new(*number))
            })
            .collect()
    }

    fn at(place: u64) -> PurgeOrder {
        PurgeOrder::new(place)
    }

    fn note(
        orders: &mut PublisherOrders,
        source: &str,
        boot: u64,
        number: u64,
        order: u64,
        now: Instant,
    ) {
        orders.note(source, boot, PublisherNumber::new(number), at(order), now);
    }

    #[test]
    fn a_value_stands_before_the_first_purge_that_its_load_had_not_heard_of() {
        let (mut orders, now) = (PublisherOrders::default(), Instant::now());
        note(&mut orders, "a", 1, 1, 10, now);
        note(&mut orders, "a", 1, 2, 20, now);
        note(&mut orders, "b", 7, 1, 30, now);
        let place = |of: &[_]| orders.order_of_value(&heard(of), at(40), now);
        assert_eq!(place(&[("a", 1, 2), ("b", 7, 1)]), Some(at(40)));
        assert_eq!(place(&[("a", 1, 1), ("b", 7, 1)]), Some(at(19)));
        assert_eq!(place(&[("a", 1, 2)]), Some(at(29)), "it had not heard of b");
        assert_eq!(
            place(&[("a", 2, 9), ("b", 7, 1)]),
            Some(at(9)),
            "another life"
        );
    }

    #[test]
    fn a_load_had_heard_of_what_stands_before_it() {
        let (mut orders, now) = (PublisherOrders::default(), Instant::now());
        note(&mut orders, "a", 1, 1, 10, now);
        note(&mut orders, "a", 1, 2, 20, now);
        assert_eq!(orders.heard_at(at(9), now), Some(heard(&[("a", 1, 0)])));
        assert_eq!(orders.heard_at(at(10), now), Some(heard(&[("a", 1, 1)])));
        assert_eq!(orders.heard_at(at(25), now), Some(heard(&[("a", 1, 2)])));
    }

    #[test]
    fn a_purge_that_came_late_was_not_heard_of_before_it_came() {
        let (mut orders, now) = (PublisherOrders::default(), Instant::now());
        note(&mut orders, "a", 1, 2, 20, now);
        note(&mut orders, "a", 1, 1, 30, now);
        assert_eq!(orders.heard_at(at(25), now), Some(heard(&[("a", 1, 0)])));
        assert_eq!(
            orders.order_of_value(&heard(&[("a", 1, 1)]), at(40), now),
            Some(at(19))
        );
    }

    #[test]
    fn what_can_not_be_told_is_told_of_nothing() {
        let (mut orders, now) = (PublisherOrders::default(), Instant::now());
        for number in 1..=NOTES as u64 + 10 {
            note(&mut orders, "a", 1, number, number * 10, now);
        }
        assert_eq!(orders.heard_at(at(20), now), None);
        assert_eq!(
            orders.order_of_value(&heard(&[("a", 1, 2)]), at(9_999), now),
            None
        );
        assert!(
            orders
                .order_of_value(&heard(&[("a", 1, 200)]), at(9_999), now)
                .is_some()
        );
        for n in 0..PUBLISHERS as u64 {
            note(&mut orders, "b", n, 1, 10_000, now);
        }
        assert_eq!(orders.order_of_value(&Vec::new(), at(20_000), now), None);
        assert!(
            orders
                .order_of_value(&Vec::new(), at(20_000), now + KEEP)
                .is_some()
        );
    }

    /// Guards against a value that was published while our own purge waited for its number.
    #[test]
    fn nothing_is_put_after_a_purge_of_our_own_that_nobody_has_heard_of() {
        let (mut orders, now) = (PublisherOrders::default(), Instant::now());
        orders.begin_own(at(10));
        orders.begin_own(at(20));
        assert_eq!(
            orders.order_of_value(&Vec::new(), at(40), now),
            Some(at(10))
        );
        orders.end_own(1);
        assert_eq!(
            orders.order_of_value(&Vec::new(), at(40), now),
            Some(at(10))
        );
        orders.end_own(1);
        assert_eq!(
            orders.order_of_value(&Vec::new(), at(40), now),
            Some(at(40))
        );
    }

    #[test]
    fn an_old_purge_holds_nothing_back() {
        let (mut orders, now) = (PublisherOrders::default(), Instant::now());
        note(&mut orders, "gone", 1, 5, 10, now);
        assert_eq!(orders.order_of_value(&Vec::new(), at(40), now), Some(at(9)));
        assert_eq!(
            orders.order_of_value(&Vec::new(), at(40), now + KEEP),
            Some(at(40))
        );
    }

    /// Their places in our order are not known.
    #[test]
    fn what_the_process_before_has_applied_must_be_known_to_a_value_for_a_while() {
        let (mut orders, now) = (PublisherOrders::default(), Instant::now());
        orders.begin_at(&before_us("b", 5, true), at(7), now);
        let place = |orders: &PublisherOrders, number, now| {
            orders.order_of_value(&heard(&[("b", 1, number)]), at(9), now)
        };
        assert_eq!(place(&orders, 4, now), None);
        assert_eq!(place(&orders, 5, now), Some(at(9)));
        assert_eq!(place(&orders, 4, now + KEEP), Some(at(9)));
        orders.note("b", 1, PublisherNumber::new(6), at(8), now);
        assert_eq!(place(&orders, 5, now), Some(at(8).before()));
        assert_eq!(orders.heard_at(at(7), now), Some(heard(&[("b", 1, 5)])));
        assert_eq!(orders.heard_at(at(6), now), None, "it began before them");
    }

    fn before_us(source: &str, purges: u64, is_recent: bool) -> HeardPublisher {
        HeardPublisher {
            source: source.to_owned(),
            boot: 1,
            purges: PublisherNumber::new(purges),
            is_recent,
        }
    }

    /// Only what purged lately is of importance, and there may be many others.
    #[test]
    fn many_publishers_of_the_process_before_make_nothing_blind() {
        let (mut orders, now) = (PublisherOrders::default(), Instant::now());
        for n in 0..2 * PUBLISHERS {
            orders.begin_at(&before_us(&format!("silent{n}"), 0, true), at(1), now);
            orders.begin_at(&before_us(&format!("old{n}"), 1, false), at(1), now);
        }
        orders.begin_at(&before_us("b", 5, true), at(1), now);
        note(&mut orders, "c", 1, 1, 8, now);
        let place = |of: &[(&str, u64, u64)]| orders.order_of_value(&heard(of), at(9), now);
        assert_eq!(place(&[("b", 1, 5), ("c", 1, 1)]), Some(at(9)));
        assert_eq!(place(&[("c", 1, 1)]), None);
        assert!(orders.is_recent("c", 1, now) && !orders.is_recent("c", 1, now + KEEP));
        assert!(!orders.is_recent("d", 1, now));
        orders.lose("d", 1, now);
        assert!(orders.is_recent("d", 1, now), "nobody knows");
    }
}
