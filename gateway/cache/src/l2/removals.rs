//! Records that are to be removed: hidden here at once, removed from the store as soon as possible.
//!
//! A failed removal is retried until it is done. Until then the key is a miss here, and also a
//! little longer, because an answer that left the store before the record was removed may still be
//! on its way to L1. Beyond the bound, one purge of the key in the log replaces the removal (see
//! [`super::L2::forget`]).

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntGauge, Registry};

use super::guard::{StoreCall, StoreGuard};
use super::store::{LogPlace, StoreKey};

/// The largest number of keys with removals under way.
const UNDER_WAY: usize = 10_000;
/// The pauses between two attempts, growing.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// The longest time from an answer of the store to its place in L1.
const PROMOTION: Duration = Duration::from_secs(1);

/// The removals that are not done yet.
pub(super) struct PendingRemovals {
    /// The keys, and the number of removals of each.
    keys: Mutex<HashMap<StoreKey, usize>>,
    waiting: IntGauge,
}

impl PendingRemovals {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let waiting = IntGauge::new(
            "lamina_l2_removals_waiting",
            "Records that are hidden here while they are removed from the second tier.",
        )?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Self {
            keys: Mutex::default(),
            waiting,
        })
    }

    /// Hides a key. False: too many keys are hidden already.
    pub(super) fn begin(&self, key: StoreKey) -> bool {
        let mut keys = self.keys.lock();
        if keys.len() >= UNDER_WAY {
            return false;
        }
        *keys.entry(key).or_default() += 1;
        self.waiting.set(keys.len() as i64);
        true
    }

    pub(super) fn hides(&self, key: &StoreKey) -> bool {
        self.keys.lock().contains_key(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.lock().is_empty()
    }

    /// Removes the record, in as many attempts as it takes.
    pub(super) async fn carry_out(&self, guard: &StoreGuard, key: StoreKey, at: LogPlace) {
        let mut pause = RETRY;
        while guard
            .call(StoreCall::Delete, |store| store.delete(&key, at))
            .await
            .is_err()
        {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        tokio::time::sleep(guard.read_timeout() + PROMOTION).await;
        let mut keys = self.keys.lock();
        if let Some(removals) = keys.get_mut(&key) {
            *removals -= 1;
            if *removals == 0 {
                keys.remove(&key);
            }
        }
        self.waiting.set(keys.len() as i64);
    }
}
