//! One load for each key among all nodes: a lease in the store, renewed while the load runs.
//!
//! There are three answers: the lease is ours, it is another node's, or nobody knows. *Nobody
//! knows* means that the node loads at once, because a store that is down must not delay anybody. A
//! node that waits asks again when a lease is released, and also at short intervals, because that
//! message can be lost. Releasing a lease is retried for as long as the lease could hold, so that a
//! busy or failing store does not make the next load of the key wait until the lease expires.
//!
//! Invariant: what was loaded under a lease is written only while the lease holds. A former owner
//! never overwrites what the next one wrote.

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

/// Who may load a key.
pub enum LeaseHolder {
    Mine(HeldLease),
    Others,
    /// The store does not answer: load at once.
    Unknown,
}

/// A lease that is renewed until it is dropped, and released then.
pub struct HeldLease {
    tier: Arc<L2>,
    lease: Lease,
    ttl: Duration,
    renewal: AbortHandle,
}

/// A request for a lease that is not answered yet. If it is dropped before (no answer came in time,
/// or the requester has left), the lease is released. The store may have granted it nevertheless,
/// or may do so when it handles the request, and then nobody else could load the key until it
/// expired.
struct PendingLeaseRequest<'a> {
    tier: &'a Arc<L2>,
    /// None: it was answered.
    lease: Option<Lease>,
}

/// Listens for released leases of one key.
pub struct LeaseReleaseListener {
    key: StoreKey,
    word: Option<broadcast::Receiver<StoreKey>>,
}

/// The pause between two requests while another node loads, and its random part.
const LOOK: Duration = Duration::from_millis(40);
const LOOK_SPREAD: u32 = 40;
/// The pause between two attempts to release a lease, doubled each time.
const RETRY: Duration = Duration::from_millis(100);
/// The pause before a lease is released again that the store did not know yet.
const AGAIN: Duration = Duration::from_secs(1);

impl L2 {
    /// Whether leases are in use, so that only one node loads a key at a time.
    pub fn leases(&self) -> bool {
        self.lease.load().enabled
            && self.guard.store.is_shared()
            && self.feed.generation().is_some()
    }

    /// How long to wait for another node's load, and what to do after that.
    pub fn patience(&self) -> (Duration, OnTimeout) {
        let rules = self.lease.load();
        (rules.wait_timeout.into(), rules.on_timeout)
    }

    /// Asks for the lease to load `key`, which belongs to `home`.
    pub async fn wait_for_lease(self: &Arc<Self>, home: KeyId, key: &EntryKey) -> LeaseHolder {
        let lease = Lease::of(StoreKey::with_home(home, key.as_bytes()));
        let ttl = self.lease.load().ttl.into();
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

    /// Listens for the release of the lease of `key`. Begin before asking for the lease.
    pub fn freed(&self, home: KeyId, key: &EntryKey) -> LeaseReleaseListener {
        LeaseReleaseListener {
            key: StoreKey::with_home(home, key.as_bytes()),
            word: self.guard.store.freed(),
        }
    }
}

impl LeaseReleaseListener {
    /// Waits for a release, or for a short time.
    pub async fn wait(&mut self) {
        let spread = RandomState::new().hash_one(0) as u32 % LOOK_SPREAD;
        let moment = LOOK + Duration::from_millis(spread.into());
        // In both cases it is time to ask again.
        let _ = tokio::time::timeout(moment, self.told()).await;
    }

    async fn told(&mut self) {
        let Some(word) = &mut self.word else {
            return std::future::pending().await;
        };
        loop {
            match word.recv().await {
                Ok(key) if key != self.key => {}
                // Some messages were missed, and ours may have been among them.
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
        behind(self.tier.lease.load().ttl.into(), async move {
            while !give_back(&tier, &lease).await {
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
}

/// Continues `work` in the background, for `ttl` at most. A lease that is not released by then has
/// expired; the same is true when the runtime ends with the process.
fn behind(ttl: Duration, work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(timeout(ttl, work));
    }
}

/// Releases a lease. Returns whether the store had it.
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
            // Another node has the lease: the store will refuse what we write under it.
            tier.hooks.emit(CacheEvent::Leased(L2LeaseOutcome::Lost));
            return;
        }
    }
}
