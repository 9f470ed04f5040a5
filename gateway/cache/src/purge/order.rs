//! Places in the order of purges, and their arithmetic.
//!
//! A [`PurgeOrder`] consists of a number of the log that nodes share, if there is one, and, in its
//! low bits, of the local steps since that number. Invariant: on a node that follows such a log,
//! the local steps never overflow into the number. Otherwise an entry would seem to know a purge
//! that this node has not read yet (see [`PurgeClock::next`]).

use std::sync::atomic::{AtomicU64, Ordering};

/// A place in the order of purges (see the module documentation).
pub type PurgeOrder = u64;

/// How many low bits of an order count local steps.
const STEP_BITS: u32 = 28;
/// All of these bits set: the last step before the next number.
const STEPS: u64 = (1 << STEP_BITS) - 1;

/// The greatest number that an order can hold. The top bit is used as a mark of entries.
pub const MAX_NUMBER: u64 = (1 << (63 - STEP_BITS)) - 1;

/// The order of a number of the shared log. Greater numbers count as [`MAX_NUMBER`].
pub fn numbered(number: u64) -> PurgeOrder {
    number.min(MAX_NUMBER) << STEP_BITS
}

/// The number that an order belongs to.
pub fn number_of(order: PurgeOrder) -> u64 {
    order >> STEP_BITS
}

/// An order without its local steps, which have no meaning on other nodes.
pub fn shared(order: PurgeOrder) -> PurgeOrder {
    order & !STEPS
}

/// The newest place in the order, and how it advances.
#[derive(Debug)]
pub(super) struct PurgeClock {
    now: AtomicU64,
    bounds: LocalStepBounds,
}

/// Whether local steps must stay below the next number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LocalStepBounds {
    /// There is no log that gives out numbers.
    None,
    /// The steps end before the next number of a log.
    BelowNextNumber,
}

impl PurgeClock {
    /// Begins at 1, because a stamp of 0 means that there is none.
    pub(super) fn new(bounds: LocalStepBounds) -> Self {
        Self {
            now: AtomicU64::new(1),
            bounds,
        }
    }

    pub(super) fn now(&self) -> PurgeOrder {
        self.now.load(Ordering::Acquire)
    }

    /// The order of a purge that comes now. If no step is left, this is the order of the next
    /// number, which [`reach`](Self::reach) does not show. Then loads that begin later are hidden
    /// as well, until the log has given out that number.
    pub(super) fn next(&self) -> PurgeOrder {
        self.now() + 1
    }

    /// Shows an order that [`next`](Self::next) returned. Everything that has this order must be in
    /// its place before.
    pub(super) fn reach(&self, order: PurgeOrder) {
        if !self.is_spent() {
            self.move_to(order);
        }
    }

    /// Shows an order that the log has given out.
    pub(super) fn move_to(&self, order: PurgeOrder) {
        self.now.fetch_max(order, Ordering::AcqRel);
    }

    /// The order up to which something counts as compared if it was compared at `order`. When no
    /// step is left, purges come without advancing the order, so nothing counts as compared with
    /// that last step.
    pub(super) fn compared_at(&self, order: PurgeOrder) -> PurgeOrder {
        order - u64::from(self.is_last(order))
    }

    /// Whether nothing can have come since `order`.
    pub(super) fn is_still(&self, order: PurgeOrder) -> bool {
        order == self.now() && !self.is_last(order)
    }

    /// Whether more than half of the local steps are used up, so that a new number is wanted.
    pub(super) fn runs_low(&self) -> bool {
        self.bounds == LocalStepBounds::BelowNextNumber && self.now() & STEPS > STEPS / 2
    }

    fn is_spent(&self) -> bool {
        self.is_last(self.now())
    }

    fn is_last(&self, order: PurgeOrder) -> bool {
        self.bounds == LocalStepBounds::BelowNextNumber && order & STEPS == STEPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_steps_end_before_the_next_number() {
        let clock = PurgeClock::new(LocalStepBounds::BelowNextNumber);
        clock.move_to(numbered(7) + STEPS - 2);
        for _ in 0..10 {
            clock.reach(clock.next());
            assert_eq!(shared(clock.now()), numbered(7));
        }
        assert!(clock.runs_low());
        assert_eq!(
            clock.next(),
            numbered(8),
            "it hides all that knows number 7"
        );
        assert!(
            !clock.is_still(clock.now()),
            "another purge may come at the same place"
        );
        clock.move_to(numbered(8));
        assert!(!clock.runs_low());
        assert!(clock.is_still(clock.now()));
    }

    #[test]
    fn without_numbers_there_are_steps_for_ever() {
        let clock = PurgeClock::new(LocalStepBounds::None);
        clock.move_to(STEPS - 1);
        for _ in 0..3 {
            let before = clock.now();
            clock.reach(clock.next());
            assert_eq!(clock.now(), before + 1);
            assert!(clock.is_still(clock.now()));
        }
        assert!(!clock.runs_low());
    }
}
