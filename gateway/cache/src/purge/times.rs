//! When purges came. The stale windows of what a soft purge reaches count from that time, and what
//! another cache has kept knows the purges that came before its age began.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::order::PurgeOrder;

/// The number of soft purges whose time is remembered. Of older ones it is only known that they are
/// old.
const MOST: usize = 4_096;

/// The times of the last soft purges, in their order.
#[derive(Default)]
pub(super) struct SoftTimes(VecDeque<(SoftPurge, Instant)>);

/// A soft purge and the one before it of the same selector. A purge that gets a second, later place
/// from the log of all nodes counts as two.
#[derive(Clone, Copy)]
pub(super) struct SoftPurge {
    pub(super) order: PurgeOrder,
    /// [`PurgeOrder::BEFORE_ALL`] if there was none.
    pub(super) before: PurgeOrder,
}

/// Purges that come closer together than this are taken to have come together, at any time of it.
const TOGETHER: Duration = Duration::from_millis(20);

/// The times of the last purges of any kind, each with the place in the order before it.
#[derive(Default)]
pub(super) struct PurgeTimes(VecDeque<(PurgeOrder, Instant)>);

impl PurgeTimes {
    /// Notes that a purge comes now, after this place in the order.
    pub(super) fn note(&mut self, before: PurgeOrder, now: Instant) {
        let last = self.0.back();
        if last.is_some_and(|(_, at)| now.saturating_duration_since(*at) < TOGETHER) {
            return;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((before, now));
    }

    /// The place in the order so long before `now`, or one before it. None: no purge has come since.
    pub(super) fn place_before(&self, now: Instant, ago: Duration) -> Option<PurgeOrder> {
        let is_older = |at: Instant| now.saturating_duration_since(at) >= ago + TOGETHER;
        let after = self.0.partition_point(|(_, at)| is_older(*at));
        self.0.get(after).map(|(before, _)| *before)
    }
}

impl SoftTimes {
    /// Notes that a soft purge came now.
    pub(super) fn note(&mut self, purge: SoftPurge, now: Instant) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((purge, now));
    }

    /// When the first purge after `born` came, of those at these places and those of the same
    /// selectors before them. None: too long ago.
    pub(super) fn first(&self, orders: &[PurgeOrder], born: PurgeOrder) -> Option<Instant> {
        let firsts = orders.iter().map(|order| self.first_of(*order, born));
        // One that is not known any more is the first.
        firsts.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    fn first_of(&self, mut order: PurgeOrder, born: PurgeOrder) -> Option<Instant> {
        loop {
            let (purge, at) = self.of(order)?;
            // Where no local step is left, several purges have one place.
            if purge.before <= born || purge.before >= purge.order {
                return Some(at);
            }
            order = purge.before;
        }
    }

    fn of(&self, order: PurgeOrder) -> Option<(SoftPurge, Instant)> {
        let after = self.0.partition_point(|(purge, _)| purge.order <= order);
        self.0.get(after.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_place_in_the_order() {
        let (mut times, start) = (PurgeTimes::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let now = at(1_000);
        let place_at = |times: &PurgeTimes, millis: u64| {
            times.place_before(now, Duration::from_millis(1_000 - millis))
        };
        assert_eq!(place_at(&times, 0), None);
        for (before, millis) in [(2, 100), (3, 110), (4, 119), (5, 120), (8, 500)] {
            times.note(PurgeOrder::new(before), at(millis));
        }
        let places = [0, 100, 119, 120, 140, 499, 519, 520].map(|millis| place_at(&times, millis));
        assert_eq!(
            places,
            [2, 2, 2, 5, 8, 8, 8, 0].map(|place| (place > 0).then_some(PurgeOrder::new(place))),
            "a place before it where several came together"
        );
        let long_ago = times.place_before(now, Duration::MAX - TOGETHER);
        assert_eq!(long_ago, Some(PurgeOrder::new(2)));
    }

    #[test]
    fn the_last_ones_are_known_and_older_ones_are_not() {
        let (mut times, start) = (SoftTimes::default(), Instant::now());
        let at = |n: usize| start + Duration::from_secs(n as u64);
        for n in 0..MOST + 2 {
            let (order, before) = (PurgeOrder::new(n as u64), PurgeOrder::BEFORE_ALL);
            times.note(SoftPurge { order, before }, at(n));
        }
        let first = |order: usize| times.first(&[PurgeOrder::new(order as u64)], 0.into());
        assert_eq!(first(1), None);
        assert_eq!(first(2), Some(at(2)));
        assert_eq!(first(MOST + 9), Some(at(MOST + 1)));
    }

    #[test]
    fn the_first_of_several_counts_that_came_after_the_birth() {
        let (mut times, start) = (SoftTimes::default(), Instant::now());
        let at = |n: u64| start + Duration::from_secs(n);
        for (order, before) in [(3, 0), (5, 3), (6, 0), (8, 5), (9, 6)] {
            let (order, before) = (PurgeOrder::new(order), PurgeOrder::new(before));
            times.note(SoftPurge { order, before }, at(order.value()));
        }
        let first = |orders: &[u64], born: u64| {
            let orders: Vec<_> = orders.iter().map(|order| PurgeOrder::new(*order)).collect();
            times.first(&orders, born.into())
        };
        assert_eq!(first(&[8], 1), Some(at(3)));
        assert_eq!(first(&[8], 3), Some(at(5)));
        assert_eq!(first(&[8], 7), Some(at(8)));
        assert_eq!(first(&[9, 8], 4), Some(at(5)), "of two selectors");
        assert_eq!(first(&[9, 2], 1), None, "one is not known any more");
    }
}
