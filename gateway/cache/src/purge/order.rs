//! Places in the order of purges, and their arithmetic.
//!
//! A [`PurgeOrder`] consists of a number of the log that nodes share, if there is one, and, in its
//! low bits, of the local steps since that number. Invariant: on a node that follows such a log,
//! the local steps never overflow into the number. Otherwise an entry would seem to know a purge
//! that this node has not read yet (see [`PurgeClock::next`]).

use std::sync::atomic::{AtomicU64, Ordering};

/// A place in the order of purges of this node (see the module documentation). It can be compared
/// with no number of a publisher and with no number of the store's log: those are types of their
/// own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PurgeOrder(u64);

/// How many low bits of an order count local steps.
const STEP_BITS: u32 = 28;
/// All of these bits set: the last step before the next number.
const STEPS: u64 = (1 << STEP_BITS) - 1;

/// The greatest number that an order can hold. The top bit is used as a mark of entries.
pub const MAX_NUMBER: u64 = (1 << (63 - STEP_BITS)) - 1;

impl PurgeOrder {
    /// Before every purge. As a stamp it means that there is none.
    pub const BEFORE_ALL: Self = Self(0);
    /// After every purge.
    pub const AFTER_ALL: Self = Self(u64::MAX);

    /// The place with this value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value, for messages, metrics and cells.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The place of a number of our own order. Greater numbers count as [`MAX_NUMBER`].
    pub fn numbered(number: u64) -> Self {
        Self(number.min(MAX_NUMBER) << STEP_BITS)
    }

    /// The number of our own order that this place belongs to.
    pub const fn number(self) -> u64 {
        self.0 >> STEP_BITS
    }

    /// The place without its local steps, which have no meaning on other nodes.
    pub const fn shared(self) -> Self {
        Self(self.0 & !STEPS)
    }

    /// The next place.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place before this one.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    const fn step(self) -> u64 {
        self.0 & STEPS
    }
}

impl std::fmt::Display for PurgeOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Tests write places as plain numbers.
#[cfg(test)]
impl From<u64> for PurgeOrder {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

/// A place in the order that several threads read and move.
#[derive(Default, Debug)]
pub(crate) struct PurgeOrderCell(AtomicU64);

impl PurgeOrderCell {
    pub(crate) const fn new(order: PurgeOrder) -> Self {
        Self(AtomicU64::new(order.0))
    }

    pub(crate) fn read(&self) -> PurgeOrder {
        PurgeOrder(self.0.load(Ordering::Acquire))
    }

    pub(crate) fn write(&self, order: PurgeOrder) {
        self.0.store(order.0, Ordering::Release);
    }

    /// Moves the cell to `order`, unless it is there or later already.
    pub(crate) fn raise(&self, order: PurgeOrder) {
        self.0.fetch_max(order.0, Ordering::AcqRel);
    }
}

/// The newest place in the order, and how it advances.
#[derive(Debug)]
pub(super) struct PurgeClock {
    now: PurgeOrderCell,
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
            now: PurgeOrderCell::new(PurgeOrder(1)),
            bounds,
        }
    }

    pub(super) fn now(&self) -> PurgeOrder {
        self.now.read()
    }

    /// The order of a purge that comes now. If no step is left, this is the order of the next
    /// number, which [`reach`](Self::reach) does not show. Then loads that begin later are hidden
    /// as well, until the log has given out that number.
    pub(super) fn next(&self) -> PurgeOrder {
        self.now().next()
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
        self.now.raise(order);
    }

    /// The order up to which something counts as compared if it was compared at `order`. When no
    /// step is left, purges come without advancing the order, so nothing counts as compared with
    /// that last step.
    pub(super) fn compared_at(&self, order: PurgeOrder) -> PurgeOrder {
        match self.is_last(order) {
            true => order.before(),
            false => order,
        }
    }

    /// Whether nothing can have come since `order`.
    pub(super) fn is_still(&self, order: PurgeOrder) -> bool {
        order == self.now() && !self.is_last(order)
    }

    /// Whether more than half of the local steps are used up, so that a new number is wanted.
    pub(super) fn runs_low(&self) -> bool {
        self.bounds == LocalStepBounds::BelowNextNumber && self.now().step() > STEPS / 2
    }

    fn is_spent(&self) -> bool {
        self.is_last(self.now())
    }

    fn is_last(&self, order: PurgeOrder) -> bool {
        self.bounds == LocalStepBounds::BelowNextNumber && order.step() == STEPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_steps_end_before_the_next_number() {
        let clock = PurgeClock::new(LocalStepBounds::BelowNextNumber);
        clock.move_to(PurgeOrder(PurgeOrder::numbered(7).0 + STEPS - 2));
        for _ in 0..10 {
            clock.reach(clock.next());
            assert_eq!(clock.now().shared(), PurgeOrder::numbered(7));
        }
        assert!(clock.runs_low());
        assert_eq!(
            clock.next(),
            PurgeOrder::numbered(8),
            "it hides all that knows number 7"
        );
        assert!(
            !clock.is_still(clock.now()),
            "another purge may come at the same place"
        );
        clock.move_to(PurgeOrder::numbered(8));
        assert!(!clock.runs_low());
        assert!(clock.is_still(clock.now()));
    }

    #[test]
    fn without_numbers_there_are_steps_for_ever() {
        let clock = PurgeClock::new(LocalStepBounds::None);
        clock.move_to(PurgeOrder(STEPS - 1));
        for _ in 0..3 {
            let before = clock.now();
            clock.reach(clock.next());
            assert_eq!(clock.now(), before.next());
            assert!(clock.is_still(clock.now()));
        }
        assert!(!clock.runs_low());
    }
}
