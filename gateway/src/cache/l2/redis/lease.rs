//! Leases: the right to load one key for all nodes.
//!
//! Decision: a lease is a random token under the key's name; whoever changes or ends it
//! shows the token, in one script, so that a former owner touches nothing.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::interfaces::KeysInterface;
use fred::types::{Expiration, SetOptions, Value};

use super::fault::unexpected;
use super::{Redis, done, millis, script};
use crate::cache::l2::store::{Acquired, Lease, StoreError, StoreKey};

impl Redis {
    pub(super) async fn lease(
        &self,
        key: &StoreKey,
        ttl: Duration,
    ) -> Result<Acquired, StoreError> {
        let lease = Lease {
            key: *key,
            token: token(),
        };
        let answer = self
            .client()?
            .set::<Value, _, _>(
                self.names.lease(key),
                lease.token.as_slice(),
                Some(Expiration::PX(millis(ttl))),
                Some(SetOptions::NX),
                false,
            )
            .await
            .map_err(|error| self.failed(&error))?;
        match answer {
            Value::Null => Ok(Acquired::Busy),
            ok if ok.as_str().as_deref() == Some("OK") => Ok(Acquired::Owned(lease)),
            _ => Err(unexpected("SET NX")),
        }
    }

    pub(super) async fn prolong(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let keys = vec![self.names.lease(&lease.key)];
        let arguments = vec![lease.token.as_slice().into(), millis(ttl).into()];
        let answer = self.run(&script::RENEW, keys, arguments).await?;
        done(&answer, "PEXPIRE")
    }

    pub(super) async fn give_back(&self, lease: &Lease) -> Result<(), StoreError> {
        let keys = vec![self.names.lease(&lease.key)];
        let arguments = vec![
            lease.token.as_slice().into(),
            self.names.freed().into(),
            lease.key.to_bytes().as_slice().into(),
        ];
        let answer = self.run(&script::RELEASE, keys, arguments).await?;
        done(&answer, "DEL").map(drop)
    }
}

/// Never the same twice, on whichever node.
fn token() -> [u8; 16] {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let half = || RandomState::new().hash_one(turn).to_be_bytes();
    let (high, low) = (half(), half());
    std::array::from_fn(|i| if i < 8 { high[i] } else { low[i - 8] })
}
