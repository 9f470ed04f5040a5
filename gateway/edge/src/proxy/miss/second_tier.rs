//! What a leader does before it asks the origin: it looks into the second tier, and waits for its
//! lease among the nodes that share the tier.
//!
//! Invariant: a store that cannot answer delays nobody. After the first call that fails, no further
//! one is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::load::{LoadMode, LoadStep, MissLoad};
use super::stale::{self, PurgeCertainty, StaleSituation, StaleVerdict, verdict};
use super::{LoadKind, plain};
use crate::cache::Cache;
use crate::cache::coalesce::{FlightOutcome, LeadOrFollow as FlightTurn, Leader, LoadFailure};
use crate::cache::entry::Entry;
use crate::cache::event::{CacheEvent, L2LeaseOutcome, StaleReason};
use crate::cache::freshness::FreshnessState;
use crate::cache::key::{KeyBuf, KeyId};
use crate::cache::l2::config::OnTimeout;
use crate::cache::l2::{self, HeldLease, L2, L2Lookup, LeaseHolder};
use crate::proxy::context::{DerivedKey, RequestContext};
use crate::proxy::counted::{CountedResponse, hit};
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::plan;
use crate::proxy::record::trail::{SecondTierAnswer, TrailEvent};
use crate::proxy::route::Route;
use crate::proxy::rules::maintenance::wants_only_stored;

/// The result of the second tier for a load.
enum SecondTierOutcome {
    /// The second tier has a fresh entry.
    Found(Arc<Entry>),
    /// The entry may be served while it is refreshed.
    Stale(Arc<Entry>),
    /// The value must be loaded, under this lease if there is one.
    Load(Option<HeldLease>),
    /// Another node takes too long, and by the configuration the load fails then.
    Waited(LoadFailure),
}

