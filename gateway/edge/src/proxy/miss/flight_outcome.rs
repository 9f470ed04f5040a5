//! What the outcome of a flight means for one of the requests that waited for it: it gets the
//! shared answer, or one of its own, or none, so that it asks the origin alone.

use std::sync::Arc;

use http::StatusCode;
use lamina_base::turn_clock;

use super::join::{FlightPlace, FlightRole};
use super::publish::kept_under;
use super::stale::{self, PurgeCertainty, StaleCopy, StaleSituation, StaleVerdict, verdict};
use super::wait::FlightWaitOutcome;
use super::{LoadKind, Miss, RequestStep};
use crate::cache::coalesce::{FlightOutcome, LoadFailure, LoadFailureScope};
use crate::cache::entry::Entry;
use crate::cache::event::{CacheEvent, StaleReason, UncoalescedReason};
use crate::cache::fill::Fill;
use crate::cache::freshness::FreshnessState;
use crate::cache::key::EntryKey;
use crate::cache::policy::UncacheableReason;
use crate::cache::variant_key;
use crate::http::cache_status::CacheStatus;
use crate::http::vary::Vary;
use crate::proxy::counted::{CountedResponse, hit};
use crate::proxy::excerpt::{self, ExcerptOutcome};
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::rules::limits;
use crate::proxy::{failure, plan, respond};

/// Returns the next step of the request after its wait.
pub(super) async fn next(
    miss: &mut Miss,
    place: FlightPlace,
    waited: FlightWaitOutcome,
) -> RequestStep {
    let outcome = match waited {
        FlightWaitOutcome::Landed(outcome) => outcome,
        FlightWaitOutcome::Soft(entry) => {
            let reason = StaleReason::SoftTimeout;
            let served = stale::serve(&miss.proxy.cache, &miss.ask, &entry, reason);
            return RequestStep::Answered(served);
        }
        FlightWaitOutcome::Long => return RequestStep::SideBySide(UncoalescedReason::WaitTimeout),
    };
    match outcome {
        FlightOutcome::Streaming(fill) => read_along(miss, &fill, &place),
        FlightOutcome::Stored(entry) => stored(miss, &entry, &place),
        FlightOutcome::Promoted(entry) => promoted(miss, &entry, &place),
        FlightOutcome::Private(_) | FlightOutcome::LeadersOwn if place.leads() => {
            leaders_own(miss, place).await
        }
        FlightOutcome::Private(whose) if whose.includes(miss.ask.came_with(&miss.keyed.key)) => {
            RequestStep::SideBySide(UncoalescedReason::Private)
        }
        FlightOutcome::Private(_) | FlightOutcome::LeadersOwn => miss.patience.takes_next_turn(),
        FlightOutcome::Failed(failure) => failed(miss, &failure, &place),
        FlightOutcome::Abandoned | FlightOutcome::InFlight => miss.patience.asks_again(),
    }
}

/// The flight ended with a stored entry: after a 304, or because the leader found the entry in L1.
fn stored(miss: &mut Miss, entry: &Entry, place: &FlightPlace) -> RequestStep {
    let leads = place.leads();
    if !leads && let Some(variant) = other_variant(miss, entry) {
        return ask_for_variant(miss, variant);
    }
    let now = turn_clock::now();
    if !leads && !entry.freshness.serves_others(now) {
        return alone(miss, place.apart, UncoalescedReason::Private);
    }
    // The load is asked, since the entry may be older than it.
    if !leads && miss.proxy.cache.hides(&entry.marks, place.follower.born()) {
        return miss.patience.asks_again();
    }
    let status = CacheStatus::Fwd {
        reason: miss.reason,
        fwd_status: Some(StatusCode::NOT_MODIFIED.as_u16()),
        stored: true,
        collapsed: !leads,
        ttl: entry.freshness.ttl_left(now).map(|_| entry.ttl(now)),
        detail: miss.ask.retry_detail(),
    };
    let age = entry.freshness.age(now);
    let response = respond::from_entry(&miss.ask.parts, entry, age, &status);
    let outcome = match leads {
        true => RequestOutcome::Revalidated,
        false => RequestOutcome::Coalesced,
    };
    RequestStep::Answered(CountedResponse::new(response, outcome))
}

