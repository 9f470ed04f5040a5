//! What a leader does before it asks the origin: it looks in the second tier, and takes
//! its turn among the nodes that share it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::cache::coalesce::Failure;
use crate::cache::entry::Entry;
use crate::cache::freshness::State;
use crate::cache::l2::config::OnTimeout;
use crate::cache::l2::{Held, L2, Turn};
use crate::proxy::fetch::Fetch;
use crate::proxy::plan;

/// What came of it.
pub enum Below {
    /// There it was.
    Found(Arc<Entry>),
    /// It is to be loaded, under a lease where there is one.
    Load(Option<Held>),
    /// Another node takes too long, and the configuration says not to load then.
    Waited(Failure),
}

impl Fetch {
    /// Looks below L1. A stale copy from there becomes what is validated.
    pub(super) async fn below(&mut self) -> Below {
        let Some(tier) = self.cache.below().cloned() else {
            return Below::Load(None);
        };
        if let Some(entry) = self.look(&tier).await {
            return Below::Found(entry);
        }
        match tier.leases() {
            true => self.take_turn(&tier).await,
            false => Below::Load(None),
        }
    }

    /// Gives a stored entry to the second tier: at once under the lease that it was loaded
    /// with, else by and by.
    pub(super) async fn hand_down(self, entry: &Entry, lifetime: Duration) {
        let Some(tier) = self.cache.below() else {
            return;
        };
        let primary = self.primary.to_key();
        let lists = match entry.key == primary {
            true => Vec::new(),
            false => self.cache.vary_lists(&primary),
        };
        match self.lease {
            Some(held) => tier.publish(&primary, &lists, entry, lifetime, held).await,
            None => tier.put(&primary, &lists, entry, lifetime),
        }
    }

    async fn take_turn(&mut self, tier: &Arc<L2>) -> Below {
        let key = self.primary.to_key();
        let (patience, then) = tier.patience();
        let began = Instant::now();
        let mut freed = tier.freed(&key);
        loop {
            match tier.turn(&key).await {
                Turn::Mine(held) => {
                    // Whoever had it may have published just before.
                    return match self.look(tier).await {
                        Some(entry) => Below::Found(entry),
                        None => Below::Load(Some(held)),
                    };
                }
                Turn::Unknown => return Below::Load(None),
                Turn::Others if began.elapsed() >= patience => {
                    return match then {
                        OnTimeout::Load => Below::Load(None),
                        OnTimeout::Fail => Below::Waited(waited()),
                    };
                }
                Turn::Others => freed.wait().await,
            }
            if let Some(entry) = self.look(tier).await {
                return Below::Found(entry);
            }
        }
    }

    /// A copy that may be served.
    async fn look(&mut self, tier: &L2) -> Option<Arc<Entry>> {
        let below = tier.find(&self.primary, &self.ask.parts.headers).await?;
        let (mut entry, vary) = (below.entry, below.vary);
        if let Some(cap) = self.ask.route.policy.l1_cap {
            entry.freshness.lifetime = cap_of(&entry, cap);
        }
        let entry = Arc::new(entry);
        let state = self.cache.promote(self.primary.to_key(), &vary, &entry)?;
        let now = Instant::now();
        if state == State::Fresh && plan::satisfies(&self.ask.route, &self.ask.parts, &entry, now) {
            return Some(entry);
        }
        if self
            .stale
            .as_ref()
            .is_none_or(|held| held.born <= entry.born)
        {
            self.stale = Some(entry);
        }
        None
    }
}

/// L1 keeps it for `cap` from now on, and never longer than below.
fn cap_of(entry: &Entry, cap: Duration) -> Duration {
    let age = entry.freshness.initial_age;
    entry.freshness.lifetime.min(age.saturating_add(cap))
}

fn waited() -> Failure {
    let detail = "another node loads, and takes longer than lease.wait_timeout";
    Failure {
        retry_after: Some(1),
        ..Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "proxy_internal_response",
            detail,
        )
    }
}
