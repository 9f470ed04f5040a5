//! Numbers that spread requests over targets, at random or by a hash.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Numbers that spread requests; nobody gains by foreseeing them.
pub(super) struct RandomNumbers(AtomicU64);

impl Default for RandomNumbers {
    fn default() -> Self {
        let seed = std::hash::RandomState::new().build_hasher().finish();
        Self(AtomicU64::new(seed))
    }
}

impl RandomNumbers {
    /// From 0 to below 1.
    pub(super) fn fraction(&self) -> f64 {
        let step = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        (mixed(step) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One number from 0 to below 1, for what happens rarely.
pub(super) fn random_fraction() -> f64 {
    RandomNumbers::default().fraction()
}

/// Spreads the bits of a number (the finalizer of SplitMix64).
pub(super) fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A hash that is the same in each process: of FNV-1a, with the bits spread.
pub fn stable_hash(text: &[u8]) -> u64 {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mixed(hash)
}

/// Random numbers of tests, the same for the same seed.
#[cfg(test)]
pub(super) struct SeededNumbers(pub(super) u64);

#[cfg(test)]
impl SeededNumbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number from 0 to below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
