//! Back-off after a failed load: how long a key's stale copy is served without asking the origin
//! again.
//!
//! With the origin down and a thousand requests for one stale key, the origin sees only a handful.
//! The pause doubles with each failure, with jitter, up to a bound; a success ends it. A pause may
//! also apply to background refreshes alone. The pauses are kept in a bounded map: a key that is
//! dropped from it is asked for again, nothing more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use moka::Expiry;
use moka::sync::Cache;

use crate::config;
use crate::key::EntryKey;

/// The pauses of keys whose loads failed.
pub struct LoadBackoff {
    failures: Cache<EntryKey, LoadPause, foldhash::fast::RandomState>,
    rules: ArcSwap<config::LoadBackoffConfig>,
}

#[derive(Clone, Copy)]
struct LoadPause {
    until: Instant,
    failures: u32,
    paused: PausedLoads,
    /// How long the failure is remembered.
    remembered: Duration,
}

struct LoadPauseExpiry;

impl Expiry<EntryKey, LoadPause> for LoadPauseExpiry {
    fn expire_after_create(&self, _: &EntryKey, pause: &LoadPause, _: Instant) -> Option<Duration> {
        Some(pause.remembered)
    }

    fn expire_after_update(
        &self,
        _: &EntryKey,
        pause: &LoadPause,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(pause.remembered)
    }
}

/// Which loads a pause prevents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PausedLoads {
    /// All of them, because the origin failed.
    All,
    /// Background refreshes only: the origin answers, but with nothing that can be stored. A
    /// request that may not get the stale copy may still ask the origin.
    Refreshes,
}

/// The largest number of keys that are remembered.
const KEYS: u64 = 10_000;

impl LoadBackoff {
    pub fn new(config: &config::LoadBackoffConfig) -> Self {
        let failures = Cache::builder()
            .max_capacity(KEYS)
            .expire_after(LoadPauseExpiry)
            .build_with_hasher(Default::default());
        Self {
            failures,
            rules: ArcSwap::from_pointee(config.clone()),
        }
    }

    /// Pauses that begin from now on follow these rules.
    pub fn follow(&self, config: &config::LoadBackoffConfig) {
        self.rules.store(Arc::new(config.clone()));
    }

    /// Whether every load of `key` must wait.
    pub fn pauses(&self, key: &[u8], now: Instant) -> bool {
        self.pause(key, now) == Some(PausedLoads::All)
    }

    /// Whether a background refresh of `key` must wait.
    pub fn pauses_refresh(&self, key: &[u8], now: Instant) -> bool {
        self.pause(key, now).is_some()
    }

    fn pause(&self, key: &[u8], now: Instant) -> Option<PausedLoads> {
        let pause = self.failures.get(key)?;
        (now < pause.until).then_some(pause.paused)
    }

    /// Notes a failed load. `random` is a random number that decides the jitter.
    pub fn failed(&self, key: &EntryKey, paused: PausedLoads, now: Instant, random: u32) {
        let failures = self.failures.get(key).map_or(0, |pause| pause.failures);
        let (base, max) = {
            let rules = self.rules.load();
            (rules.base.0, rules.max.0)
        };
        let pause = pause(base, max, failures, random);
        self.failures.insert(
            key.clone(),
            LoadPause {
                until: now + pause,
                failures: failures.saturating_add(1),
                paused,
                remembered: max * 4 + Duration::from_secs(1),
            },
        );
    }

    /// Notes a load that succeeded.
    pub fn succeeded(&self, key: &EntryKey) {
        self.failures.invalidate(key.as_bytes());
    }
}

/// `base` doubled `failures` times, at most `max`; `random` selects 75 to 100 % of that.
fn pause(base: Duration, max: Duration, failures: u32, random: u32) -> Duration {
    let full = base.saturating_mul(1 << failures.min(20)).min(max);
    full.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyBuf;
    use crate::units;
    use proptest::prelude::*;

    #[test]
    fn a_key_pauses_after_a_failure_until_a_success() {
        let backoff = LoadBackoff::new(&config::LoadBackoffConfig {
            base: units::ConfigDuration::secs(1),
            max: units::ConfigDuration::secs(30),
        });
        let (key, now) = (KeyBuf::default().to_key(), Instant::now());
        assert!(!backoff.pauses(key.as_bytes(), now));
        backoff.failed(&key, PausedLoads::All, now, u32::MAX);
        assert!(backoff.pauses(key.as_bytes(), now + Duration::from_millis(999)));
        assert!(!backoff.pauses(key.as_bytes(), now + Duration::from_millis(1_001)));
        backoff.failed(&key, PausedLoads::All, now, u32::MAX);
        assert!(
            backoff.pauses(key.as_bytes(), now + Duration::from_millis(1_999)),
            "it doubled"
        );
        backoff.succeeded(&key);
        assert!(!backoff.pauses_refresh(key.as_bytes(), now));
        backoff.failed(&key, PausedLoads::Refreshes, now, u32::MAX);
        assert!(backoff.pauses_refresh(key.as_bytes(), now));
        assert!(!backoff.pauses(key.as_bytes(), now));
    }

    proptest! {
        #[test]
        fn a_pause_stays_within_its_bounds(failures in any::<u32>(), random in any::<u32>()) {
            let (base, max) = (Duration::from_millis(500), Duration::from_secs(30));
            let pause = pause(base, max, failures, random);
            prop_assert!(pause >= base.mul_f64(0.74) && pause <= max);
        }
    }
}
