//! Loads side by side: for a key whose responses could not be shared a moment ago, and for a
//! request that waited for others without getting an answer.
//!
//! Nobody waits. The first answer that may be stored is stored, others follow it as soon as its
//! head is known, and it ends the hit-for-miss mark of the key. The other answers go only to their
//! own clients.

use std::time::Instant;

use super::join::lead;
use super::load::LoadMode;
use super::patience::WaitBudget;
use super::{LoadKind, Miss, RequestStep, flight_outcome, wait};
use crate::cache::event::{CacheEvent, UncoalescedReason};
use crate::http::conditional;
use crate::proxy::counted::hit;
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::record::trail::TrailEvent;

/// Loads for this request, beside other loads of the same key.
pub(super) async fn load(miss: &mut Miss, why: UncoalescedReason) -> RequestStep {
    let cache = &miss.proxy.cache;
    if !may_bring_the_whole(miss) {
        cache.hooks.emit(CacheEvent::InflightBypass(why));
        return RequestStep::PassOn(Some(why.as_str()));
    }
    if let Some(entry) = miss.stored_since() {
        let now = Instant::now();
        let served = hit(&miss.ask.parts, &entry, None, RequestOutcome::Hit, now);
        return RequestStep::Answered(served);
    }
    cache.hooks.emit(CacheEvent::InflightBypass(why));
    miss.ask.note(|| TrailEvent::SideBySide(why));
    let leader = cache.lead_apart(&miss.key, miss.ask.marks(&miss.keyed));
    let mut place = lead(miss, leader, LoadMode::SideBySide, Some(why));
    let patience = WaitBudget::new(cache.rules().wait_timeout);
    let waited = wait::for_landing(miss, &mut place, &patience).await;
    match flight_outcome::next(miss, place, waited).await {
        RequestStep::Answered(served) => RequestStep::Answered(served),
        // The load was lost, and there is no flight to join again.
        _ => RequestStep::PassOn(Some(why.as_str())),
    }
}

/// Whether the whole may answer the request, so that its load may be stored. A request for less is
/// passed on as it is: for a large file that is not stored, a load of the whole would cost much and
/// gain nothing.
fn may_bring_the_whole(miss: &Miss) -> bool {
    miss.kind == LoadKind::Range
        || miss.ask.route.loader.is_some()
        || !conditional::asks_for_less(&miss.ask.parts.headers)
}
