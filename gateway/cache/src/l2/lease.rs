//! One load a key among all nodes: a lease in the store, renewed while the load runs.
//!
//! Three answers: mine, another's, nobody knows. *Nobody knows* means load at once: a
//! store that is down must not hold anybody up. Who waits looks again when a lease is
//! given back, and now and then in any case, for such a word can be missed. So giving it
//! back is tried again while it could hold: a busy or failing store must not make the next
//! load of the key wait until the lease runs out.
//!
//! Invariant: what was loaded under a lease is written only while the lease holds; a
//! former owner never overwrites what the next one wrote.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::L2;
use super::config::OnTimeout;
use super::guard::{StoreCall, StoreCallError};
use super::store::{Lease, LeaseAcquisition, StoreError, StoreKey};
use crate::event::{CacheEvent, L2LeaseOutcome};
use crate::key::{EntryKey, KeyId};

/// Whose turn it is to load.
pub enum LeaseHolder {
    Mine(HeldLease),
    Others,
    /// The store does not tell: load.
    Unknown,
}

/// A lease that is renewed until it is dropped, and given back then.
pub struct HeldLease {
    tier: Arc<L2>,
    lease: Lease,
    ttl: Duration,
    renewal: AbortHandle,
}

/// A question for a lease, until it is answered. Dropped before that (no answer came in time, or
/// who asked has left) it has the lease given back: the store may have given it all the same, or
/// may do so when it gets to the question, and nobody else could load the key until it ran out.
struct PendingLeaseRequest<'a> {
    tier: &'a Arc<L2>,
    /// None: it was answered.
    lease: Option<Lease>,
}

/// Word of leases that were given back.
pub struct LeaseReleaseListener {
    key: StoreKey,
    word: Option<broadcast::Receiver<StoreKey>>,
}

/// Between two looks while somebody else loads, and its random share.
const LOOK: Duration = Duration::from_millis(40);
const LOOK_SPREAD: u32 = 40;
/// Between two attempts to give a lease back, doubled each time.
const RETRY: Duration = Duration::from_millis(100);
/// Until a lease is given back again which the store did not know yet.
const AGAIN: Duration = Duration::from_secs(1);

impl L2 {
    /// Whether nodes load one at a time.
    pub fn leases(&self) -> bool {
        self.lease.enabled && self.guard.store.is_shared() && self.feed.generation().is_some()
    }

    /// How long to wait for another node's load, and what to do then.
    pub fn patience(&self) -> (Duration, OnTimeout) {
        (self.lease.wait_timeout.into(), self.lease.on_timeout)
    }

    /// Asks whose turn it is to load `key`, which belongs to `home`.
    pub async fn turn(self: &Arc<Self>, home: KeyId, key: &EntryKey) -> LeaseHolder {
        let lease = Lease::of(StoreKey::below(home, key.as_bytes()));
        let ttl = self.lease.ttl.into();
        let mut unanswered = PendingLeaseRequest {
            tier: self,
            lease: Some(lease.clone()),
        };
        let asked = self
            .guard
            .call(StoreCall::Lease, |store| store.acquire(&lease, ttl));
        let answer = asked.await;
        if !matches!(
            answer,
            Err(StoreCallError::Store(
                StoreError::Timeout | StoreError::Down(_)
            ))
        ) {
            unanswered.lease = None;
        }
        let (turn, leased) = match answer {
            Ok(LeaseAcquisition::Owned) => {
                let held = HeldLease::new(Arc::clone(self), lease, ttl);
                (LeaseHolder::Mine(held), L2LeaseOutcome::Owned)
            }
            Ok(LeaseAcquisition::Busy) => (LeaseHolder::Others, L2LeaseOutcome::Busy),
            Err(_) => (LeaseHolder::Unknown, L2LeaseOutcome::Unknown),
        };
        self.hooks.emit(CacheEvent::Leased(leased));
        turn
    }

    /// Listens for the lease of `key` to be given back: begin before asking for it.
    pub fn freed(&self, home: KeyId, key: &EntryKey) -> LeaseReleaseListener {
        LeaseReleaseListener {
            key: StoreKey::below(home, key.as_bytes()),
            word: self.guard.store.freed(),
        }
    }
}

impl LeaseReleaseListener {
    /// Waits for the word, or a moment.
    pub async fn wait(&mut self) {
        let spread = RandomState::new().hash_one(0) as u32 % LOOK_SPREAD;
        let moment = LOOK + Duration::from_millis(spread.into());
        // Either way it's time to look again.
        let _ = tokio::time::timeout(moment, self.told()).await;
    }

    async fn told(&mut self) {
        let Some(word) = &mut self.word else {
            return std::future::pending().await;
        };
        loop {
            match word.recv().await {
                Ok(key) if key != self.key => {}
                // Some were missed: perhaps ours.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => break,
            }
        }
        self.word = None;
        std::future::pending().await
    }
}

impl HeldLease {
    fn new(tier: Arc<L2>, lease: Lease, ttl: Duration) -> Self {
        let renewal = tokio::spawn(renew(Arc::clone(&tier), lease.clone(), ttl)).abort_handle();
        Self {
            tier,
            lease,
            ttl,
            renewal,
        }
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.renewal.abort();
        let (tier, lease) = (Arc::clone(&self.tier), self.lease.clone());
        behind(self.ttl, async move {
            give_back(&tier, &lease).await;
        });
    }
}

impl Drop for PendingLeaseRequest<'_> {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        let tier = Arc::clone(self.tier);
        behind(self.tier.lease.ttl.into(), async move {
            while !give_back(&tier, &lease).await {
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
}

/// Goes on with `work` behind the caller. What isn't given back within `ttl` has run out; so it
/// does when the runtime ends with us.
fn behind(ttl: Duration, work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(timeout(ttl, work));
    }
}

/// Answers whether the store had it.
async fn give_back(tier: &L2, lease: &Lease) -> bool {
    let mut pause = RETRY;
    loop {
        let release = tier
            .guard
            .call(StoreCall::Release, |store| store.release(lease));
        if let Ok(was_ours) = release.await {
            return was_ours;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

async fn renew(tier: Arc<L2>, lease: Lease, ttl: Duration) {
    loop {
        tokio::time::sleep(ttl / 3).await;
        let renewed = tier
            .guard
            .call(StoreCall::Renew, |store| store.renew(&lease, ttl))
            .await;
        if matches!(renewed, Ok(false)) {
            // It's another's: the store will refuse what we write under it.
            tier.hooks.emit(CacheEvent::Leased(L2LeaseOutcome::Lost));
            return;
        }
    }
}