/// The result of one look into the second tier.
enum SecondTierCopy {
    Fresh(Arc<Entry>),
    Stale(Arc<Entry>),
    /// There is nothing that may be served, but perhaps something to validate.
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

/// Ends the flight with what the second tier has. Otherwise the load asks the source, for waiting
/// clients or in the background.
pub(super) async fn look(load: &mut MissLoad, leader: Leader) -> LoadStep {
    if load.mode == LoadMode::SideBySide {
        // A moment ago there was nothing to share, so no request waits for another one.
        return LoadStep::Source(leader);
    }
    match load.cache.second_tier().cloned() {
        // In a box: without a second tier, every load's future would grow by it.
        Some(tier) => Box::pin(look_into(load, leader, &tier)).await,
        None => LoadStep::Source(leader),
    }
}

async fn look_into(load: &mut MissLoad, mut leader: Leader, tier: &Arc<L2>) -> LoadStep {
    let mut outlook = find(load, &leader, tier).await;
    if let SecondTierOutcome::Stale(entry) = outlook {
        match answer_stale_and_refresh(load, leader, entry) {
            Some(refresh) => leader = refresh,
            None => return LoadStep::Landed,
        }
        outlook = take_turn(load, tier, &leader).await;
    }
    match outlook {
        SecondTierOutcome::Found(entry) | SecondTierOutcome::Stale(entry) => {
            leader.land(FlightOutcome::Promoted(entry));
            LoadStep::Landed
        }
        SecondTierOutcome::Waited(failure) => LoadStep::Fail(leader, failure),
        SecondTierOutcome::Load(lease) => {
            load.lease = lease;
            LoadStep::Source(leader)
        }
    }
}

/// Looks into the second tier. A stale copy from there may become the one to validate.
async fn find(load: &mut MissLoad, leader: &Leader, tier: &Arc<L2>) -> SecondTierOutcome {
    match look_once(load, tier).await {
        SecondTierCopy::Fresh(entry) => SecondTierOutcome::Found(entry),
        SecondTierCopy::Stale(entry) => SecondTierOutcome::Stale(entry),
        SecondTierCopy::Unknown => SecondTierOutcome::Load(None),
        SecondTierCopy::Nothing => take_turn(load, tier, leader).await,
    }
}

/// Ends the flight with the stale copy. Returns the new leader if this task must refresh it.
fn answer_stale_and_refresh(
    load: &mut MissLoad,
    leader: Leader,
    entry: Arc<Entry>,
) -> Option<Leader> {
    let marks = leader.marks().clone();
    leader.land(FlightOutcome::Promoted(Arc::clone(&entry)));
    load.private = None;
    let number = load.ask.number();
    let FlightTurn::Lead(leader) = load.cache.lead_or_follow(&entry.key, number, || marks) else {
        return None;
    };
    let now = Instant::now();
    let backoff = &load.cache.backoff;
    if backoff.pauses_refresh(entry.key.as_bytes(), now) {
        return None;
    }
    let request = plain::request(&load.ask, &load.cache, &load.primary, &entry);
    load.ask = Arc::new(request);
    // This applies to every new leader: another refresh may have ended, or a purge may have come.
    let headers = &load.ask.parts.headers;
    if let Some(fresh) = load.cache.fresh_again(&load.primary, headers, now) {
        leader.land(FlightOutcome::Stored(fresh));
        return None;
    }
    load.stale = load.cache.shows(&entry).then_some(entry);
    Some(leader)
}

/// Writes a stored entry to the second tier: at once if it was loaded under a lease, otherwise
/// soon, in the queue of other writes.
pub(super) async fn store(load: &mut MissLoad, entry: &Entry, lifetime: Duration) {
    let lease = load.lease.take();
    let Some(tier) = load.cache.second_tier() else {
        return;
    };
    let primary = load.primary.to_key();
    let lists = match entry.key == primary {
        true => Vec::new(),
        false => load.cache.vary_lists(&primary),
    };
    match lease {
        Some(held) => tier.publish(&primary, &lists, entry, lifetime, held).await,
        None => tier.put(&primary, &lists, entry, lifetime),
    }
}

/// Waits for this node's lease to load, or for the entry that another node loads.
async fn take_turn(load: &mut MissLoad, tier: &Arc<L2>, leader: &Leader) -> SecondTierOutcome {
    // Parts stay in L1, so no other node would gain from a lease.
    if load.kind == LoadKind::Range || !tier.leases() {
        return SecondTierOutcome::Load(None);
    }
    let (home, key) = (KeyId(leader.marks().id), leader.key().clone());
    let (patience, then) = tier.patience();
    let hard = load.ask.route.policy.hard_timeout;
    let patience = hard.map_or(patience, |hard| hard.min(patience));
    let began = Instant::now();
    let mut freed = tier.freed(home, &key);
    loop {
        let held = match tier.wait_for_lease(home, &key).await {
            LeaseHolder::Mine(held) => Some(held),
            LeaseHolder::Unknown => return SecondTierOutcome::Load(None),
            LeaseHolder::Others if began.elapsed() >= patience => return waited(load, then),
            LeaseHolder::Others => {
                load.ask.note(|| TrailEvent::WaitedForNode);
                freed.wait().await;
                None
            }
        };
        // The previous holder may have published the entry just before.
        match (look_once(load, tier).await, held) {
            (SecondTierCopy::Fresh(entry), _) => return SecondTierOutcome::Found(entry),
            (SecondTierCopy::Stale(entry), _) => return SecondTierOutcome::Stale(entry),
            (SecondTierCopy::Unknown, held) => return SecondTierOutcome::Load(held),
            (SecondTierCopy::Nothing, Some(held)) => return SecondTierOutcome::Load(Some(held)),
            (SecondTierCopy::Nothing, None) => {}
        }
    }
}

fn waited(load: &MissLoad, then: OnTimeout) -> SecondTierOutcome {
    load.cache
        .hooks
        .emit(CacheEvent::Leased(L2LeaseOutcome::Timeout));
    match then {
        OnTimeout::Load => SecondTierOutcome::Load(None),
        OnTimeout::Fail => SecondTierOutcome::Waited(too_long()),
    }
}

/// Looks once, and takes the entry that is found into L1.
async fn look_once(load: &mut MissLoad, tier: &L2) -> SecondTierCopy {
    let copy = match tier.find(&load.primary, &load.ask.parts.headers).await {
        L2Lookup::Found(found) => {
            match take_up(&load.cache, &load.ask.route, &load.primary, *found) {
                Some((entry, state)) => weigh(load, entry, state),
                None => SecondTierCopy::Nothing,
            }
        }
        L2Lookup::Miss => SecondTierCopy::Nothing,
        L2Lookup::Unknown => SecondTierCopy::Unknown,
    };
    load.ask.note(|| TrailEvent::SecondTier(copy.answer()));
    copy
}

fn weigh(load: &mut MissLoad, entry: Arc<Entry>, state: FreshnessState) -> SecondTierCopy {
    let (route, parts) = (&load.ask.route, &load.ask.parts);
    match state {
        FreshnessState::Fresh if plan::satisfies(route, parts, &entry, Instant::now()) => {
            return SecondTierCopy::Fresh(entry);
        }
        // In a background refresh, a stale copy is no answer.
        FreshnessState::Stale(windows) if !load.is_behind_reader() => {
            let found = StaleSituation::Found(PurgeCertainty::InDoubt);
            let request = (&**route, parts);
            let now = Instant::now();
            if verdict(found, (&entry, windows), request, now) == StaleVerdict::ShowAndRefresh {
                return SecondTierCopy::Stale(entry);
            }
        }
        FreshnessState::Fresh | FreshnessState::Stale(_) => {}
    }
    let newer = |held: &Arc<Entry>| held.born <= entry.born;
    if load.stale.as_ref().is_none_or(newer) {
        load.stale = Some(entry);
    }
    SecondTierCopy::Nothing
}

/// Answers a request that loads nothing for others from the second tier, if it has a fresh entry.
pub(super) async fn answer(
    cache: &Cache,
    ask: &RequestContext,
    keyed: &DerivedKey,
) -> Option<CountedResponse> {
    let (route, parts) = (&ask.route, &ask.parts);
    let L2Lookup::Found(found) = cache.second_tier()?.find(&keyed.key, &parts.headers).await else {
        return None;
    };
    let (entry, state) = take_up(cache, route, &keyed.key, *found)?;
    let now = Instant::now();
    if wants_only_stored(parts) && state != FreshnessState::Fresh && cache.is_sure(&entry) {
        let reason = StaleReason::Maintenance;
        return Some(stale::serve_now(cache, parts, &entry, reason, now));
    }
    let usable = state == FreshnessState::Fresh
        && (plan::satisfies(route, parts, &entry, now) || wants_only_stored(parts));
    usable.then(|| hit(parts, &entry, Some("l2"), RequestOutcome::Hit, now))
}

/// Takes an entry from the second tier into L1, unless a purge hides it.
fn take_up(
    cache: &Cache,
    route: &Route,
    primary: &KeyBuf,
    found: l2::L2Entry,
) -> Option<(Arc<Entry>, FreshnessState)> {
    let l2::L2Entry { mut entry, vary } = found;
    if let Some(cap) = route.policy.l1_cap {
        entry.freshness.lifetime = cap_of(&entry, cap);
    }
    let entry = Arc::new(entry);
    let state = cache.promote(primary.to_key(), &vary, &entry)?;
    Some((entry, state))
}

/// The lifetime in L1: `cap` from now on, and never longer than in the second tier.
fn cap_of(entry: &Entry, cap: Duration) -> Duration {
    let age = entry.freshness.initial_age;
    entry.freshness.lifetime.min(age.saturating_add(cap))
}

fn too_long() -> LoadFailure {
    let detail = "another node is loading this, and it takes longer than \
                  cache.l2.lease.wait_timeout";
    LoadFailure {
        retry_after: Some(1),
        ..LoadFailure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "proxy_internal_response",
            detail,
        )
    }
}
