//! When soft purges came: the stale windows of what they reach count from that time.

use std::collections::VecDeque;
use std::time::Instant;

use super::order::PurgeOrder;

/// The number of soft purges whose time is remembered. Of older ones it is only known that they are
/// old.
const MOST: usize = 4_096;

/// The times of the last soft purges, in their order.
#[derive(Default)]
pub(super) struct SoftTimes(VecDeque<(PurgeOrder, Instant)>);

impl SoftTimes {
    /// Notes that a soft purge came now.
    pub(super) fn note(&mut self, order: PurgeOrder, now: Instant) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((order, now));
    }

    /// When the soft purge at this place in the order came. None: too long ago.
    pub(super) fn of(&self, order: PurgeOrder) -> Option<Instant> {
        // A soft purge may get a second, later place from the log of all nodes.
        let known = self.0.iter().rev().find(|(noted, _)| *noted <= order);
        known.map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_ones_are_known_and_older_ones_are_not() {
        let (mut times, start) = (SoftTimes::default(), Instant::now());
        let at = |n: usize| start + Duration::from_secs(n as u64);
        (0..MOST + 2).for_each(|n| times.note(n as PurgeOrder, at(n)));
        assert_eq!(times.of(1), None);
        assert_eq!(times.of(2), Some(at(2)));
        assert_eq!(times.of(MOST as PurgeOrder + 9), Some(at(MOST + 1)));
    }
}
