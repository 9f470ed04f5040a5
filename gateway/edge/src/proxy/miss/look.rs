//! What may answer a miss without a load: stored parts, the second tier for a request that loads
//! nothing, or a stale copy while the back-off lasts. Otherwise this decides how the answer is
//! loaded.

use std::time::Instant;

use http::Method;

use super::stale::{self, StaleSituation};
use super::{Miss, RequestStep, ranges, second_tier, source};
use crate::cache::Lookup;
use crate::cache::event::UncoalescedReason;
use crate::http::cache_status::ForwardReason;
use crate::http::memory::PROCESS;
use crate::proxy::failure::not_in_the_cache;
use crate::proxy::plan;
use crate::proxy::record::trail::TrailEvent;
use ranges::StoredParts;

pub(super) async fn look(miss: &mut Miss, found: &Lookup) -> RequestStep {
    if matches!(found, Lookup::Miss(..)) {
        match ranges::stored_parts(&miss.proxy.cache, &miss.ask, &miss.keyed.key) {
            StoredParts::Answer(served) => return RequestStep::Answered(served),
            StoredParts::TooLittle => miss.reason = ForwardReason::Partial,
            StoredParts::Nothing => {}
        }
    }
    let ask = &miss.ask;
    ask.note(|| TrailEvent::Keyed(miss.keyed.id()));
    ask.note(|| TrailEvent::NotInL1(miss.reason));
    let only_if_cached = plan::only_if_cached(&ask.route, &ask.parts);
    let is_head = ask.parts.method == Method::HEAD;
    if (only_if_cached || is_head)
        && let Some(served) =
            Box::pin(second_tier::answer(&miss.proxy.cache, ask, &miss.keyed)).await
    {
        return RequestStep::Answered(served);
    }
    if only_if_cached {
        let page = ask
            .route
            .maintenance
            .page_instead_of_a_load(&ask.parts, ask.started);
        return RequestStep::Answered(page.unwrap_or_else(|| not_in_the_cache(miss.reason)));
    }
    let copy = miss.stale.as_ref();
    if let Some(copy) = copy
        && let Some(served) = in_back_off(miss, copy, miss.ask.started)
    {
        return RequestStep::Answered(served);
    }
    if PROCESS.stays_full().await {
        let failure = source::too_much_held();
        return RequestStep::Answered(stale::or_error(miss, copy, &failure));
    }
    if miss.may_load_range() && ranges::preferred(&miss.ask, &miss.proxy.cache, &miss.keyed.key) {
        miss.load_range();
    }
    if is_head {
        // A HEAD loads nothing for others (RFC 9110 §9.3.2): a stored GET answers it, or it is
        // passed on.
        return RequestStep::PassOn(None);
    }
    let marks = &miss.proxy.cache.hit_for_miss;
    match marks.applies(&miss.key, miss.ask.came_with(&miss.keyed.key)) {
        true => RequestStep::SideBySide(UncoalescedReason::HitForMiss),
        false => RequestStep::JoinOrLead,
    }
}

/// The answer with the stale copy, while the back-off after a failed load lasts.
pub(super) fn in_back_off(
    miss: &Miss,
    copy: &stale::StaleCopy,
    now: Instant,
) -> Option<crate::proxy::CountedResponse> {
    let (ask, cache) = (&miss.ask, &miss.proxy.cache);
    let shown = copy.verdict(StaleSituation::BackOff, ask, now).reason()?;
    let pauses = cache.backoff.pauses(miss.key.as_bytes(), now);
    pauses.then(|| stale::serve(cache, ask, &copy.entry, shown))
}
