//! What a leader does before it asks the origin: it looks in the second tier, and takes
//! its turn among the nodes that share it.
//!
//! Invariant: a store that does not tell holds nobody up: after the first call that came
//! to nothing no other is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::cache::Cache;
use crate::cache::coalesce::{Failure, Landing, Leader, Turn as Board};
use crate::cache::entry::Entry;
use crate::cache::event::{Event, Leased};
use crate::cache::freshness::State;
use crate::cache::key::{KeyBuf, KeyId};
use crate::cache::l2::config::OnTimeout;
use crate::cache::l2::{self, HeldLease, L2, Sought, Turn};
use crate::proxy::context::{Ask, Keyed};
use crate::proxy::fetch::Fetch;
use crate::proxy::metrics::Outcome;
use crate::proxy::record::trail::{SecondTierAnswer, Waypoint};
use crate::proxy::route::Route;
use crate::proxy::{Proxy, Served, plan};

/// What came of it.
pub enum Below {
    /// There it was.
    Found(Arc<Entry>),
    /// It may be served while it is refreshed.
    Stale(Arc<Entry>),
    /// It is to be loaded, under a lease where there is one.
    Load(Option<HeldLease>),
    /// Another node takes too long, and the configuration says not to load then.
    Waited(Failure),
}

/// What a look at the second tier came to.
enum SecondTierCopy {
    Fresh(Arc<Entry>),
    Stale(Arc<Entry>),
    /// Nothing that may be served; perhaps something to validate.
    Nothing,
    Unknown,
}

impl SecondTierCopy {
    fn answer(&self) -> SecondTierAnswer {
        match self {
            Self::Fresh(_) => SecondTierAnswer::Fresh,
            Self::Stale(_) => SecondTierAnswer::Stale,
            Self::Nothing => SecondTierAnswer::Nothing,
            Self::Unknown => SecondTierAnswer::Unknown,
        }
    }
}

impl Fetch {
    /// Looks below L1. A stale copy from there becomes what is validated.
    pub(super) async fn below(&mut self, leader: &Leader) -> Below {
        let Some(tier) = self.cache.below().cloned() else {
            return Below::Load(None);
        };
        match self.seen(&tier).await {
            SecondTierCopy::Fresh(entry) => Below::Found(entry),
            SecondTierCopy::Stale(entry) => Below::Stale(entry),
            SecondTierCopy::Unknown => Below::Load(None),
            SecondTierCopy::Nothing => self.take_turn(&tier, leader).await,
        }
    }

    /// Gives all who wait a stale copy. Some: its refresh behind them is ours.
    pub(super) fn go_behind(&mut self, leader: Leader, entry: Arc<Entry>) -> Option<Leader> {
        let marks = leader.marks().clone();
        leader.land(Landing::Promoted(Arc::clone(&entry)));
        self.private = None;
        let Board::Lead(leader) = self.cache.board(&entry.key, self.ask.number(), || marks) else {
            return None;
        };
        let now = Instant::now();
        let backoff = &self.cache.backoff;
        if backoff.pauses_refresh(entry.key.as_bytes(), now) {
            return None;
        }
        self.ask = Arc::new(self.ask.plain(&self.cache, &self.primary, &entry));
        // As every new leader: another refresh may have ended, a purge may have come.
        let headers = &self.ask.parts.headers;
        if let Some(fresh) = self.cache.fresh_again(&self.primary, headers, now) {
            leader.land(Landing::Stored(fresh));
            return None;
        }
        self.stale = self.cache.shows(&entry).then_some(entry);
        Some(leader)
    }