/// A follower gets the failure only if its own load would have failed in the same way.
fn failed(miss: &Miss, failure: &LoadFailure, place: &FlightPlace) -> RequestStep {
    let fallback = fallback_now(miss);
    let copy = fallback.as_ref().or(miss.stale.as_ref());
    let is_ours = place.leads() || failure.blame == LoadFailureScope::AnyRequest;
    let is_ours = is_ours || limits::shares_refusal(&miss.ask, failure);
    match stale::stand_in(miss, copy, failure) {
        // It tries again for as long as its wait budget lasts: each of these rounds is a failed
        // load.
        None if !is_ours => RequestStep::JoinOrLead,
        _ => RequestStep::Answered(stale::or_error(miss, copy, failure)),
    }
}

/// Reads the body while it arrives, if it is this request's variant and no purge has hidden it.
///
/// Invariant: the key of a flight is chosen before `Vary` is known, so a follower takes the
/// leader's answer only if its own request selects the same variant.
fn read_along(miss: &mut Miss, fill: &Arc<Fill>, place: &FlightPlace) -> RequestStep {
    let (ask, keyed, cache) = (&miss.ask, &miss.keyed, &miss.proxy.cache);
    let leads = place.leads();
    let variant = variant_key(
        &kept_under(&keyed.key, fill.head.status),
        &fill.head.vary,
        &ask.parts.headers,
    );
    if variant != fill.head.key {
        cache
            .hooks
            .emit(CacheEvent::InflightBypass(UncoalescedReason::OtherVariant));
        return ask_for_variant(miss, variant);
    }
    if !leads && cache.hides(&fill.head.marks, place.follower.born()) {
        return miss.patience.asks_again();
    }
    let now = turn_clock::now();
    if !leads && !fill.head.freshness.serves_others(now) {
        return alone(miss, place.apart, UncoalescedReason::Private);
    }
    let status = CacheStatus::Fwd {
        reason: miss.reason,
        fwd_status: Some(fill.head.status.as_u16()),
        stored: true,
        collapsed: !leads,
        ttl: fill.head.freshness.ttl_left(now),
        detail: ask.retry_detail(),
    };
    match respond::from_fill(&ask.parts, fill, now, &status) {
        Some(mut response) if leads => {
            response.headers_mut().extend(fill.head.own.clone());
            RequestStep::Answered(CountedResponse::new(response, RequestOutcome::Miss))
        }
        Some(response) => {
            RequestStep::Answered(CountedResponse::new(response, RequestOutcome::Coalesced))
        }
        None => miss.patience.asks_again(),
    }
}

/// The entry came from the second tier: no origin was asked.
fn promoted(miss: &mut Miss, entry: &Entry, place: &FlightPlace) -> RequestStep {
    let leads = place.leads();
    if !leads && let Some(variant) = other_variant(miss, entry) {
        return ask_for_variant(miss, variant);
    }
    let (ask, cache, now) = (&miss.ask, &miss.proxy.cache, turn_clock::now());
    if !leads && !cache.shows(entry) {
        return miss.patience.asks_again();
    }
    let (route, parts) = (&ask.route, &ask.parts);
    let served = match entry.state(now) {
        FreshnessState::Fresh if leads => {
            Some(hit(parts, entry, Some("l2"), RequestOutcome::Hit, now))
        }
        FreshnessState::Fresh => plan::satisfies(route, parts, entry, now)
            .then(|| hit(parts, entry, Some("l2"), RequestOutcome::Coalesced, now)),
        FreshnessState::Stale(windows) => {
            let found = StaleSituation::Found(PurgeCertainty::InDoubt);
            let verdict = verdict(found, (entry, windows), (route, parts), now);
            (verdict == StaleVerdict::ShowAndRefresh)
                .then(|| stale::serve(cache, ask, entry, StaleReason::Revalidating))
        }
    };
    match served {
        Some(served) => RequestStep::Answered(served),
        None => miss.patience.asks_again(),
    }
}

