//! Leases: the right to load one key for all nodes.
//!
//! Decision: a lease is a random token under the key's name. Whoever changes or ends it shows the
//! token, in one script, so that a former owner changes nothing. After the token comes a number
//! that changes with each renewal, so that a lease which is renewed can be distinguished from one
//! that merely exists, and with a secret a seal over both.
//!
//! Redis is not asked whether a lease of another node is still valid, because whoever can write
//! there can let any key live for ever. A node takes a lease over when it has seen the same value
//! for as long as a lease holds without renewal, by its own clock ([`ObservedLeases`]). It takes
//! over at once what can't be a lease: another type, a value that never expires, a value with a
//! wrong seal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lamina_base::redis::driver::Value;

use super::fault::unexpected;
use super::seals::SEAL;
use super::values::{done, millis};
use super::{RedisStore, script};
use crate::l2::store::{Lease, LeaseAcquisition, StoreError, StoreKey};

/// The number of octets of a token, and of a token with the number after it.
const TOKEN: usize = 16;
const TERM: usize = TOKEN + 8;
/// The number of attempts to take a lease over while somebody forges new ones.
const ATTEMPTS: u32 = 3;

impl RedisStore {
    pub(super) async fn lease(
        &self,
        lease: &Lease,
        ttl: Duration,
    ) -> Result<LeaseAcquisition, StoreError> {
        let key = &lease.key;
        let mut over = self.watched.expired(key, ttl);
        for _ in 0..ATTEMPTS {
            match self.try_lease(lease, ttl, over.as_ref()).await? {
                None => {
                    self.watched.forget(key);
                    return Ok(LeaseAcquisition::Owned);
                }
                Some(held) if self.may_be_a_lease(key, &held) => {
                    self.watched.saw(key, held);
                    break;
                }
                Some(forged) => over = Some(forged),
            }
        }
        Ok(LeaseAcquisition::Busy)
    }

    /// None: it is ours now. Some: the value that is stored there.
    async fn try_lease(
        &self,
        lease: &Lease,
        ttl: Duration,
        over: Option<&Bytes>,
    ) -> Result<Option<Bytes>, StoreError> {
        let arguments = vec![
            self.term(lease).as_slice().into(),
            millis(ttl).into(),
            Value::Bytes(over.cloned().unwrap_or_default()),
        ];
        let keys = vec![self.names.lease(&lease.key)];
        match self.run(&script::ACQUIRE, keys, arguments).await? {
            Value::Integer(1) => Ok(None),
            held => held.into_bytes().map(Some).ok_or_else(|| unexpected("SET")),
        }
    }

    /// A value of the lease that was never used before.
    fn term(&self, lease: &Lease) -> Vec<u8> {
        static TURN: AtomicU64 = AtomicU64::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut term = [&lease.token[..], &turn].concat();
        if let Some(seals) = &self.seals {
            term.extend(seals.of_lease(&lease.key, &term));
        }
        term
    }

    /// Whether the value may be a lease. Without a secret, any value may be one.
    fn may_be_a_lease(&self, key: &StoreKey, held: &[u8]) -> bool {
        let Some(seals) = &self.seals else {
            return true;
        };
        held.len() == TERM + SEAL && {
            let (term, seal) = held.split_at(TERM);
            seals.holds_for_lease(key, term, seal)
        }
    }

    pub(super) async fn prolong(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let keys = vec![self.names.lease(&lease.key)];
        let arguments = vec![
            lease.token.as_slice().into(),
            millis(ttl).into(),
            self.term(lease).as_slice().into(),
        ];
        let answer = self.run(&script::RENEW, keys, arguments).await?;
        done(&answer, "SET")
    }

    pub(super) async fn give_back(&self, lease: &Lease) -> Result<bool, StoreError> {
        let keys = vec![self.names.lease(&lease.key)];
        let arguments = vec![
            lease.token.as_slice().into(),
            self.names.freed().into(),
            lease.key.to_bytes().as_slice().into(),
        ];
        let answer = self.run(&script::RELEASE, keys, arguments).await?;
        done(&answer, "DEL")
    }
}

/// Leases of other nodes, and since when each has been seen unchanged.
pub(super) struct ObservedLeases(moka::sync::Cache<StoreKey, LeaseObservation>);

/// The value that was seen under a key, and when it was first seen.
#[derive(Clone)]
struct LeaseObservation {
    held: Bytes,
    since: Instant,
}

impl Default for ObservedLeases {
    /// If there are more keys than this, some are treated as if they were seen for the first time.
    fn default() -> Self {
        const KEYS: u64 = 10_000;
        const FORGOTTEN: Duration = Duration::from_secs(3_600);
        let cache = moka::sync::Cache::builder().max_capacity(KEYS);
        Self(cache.time_to_idle(FORGOTTEN).build())
    }
}

impl ObservedLeases {
    /// The value under a key, if it was not renewed for `ttl`, so that it is no longer valid.
    fn expired(&self, key: &StoreKey, ttl: Duration) -> Option<Bytes> {
        let sight = self.0.get(key)?;
        (sight.since.elapsed() >= ttl).then_some(sight.held)
    }

    /// Notes the value that is under a key now.
    fn saw(&self, key: &StoreKey, held: Bytes) {
        if self.0.get(key).is_none_or(|sight| sight.held != held) {
            let since = Instant::now();
            self.0.insert(*key, LeaseObservation { held, since });
        }
    }

    fn forget(&self, key: &StoreKey) {
        self.0.invalidate(key);
    }
}
