//! The number that a publisher gives to a purge.

use std::fmt;

/// The number of a purge among those of one life of its publisher: the first has 1, and each event
/// carries the number of the last one that was published before it, or 0. It is neither a place in
/// the order of a node nor a number of the second tier's log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PublisherNumber(u64);

impl PublisherNumber {
    /// Before the first purge.
    pub const ZERO: Self = Self(0);
    /// That of the first purge.
    pub const FIRST: Self = Self(1);

    /// The number with this value.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value, for the wire.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number before this one; that of zero is zero.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many numbers there are from `earlier` to this one; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for PublisherNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