    /// The turn to refresh behind readers.
    pub(super) async fn turn_behind(&mut self, leader: &Leader) -> Below {
        match self.cache.below().cloned() {
            Some(tier) => self.take_turn(&tier, leader).await,
            None => Below::Load(None),
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

    async fn take_turn(&mut self, tier: &Arc<L2>, leader: &Leader) -> Below {
        // Parts stay in L1: nobody else gains from waiting for them.
        if self.part || !tier.leases() {
            return Below::Load(None);
        }
        let (home, key) = (KeyId(leader.marks().id), leader.key().clone());
        let (patience, then) = tier.patience();
        let patience = self
            .ask
            .route
            .policy
            .hard_timeout
            .map_or(patience, |hard| hard.min(patience));
        let began = Instant::now();
        let mut freed = tier.freed(home, &key);
        loop {
            let held = match tier.turn(home, &key).await {
                Turn::Mine(held) => Some(held),
                Turn::Unknown => return Below::Load(None),
                Turn::Others if began.elapsed() >= patience => return self.waited(then),
                Turn::Others => {
                    self.ask.note(|| Waypoint::WaitedForNode);
                    freed.wait().await;
                    None
                }
            };
            // Whoever had it may have published just before.
            match (self.seen(tier).await, held) {
                (SecondTierCopy::Fresh(entry), _) => return Below::Found(entry),
                (SecondTierCopy::Stale(entry), _) => return Below::Stale(entry),
                (SecondTierCopy::Unknown, held) => return Below::Load(held),
                (SecondTierCopy::Nothing, Some(held)) => return Below::Load(Some(held)),
                (SecondTierCopy::Nothing, None) => {}
            }
        }
    }

    fn waited(&self, then: OnTimeout) -> Below {
        self.cache.hooks.emit(Event::Leased(Leased::Timeout));
        match then {
            OnTimeout::Load => Below::Load(None),
            OnTimeout::Fail => Below::Waited(too_long()),
        }
    }

    /// Looks once, and takes what is there into L1.
    async fn seen(&mut self, tier: &L2) -> SecondTierCopy {
        let copy = self.sought(tier).await;
        self.ask.note(|| Waypoint::SecondTier(copy.answer()));
        copy
    }

    async fn sought(&mut self, tier: &L2) -> SecondTierCopy {
        match tier.find(&self.primary, &self.ask.parts.headers).await {
            Sought::Found(found) => {
                match take_up(&self.cache, &self.ask.route, &self.primary, *found) {
                    Some((entry, state)) => self.weigh(entry, state),
                    None => SecondTierCopy::Nothing,
                }
            }
            Sought::Miss => SecondTierCopy::Nothing,
            Sought::Unknown => SecondTierCopy::Unknown,
        }
    }

    fn weigh(&mut self, entry: Arc<Entry>, state: State) -> SecondTierCopy {
        let (route, parts) = (&self.ask.route, &self.ask.parts);
        match state {
            State::Fresh if plan::satisfies(route, parts, &entry, Instant::now()) => {
                return SecondTierCopy::Fresh(entry);
            }
            // Behind a reader it is the refresh that is wanted.
            State::Stale(windows)
                if windows.while_revalidate
                    && self.private.is_some()
                    && !plan::wants_fresh(route, parts) =>
            {
                return SecondTierCopy::Stale(entry);
            }
            State::Fresh | State::Stale(_) => {}
        }
        let newer = |held: &Arc<Entry>| held.born <= entry.born;
        if self.stale.as_ref().is_none_or(newer) {
            self.stale = Some(entry);
        }
        SecondTierCopy::Nothing
    }
}

impl Proxy {
    /// What the second tier has for a request that loads nothing for others.
    pub(super) async fn held_below(&self, ask: &Ask, keyed: &Keyed) -> Option<Served> {
        let (route, parts) = (&ask.route, &ask.parts);
        let Sought::Found(found) = self.cache.below()?.find(&keyed.key, &parts.headers).await
        else {
            return None;
        };
        let (entry, state) = take_up(&self.cache, route, &keyed.key, *found)?;
        let now = Instant::now();
        let usable = state == State::Fresh && plan::satisfies(route, parts, &entry, now);
        usable.then(|| self.hit(parts, &entry, Some("l2"), Outcome::Hit, now))
    }
}

/// Takes what was found below into L1, unless a purge hides it.
fn take_up(
    cache: &Cache,
    route: &Route,
    primary: &KeyBuf,
    found: l2::Below,
) -> Option<(Arc<Entry>, State)> {
    let l2::Below { mut entry, vary } = found;
    if let Some(cap) = route.policy.l1_cap {
        entry.freshness.lifetime = cap_of(&entry, cap);
    }
    let entry = Arc::new(entry);
    let state = cache.promote(primary.to_key(), &vary, &entry)?;
    Some((entry, state))
}

/// L1 keeps it for `cap` from now on, and never longer than below.
fn cap_of(entry: &Entry, cap: Duration) -> Duration {
    let age = entry.freshness.initial_age;
    entry.freshness.lifetime.min(age.saturating_add(cap))
}

fn too_long() -> Failure {
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
