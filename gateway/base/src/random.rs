//! A number that nobody can foretell, for pauses and choices that should differ between processes.

use std::hash::{BuildHasher, RandomState};

/// An unpredictable number. It is not for secrets.
pub fn number() -> u32 {
    // Each `RandomState` has its own random keys.
    RandomState::new().hash_one(0) as u32
}
