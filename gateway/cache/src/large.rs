//! Objects that were found to be larger than the cache stores.
//!
//! Each is remembered for as long as the representation would have been fresh. A request for a
//! range of it is then loaded as that range, and no request has to load the whole to find out
//! again. The number of keys is bounded.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use crate::key::{EntryKey, KeyBuf};

/// The keys of large objects, without their variants.
pub struct LargeObjects {
    keys: Cache<EntryKey, Duration, foldhash::fast::RandomState>,
    /// In milliseconds.
    shortest: AtomicU64,
}

/// The largest number of keys that are remembered.
const KEYS: u64 = 10_000;

struct LargeObjectExpiry;

impl Expiry<EntryKey, Duration> for LargeObjectExpiry {
    fn expire_after_create(&self, _: &EntryKey, life: &Duration, _: Instant) -> Option<Duration> {
        Some(*life)
    }

    fn expire_after_update(
        &self,
        _: &EntryKey,
        life: &Duration,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(*life)
    }
}

impl LargeObjects {
    /// Begins without keys; each is remembered for `shortest` at least.
    pub fn new(shortest: Duration) -> Self {
        let keys = Cache::builder()
            .max_capacity(KEYS)
            .expire_after(LargeObjectExpiry)
            .build_with_hasher(Default::default());
        let objects = Self {
            keys,
            shortest: AtomicU64::new(0),
        };
        objects.remember_for(shortest);
        objects
    }

    /// Objects that are noted from now on are remembered for `shortest` at least.
    pub fn remember_for(&self, shortest: Duration) {
        let millis = u64::try_from(shortest.as_millis()).unwrap_or(u64::MAX);
        self.shortest.store(millis, Relaxed);
    }

    /// Notes that the object under this key is too large and stays fresh for the time `fresh`.
    pub fn note(&self, key: &KeyBuf, fresh: Duration) {
        let shortest = Duration::from_millis(self.shortest.load(Relaxed));
        self.keys.insert(key.to_key(), fresh.max(shortest));
    }

    /// Notes that the object under this key is not too large any more.
    pub fn forget(&self, key: &KeyBuf) {
        self.keys.invalidate(key.as_bytes());
    }

    /// Whether the object under this key was found to be too large.
    pub fn knows(&self, key: &KeyBuf) -> bool {
        self.keys.contains_key(key.as_bytes())
    }
}
