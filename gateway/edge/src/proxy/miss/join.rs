//! A request's place in a flight: it follows the load of its key, or leads one.

use std::sync::Arc;
use std::time::Instant;

use http::Response;
use lamina_base::turn_clock;
use tokio::sync::oneshot;

use super::load::{LoadMode, MissLoad};
use super::look::in_back_off;
use super::ranges::{self, StoredParts};
use super::{LoadKind, Miss, RequestStep};
use crate::cache::coalesce::{FlightOutcome, Follower, LeadOrFollow, Leader};
use crate::cache::event::{CacheEvent, UncoalescedReason};
use crate::http::body::Body;
use crate::proxy::counted::hit;
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::record::trail::TrailEvent;

/// This request's place in a flight.
pub(super) struct FlightPlace {
    pub follower: Follower,
    pub role: FlightRole,
    /// If set, it leads a load side by side with others, for this reason.
    pub apart: Option<UncoalescedReason>,
}

/// The role of a request in a flight.
pub(super) enum FlightRole {
    /// The flight is its own load. A response that may not be shared comes through this channel.
    Leader(oneshot::Receiver<Response<Body>>),
    Follower,
}

impl FlightPlace {
    pub fn leads(&self) -> bool {
        matches!(self.role, FlightRole::Leader(_))
    }
}

/// Leads or follows a load. Answers at once if another load ended since the look-up.
pub(super) fn join_or_lead(miss: &Miss) -> RequestStep {
    let Miss { ask, keyed, .. } = miss;
    let cache = &miss.proxy.cache;
    let leader = match cache.lead_or_follow(&miss.key, ask.number(), || ask.marks(keyed)) {
        LeadOrFollow::Follow(follower) => {
            cache.hooks.emit(CacheEvent::InflightReuse);
            ask.note(|| TrailEvent::Follows(follower.led_by()));
            return RequestStep::Wait(FlightPlace {
                follower,
                role: FlightRole::Follower,
                apart: None,
            });
        }
        LeadOrFollow::Lead(leader) => leader,
    };
    // A load may have ended between the look-up and here.
    if let Some(entry) = miss.stored_since() {
        leader.land(FlightOutcome::Stored(Arc::clone(&entry)));
        let served = hit(
            &ask.parts,
            &entry,
            None,
            RequestOutcome::Hit,
            Instant::now(),
        );
        return RequestStep::Answered(served);
    }
    if miss.kind == LoadKind::Range
        && let StoredParts::Answer(served) = ranges::stored_parts(cache, ask, &keyed.key)
    {
        // Dropping the leader makes the followers look again, too.
        return RequestStep::Answered(served);
    }
    // The load may also have failed in that time.
    if let Some(copy) = miss.shown()
        && let Some(served) = in_back_off(miss, copy, Instant::now())
    {
        return RequestStep::Answered(served);
    }
    ask.note(|| TrailEvent::Leads);
    RequestStep::Wait(lead(miss, leader, LoadMode::OneForAll, None))
}

/// Starts the load of `leader` in a task of its own.
pub(super) fn lead(
    miss: &Miss,
    leader: Leader,
    mode: LoadMode,
    apart: Option<UncoalescedReason>,
) -> FlightPlace {
    // Checked after the load's place in the order of purges is known: a copy that was purged before
    // must not come back through a validation.
    let stale = miss.shown().map(|copy| Arc::clone(&copy.entry));
    let (private, receiver) = oneshot::channel();
    let load = MissLoad {
        cache: Arc::clone(&miss.proxy.cache),
        ask: Arc::clone(&miss.ask),
        primary: miss.keyed.key.clone(),
        stale,
        kind: miss.kind,
        private: Some(private),
        mode,
        audience: Some(leader.audience()),
        lease: None,
    };
    let place = FlightPlace {
        follower: leader.follow(),
        role: FlightRole::Leader(receiver),
        apart,
    };
    // In a box, as `spawn` would move the future of the load half a dozen times. It is written into
    // the box, since `Box::pin` would copy all of its room, which is empty but for its beginning.
    let room = Box::new_uninit();
    let load = Box::into_pin(Box::write(room, load.run(leader)));
    tokio::spawn(turn_clock::in_turns(load));
    place
}