fn ask_for_variant(miss: &mut Miss, variant: EntryKey) -> RequestStep {
    miss.load_variant(variant);
    miss.patience.asks_again()
}

/// The key of this request's variant, if the stored answer is of another variant.
fn other_variant(miss: &Miss, entry: &Entry) -> Option<EntryKey> {
    let vary = Vary::parse(&entry.headers);
    let key = variant_key(&miss.keyed.key, &vary, &miss.ask.parts.headers);
    (key != entry.key).then(|| {
        let event = CacheEvent::InflightBypass(UncoalescedReason::OtherVariant);
        miss.proxy.cache.hooks.emit(event);
        key
    })
}

/// The copy to fall back on now: a load may have found one in the second tier.
pub(super) fn fallback_now(miss: &Miss) -> Option<StaleCopy> {
    let cache = &miss.proxy.cache;
    cache.second_tier()?;
    let (ask, keyed) = (&miss.ask, &miss.keyed);
    let found = cache.fallback(&keyed.key, &ask.parts.headers, turn_clock::now());
    found.map(|(entry, windows)| StaleCopy { entry, windows })
}

/// Answers with the response that is for the leader's client alone.
async fn leaders_own(miss: &mut Miss, place: FlightPlace) -> RequestStep {
    let response = match place.role {
        FlightRole::Leader(receiver) => receiver.await.ok(),
        FlightRole::Follower => None,
    };
    let Some(response) = response else {
        let served = failure::answer(&miss.ask.route, miss.reason, &lost());
        return RequestStep::Answered(served);
    };
    let refusal = response.extensions().get::<UncacheableReason>().copied();
    let fwd_status = Some(response.status().as_u16());
    let excerpted = match miss.kind {
        // The origin was asked for the range, but does not support ranges.
        LoadKind::Range => ExcerptOutcome::Response(excerpt::of_passed(&miss.ask, response)),
        LoadKind::Whole => excerpt::of_load(&miss.ask, response),
    };
    let response = match excerpted {
        ExcerptOutcome::Response(response) => response,
        ExcerptOutcome::TooFar
            if refusal == Some(UncacheableReason::TooLarge) && miss.may_load_range() =>
        {
            miss.load_range();
            return miss.patience.asks_again();
        }
        ExcerptOutcome::TooFar => return alone(miss, place.apart, UncoalescedReason::Range),
    };
    let refusal = refusal.map(|refusal| refusal.as_str());
    let status = CacheStatus::Fwd {
        reason: miss.reason,
        fwd_status,
        stored: false,
        collapsed: false,
        ttl: None,
        detail: place
            .apart
            .map(UncoalescedReason::as_str)
            .or(refusal)
            .or_else(|| miss.ask.retry_detail()),
    };
    let outcome = match place.apart {
        Some(_) => RequestOutcome::Pass,
        None => RequestOutcome::Miss,
    };
    RequestStep::Answered(CountedResponse::new(
        respond::passed(&miss.ask.route.policy.tags_from, response, &status),
        outcome,
    ))
}

/// The request goes to the source for its own client alone. A load side by side was already counted
/// when it began.
fn alone(miss: &Miss, apart: Option<UncoalescedReason>, why: UncoalescedReason) -> RequestStep {
    if apart.is_none() {
        miss.proxy.cache.hooks.emit(CacheEvent::InflightBypass(why));
    }
    RequestStep::PassOn(Some(apart.unwrap_or(why).as_str()))
}

/// The failure of a load that ended without an outcome.
pub fn lost() -> LoadFailure {
    let detail = "the load ended without an answer";
    LoadFailure::new(StatusCode::BAD_GATEWAY, "proxy_internal_error", detail)
}
