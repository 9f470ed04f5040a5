//! The keys that a thread remembers, by the exact bytes of their inputs.
//!
//! Each thread has its own map, so a look-up takes no lock, and no atomic except the counter of the
//! answer. There are two generations: when the young one is full, it replaces the old one, and
//! entries that were not asked for since the last replacement are dropped. That keeps what is in
//! use, bounds entries and bytes, and needs no list to maintain.

use std::sync::Arc;

/// The mean size of inputs on which the limit in bytes is based.
const MEAN_INPUT: usize = 512;

type MemoMap<V> = std::collections::HashMap<Box<[u8]>, Arc<V>, foldhash::fast::RandomState>;

/// A bounded map from inputs to answers.
pub(super) struct Memo<V> {
    young: MemoMap<V>,
    old: MemoMap<V>,
    young_bytes: usize,
    /// The most entries of one generation.
    capacity: usize,
}

impl<V> Memo<V> {
    /// Remembers up to `entries` answers; none when 0.
    pub(super) fn new(entries: usize) -> Self {
        let capacity = entries.div_ceil(2);
        Self {
            young: MemoMap::default(),
            old: MemoMap::default(),
            young_bytes: 0,
            capacity,
        }
    }

    pub(super) fn get(&mut self, inputs: &[u8]) -> Option<Arc<V>> {
        if let Some(found) = self.young.get(inputs) {
            return Some(found.clone());
        }
        let (inputs, found) = self.old.remove_entry(inputs)?;
        self.insert(inputs, found.clone());
        Some(found)
    }

    pub(super) fn put(&mut self, inputs: &[u8], answer: Arc<V>) {
        // One unusual request must not displace a whole generation.
        if self.capacity > 0 && inputs.len() <= self.max_bytes() / 64 {
            self.insert(inputs.into(), answer);
        }
    }

    fn insert(&mut self, inputs: Box<[u8]>, answer: Arc<V>) {
        if self.young.len() >= self.capacity || self.young_bytes >= self.max_bytes() {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        let bytes = inputs.len();
        if self.young.insert(inputs, answer).is_none() {
            self.young_bytes += bytes;
        }
    }

    /// The most bytes of inputs in one generation.
    fn max_bytes(&self) -> usize {
        self.capacity.saturating_mul(MEAN_INPUT).max(64 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_survives_a_flood() {
        let mut memo = Memo::new(64);
        memo.put(b"hot", Arc::new(1));
        for i in 0..10_000u32 {
            memo.put(&i.to_le_bytes(), Arc::new(i));
            assert_eq!(memo.get(b"hot").as_deref(), Some(&1));
            assert!(memo.young.len() + memo.old.len() <= 64);
        }
        assert_eq!(memo.get(&0u32.to_le_bytes()), None);
    }

    #[test]
    fn long_inputs_are_bounded_in_bytes() {
        let mut memo = Memo::new(1_000);
        for i in 0..10_000u32 {
            memo.put(&[&i.to_le_bytes()[..], &[0; 4_000]].concat(), Arc::new(i));
        }
        let bytes: usize = memo
            .young
            .keys()
            .chain(memo.old.keys())
            .map(|k| k.len())
            .sum();
        assert!(bytes <= 2 * (memo.max_bytes() + 4_004), "{bytes}");
        memo.put(&[0; 1 << 20], Arc::new(0));
        assert_eq!(memo.get(&[0; 1 << 20]), None);
    }

    #[test]
    fn no_entries_means_no_memory() {
        let mut memo = Memo::new(0);
        memo.put(b"a", Arc::new(1));
        assert_eq!(memo.get(b"a"), None);
    }
}
