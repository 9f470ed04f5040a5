//! Places in the purge log of a store. They are types of their own, because neither the place of a
//! purge in this node's own order ([`PurgeOrder`]) nor a number that a publisher of the bus gave
//! can stand in their place.

use std::fmt;

use crate::purge::PurgeOrder;

/// The number of a purge in the log of a store, as the store counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogNumber(u64);

/// A place in the log of a store as stores keep it with records and notes: a number of the log, or
/// right after one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogOrder(u64);

/// A place in the purge log of a store. Orders of two generations can't be compared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LogPlace {
    pub generation: u64,
    pub order: LogOrder,
}

impl LogNumber {
    /// Before the first purge.
    pub const ZERO: Self = Self(0);

    /// The number with this value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value, for stores and messages.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The number after this one. None: there are no more.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// The number before this one; that of zero is zero.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The number that is `further` behind this one, or the greatest one.
    #[must_use]
    pub const fn plus(self, further: u64) -> Self {
        Self(self.0.saturating_add(further))
    }

    /// How many numbers there are from `earlier` to this one; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The place of this number, as stores keep it.
    pub fn order(self) -> LogOrder {
        LogOrder(PurgeOrder::numbered(self.0).value())
    }
}

impl LogOrder {
    /// Before every purge of the log.
    pub const BEFORE_ALL: Self = Self(0);
    /// After every purge of the log.
    pub const AFTER_ALL: Self = Self(u64::MAX);

    /// The place with this value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value, as stores keep it.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The number that this place belongs to.
    pub const fn number(self) -> LogNumber {
        LogNumber(PurgeOrder::new(self.0).number())
    }

    /// The place right after this one, which is still before the next number.
    #[must_use]
    pub const fn right_after(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for LogNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tests write numbers as plain ones.
#[cfg(test)]
impl From<u64> for LogNumber {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

#[cfg(test)]
impl From<u64> for LogOrder {
    fn from(value: u64) -> Self {
        Self(value)
    }
}
