//! The import `kv`: a small store for one plugin, shared by its instances and versions.
//!
//! Bounded in bytes; the least recently used entry is removed first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use super::Hook;
use super::bindings::kv::{Host, KvError};
use super::contract::KV;
use super::guest::GuestState;
use super::outcome::NotAllowed;

/// The most bytes of a key.
const MAX_KEY: usize = 256;
/// The bytes that an entry takes besides its key and value.
const ENTRY_COST: usize = 128;
/// One value may take at most this fraction (1/16) of the store.
const LARGEST: usize = 16;

/// The store of one plugin.
pub(super) struct KvStore {
    entries: Cache<Arc<str>, HeldValue>,
    max_value: usize,
}

#[derive(Clone)]
struct HeldValue {
    value: Arc<[u8]>,
    ttl: Option<Duration>,
}

/// Each entry lives as long as its guest said.
struct KvExpiry;

impl Expiry<Arc<str>, HeldValue> for KvExpiry {
    fn expire_after_create(&self, _: &Arc<str>, held: &HeldValue, _: Instant) -> Option<Duration> {
        held.ttl
    }

    fn expire_after_update(
        &self,
        _: &Arc<str>,
        held: &HeldValue,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        held.ttl
    }
}

impl KvStore {
    /// A store of this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let weigh = |key: &Arc<str>, held: &HeldValue| {
            u32::try_from(key.len() + held.value.len() + ENTRY_COST).unwrap_or(u32::MAX)
        };
        Self {
            entries: Cache::builder()
                .max_capacity(bytes as u64)
                .weigher(weigh)
                .expire_after(KvExpiry)
                .build(),
            max_value: bytes / LARGEST,
        }
    }

    fn set(&self, key: &str, value: Vec<u8>, ttl: Option<Duration>) -> Result<(), KvError> {
        if key.is_empty() || key.len() > MAX_KEY || value.len() > self.max_value {
            return Err(KvError::TooLarge);
        }
        let value = value.into();
        self.entries.insert(key.into(), HeldValue { value, ttl });
        Ok(())
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries.get(key).map(|held| held.value.to_vec())
    }
}

impl GuestState {
    /// Refuses an import that makes an answer depend on more than the inputs, where that is not
    /// allowed.
    pub(super) fn may_be_impure(&self, import: &'static str) -> wasmtime::Result<()> {
        match self.hook {
            None | Some(Hook::Key) => Err(wasmtime::Error::new(NotAllowed(import))),
            Some(Hook::Load | Hook::Request | Hook::Response) => Ok(()),
        }
    }
}

impl Host for GuestState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.may_be_impure(KV)?;
        Ok(self.kv.get(&key))
    }

    fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<(), KvError>> {
        self.may_be_impure(KV)?;
        Ok(self.kv.set(&key, value, ttl_ms.map(Duration::from_millis)))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        self.may_be_impure(KV)?;
        self.kv.entries.invalidate(key.as_str());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_there_for_its_time_and_within_its_bounds() {
        let kv = KvStore::new(64 << 10);
        assert!(kv.set("a", b"1".to_vec(), None).is_ok());
        assert!(kv.set("b", b"2".to_vec(), Some(Duration::ZERO)).is_ok());
        assert_eq!(kv.get("a").as_deref(), Some(&b"1"[..]));
        assert_eq!(kv.get("b"), None, "its time was nothing");
        assert!(kv.set("", vec![], None).is_err());
        assert!(kv.set(&"k".repeat(257), vec![], None).is_err());
        assert!(kv.set("a", vec![0; 4_097], None).is_err());
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let kv = KvStore::new(64 << 10);
        for n in 0..1_000 {
            assert!(kv.set(&n.to_string(), vec![0; 1_000], None).is_ok());
        }
        kv.entries.run_pending_tasks();
        assert!(kv.entries.weighted_size() <= 64 << 10);
    }
}
