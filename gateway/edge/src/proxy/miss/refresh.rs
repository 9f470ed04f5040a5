//! The background refresh after a request was answered with a stale copy.

use std::sync::Arc;
use std::time::Instant;

use super::load::{LoadMode, MissLoad};
use super::{LoadKind, plain};
use crate::cache::Cache;
use crate::cache::coalesce::{FlightOutcome, LeadOrFollow};
use crate::cache::entry::Entry;
use crate::proxy::context::{DerivedKey, RequestContext};

/// Reloads in the background the entry that was served stale, unless a load of it is under way.
pub fn refresh(cache: &Arc<Cache>, ask: &RequestContext, keyed: DerivedKey, stale: Arc<Entry>) {
    let key = stale.key.clone();
    let is_paused = |now| cache.backoff.pauses_refresh(key.as_bytes(), now);
    if is_paused(ask.started) {
        return;
    }
    let LeadOrFollow::Lead(leader) = cache.lead_or_follow(&key, ask.number(), || ask.marks(&keyed))
    else {
        return;
    };
    let again = cache.fresh_again(&keyed.key, &ask.parts.headers, Instant::now());
    if let Some(entry) = again {
        // Another refresh ended between the look-up and here.
        return leader.land(FlightOutcome::Stored(entry));
    }
    if is_paused(Instant::now()) {
        // Another refresh failed between the look-up and here.
        return;
    }
    let request = plain::request(ask, cache, &keyed.key, &stale);
    let stale = cache.shows(&stale).then_some(stale);
    let load = MissLoad {
        cache: Arc::clone(cache),
        ask: Arc::new(request),
        primary: keyed.key,
        stale,
        kind: LoadKind::Whole,
        private: None,
        mode: LoadMode::OneForAll,
        audience: None,
        lease: None,
    };
    tokio::spawn(load.run(leader));
}
