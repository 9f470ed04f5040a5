//! Loads side by side: for a key whose responses could not be shared a moment ago, and for
//! a request that waited for others in vain.
//!
//! Nobody queues. The first answer that may be stored is stored all the same, is followed
//! from its head on, and ends the mark of the key; the others go to their clients alone.

use std::sync::Arc;
use std::time::Instant;

use crate::cache::event::{Alone, Event};
use crate::http::conditional;
use crate::proxy::fetch::Queue;
use crate::proxy::landing::Settled;
use crate::proxy::load::{FlightPlace, Miss};
use crate::proxy::metrics::Outcome;
use crate::proxy::patience::Patience;
use crate::proxy::record::trail::Waypoint;
use crate::proxy::{Proxy, Served};

impl Proxy {
    /// Loads for this request, beside whoever loads the same.
    pub(super) async fn side_by_side(self: &Arc<Self>, miss: &Miss, why: Alone) -> Served {
        if !may_bring_the_whole(miss) {
            return self.alone(miss, why).await;
        }
        if let Some(entry) = self.stored_since(miss) {
            let now = Instant::now();
            return self.hit(&miss.ask.parts, &entry, None, Outcome::Hit, now);
        }
        self.cache.hooks.emit(Event::InflightBypass(why));
        miss.ask.note(|| Waypoint::SideBySide(why));
        let marks = miss.ask.marks(&miss.keyed);
        let leader = self.cache.lead_apart(&miss.key, marks);
        // After the load's place in the order is known, as every leader does.
        let stale = self.shown(miss.stale.as_ref());
        let stale = stale.map(|fallback| Arc::clone(&fallback.entry));
        let (fetch, receiver) = miss.fetch(&self.cache, stale, Queue::SideBySide);
        let mut place = FlightPlace {
            follower: leader.follow(),
            private: Some(receiver),
            apart: Some(why),
        };
        tokio::spawn(fetch.run(leader));
        let patience = Patience::new(self.cache.wait_timeout);
        let waited = self.wait(miss, &mut place, &patience).await;
        match self.settled(miss, place, waited).await {
            Settled::Served(served) => served,
            // The load was lost, and there is no flight to ask again for.
            _ => self.past(miss, Some(why.as_str())).await,
        }
    }
}

/// Whether the request may be answered from the whole, so that its load may be stored. One
/// for less is passed on as it is: for a large file that is not stored a load of the whole
/// would cost much and bring nothing.
fn may_bring_the_whole(miss: &Miss) -> bool {
    miss.part
        || miss.ask.route.loader.is_some()
        || !conditional::asks_for_less(&miss.ask.parts.headers)
}
