//! A request that L1 could not answer: it leads a load or follows one, and gets what
//! that comes to ([`landing`](super::landing), or a stale copy: [`fallback`](super::fallback)).
//!
//! Where the leader's answer or failure was its own, one of those who waited loads next and
//! the others follow it, until one gets what may be shared. So no request is told what
//! another one brought about, and the origin never gets all of them at once.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::Method;
use tokio::sync::oneshot;

use crate::cache::coalesce::{Follower, Landing, Turn};
use crate::cache::entry::Entry;
use crate::cache::event::{Alone, Event, StaleReason};
use crate::cache::freshness::Windows;
use crate::cache::key::{Key, KeyId};
use crate::cache::{Cache, Lookup};
use crate::http::body::Body;
use crate::http::cache_status::Forward;
use crate::http::memory::PROCESS;
use crate::proxy::context::{Ask, Keyed};
use crate::proxy::fallback::Fallback;
use crate::proxy::fetch::{Fetch, Queue};
use crate::proxy::landing::Settled;
use crate::proxy::metrics::Outcome;
use crate::proxy::parts::{self, StoredParts};
use crate::proxy::patience::{Next, Patience};
use crate::proxy::record::trail::Waypoint;
use crate::proxy::{Proxy, Served, missing, plan, source};

/// A request whose answer is to be loaded.
pub(super) struct Miss {
    pub(super) ask: Arc<Ask>,
    pub(super) keyed: Keyed,
    /// What its load goes by.
    pub(super) key: Key,
    /// What is there to validate or to fall back on.
    pub(super) stale: Option<Fallback>,
    /// Why it is not answered from the store.
    pub(super) reason: Forward,
    /// Only the range that it asks for is loaded.
    pub(super) part: bool,
}

/// This request's place in a flight.
pub(super) struct FlightPlace {
    pub(super) follower: Follower,
    /// Some: it leads, and a response that is not to be shared comes here.
    pub(super) private: Option<oneshot::Receiver<http::Response<Body>>>,
    /// Some: it leads a load side by side with others, for this reason.
    pub(super) apart: Option<Alone>,
}

/// What came of asking for a place.
enum Boarded {
    Aboard(FlightPlace),
    /// A load that ended since the look-up answers it.
    Served(Served),
}

/// What a wait came to.
pub(super) enum Waited {
    Landed(Landing),
    /// The soft timeout: this stale copy will do.
    Soft(Arc<Entry>),
    /// The load takes longer than a follower waits.
    Long,
}

impl Miss {
    /// What the request gets from a load that it leads.
    pub(super) fn fetch(
        &self,
        cache: &Arc<Cache>,
        stale: Option<Arc<Entry>>,
        queue: Queue,
    ) -> (Fetch, oneshot::Receiver<http::Response<Body>>) {
        let (private, receiver) = oneshot::channel();
        let fetch = Fetch {
            cache: Arc::clone(cache),
            ask: Arc::clone(&self.ask),
            primary: self.keyed.key.clone(),
            stale,
            part: self.part,
            private: Some(private),
            queue,
            lease: None,
        };
        (fetch, receiver)
    }

    /// The range that it asks for may be loaded by itself.
    pub(super) fn may_go_by_part(&self) -> bool {
        !self.part && self.stale.is_none() && parts::loadable(&self.ask)
    }

    /// The range that it asks for is to be loaded, and not the whole.
    fn go_by_part(&mut self) {
        self.part = true;
        self.key = parts::load_key(&self.key, &self.ask.parts);
    }

    /// Another variant's load is what it needs.
    pub(super) fn go_by(&mut self, variant: Key) {
        self.key = match self.part {
            true => parts::load_key(&variant, &self.ask.parts),
            false => variant,
        };
    }
}

impl Proxy {
    /// Loads in the background what was served stale, unless somebody does already.
    pub(super) fn refresh(self: &Arc<Self>, ask: Ask, keyed: Keyed, stale: Arc<Entry>) {
        let key = stale.key.clone();
        let is_paused = |now| self.cache.backoff.pauses_refresh(key.as_bytes(), now);
        if is_paused(ask.started) {
            return;
        }
        let Turn::Lead(leader) = self.cache.board(&key, ask.number(), || ask.marks(&keyed)) else {
            return;
        };
        let again = self
            .cache
            .fresh_again(&keyed.key, &ask.parts.headers, Instant::now());
        if let Some(entry) = again {
            // Another refresh ended between the look-up and here.
            return leader.land(Landing::Stored(entry));
        }
        if is_paused(Instant::now()) {
            // Another one failed there.
            return;
        }
        let plain = ask.plain(&self.cache, &keyed.key, &stale);
        let stale = self.cache.shows(&stale).then_some(stale);
        let fetch = Fetch {
            cache: Arc::clone(&self.cache),
            ask: Arc::new(plain),
            primary: keyed.key,
            stale,
            part: false,
            private: None,
            queue: Queue::OneLoad,
            lease: None,
        };
        tokio::spawn(fetch.run(leader));
    }

    /// Gets what L1 did not have.
    pub(super) async fn load(
        self: &Arc<Self>,
        ask: Arc<Ask>,
        keyed: Keyed,
        found: Lookup,
    ) -> Served {
        let mut reason = missing(&found);
        if matches!(found, Lookup::Miss(..)) {
            match self.held(&ask, &keyed.key) {
                StoredParts::Answer(served) => return served,
                StoredParts::TooLittle => reason = Forward::Partial,
                StoredParts::Nothing => {}
            }
        }
        let only_if_cached = plan::only_if_cached(&ask.route, &ask.parts);
        if (only_if_cached || ask.parts.method == Method::HEAD)
            && let Some(served) = self.held_below(&ask, &keyed).await
        {
            return served;
        }
        if only_if_cached {
            return self.unsatisfied(reason);
        }
        let (mut key, stale) = match found {
            Lookup::Miss(key, _) => (key, None),
            Lookup::Fresh(entry) => (
                entry.key.clone(),
                Some(Fallback {
                    entry,
                    windows: Windows {
                        while_revalidate: false,
                        if_error: true,
                    },
                }),
            ),
            Lookup::Stale(entry, mut windows) => {
                windows.if_error |=
                    plan::accepts_on_error(&ask.route, &ask.parts, &entry, ask.started);
                (entry.key.clone(), Some(Fallback { entry, windows }))
            }
        };
        ask.note(|| Waypoint::Keyed(KeyId::of(keyed.key.as_bytes())));
        ask.note(|| Waypoint::NotInL1(reason));
        if let Some(served) = self.in_back_off(&ask, &key, stale.as_ref(), ask.started) {
            return served;
        }
        if PROCESS.is_full() {
            let failure = source::too_much_held();
            return self.stale_or_error(&ask, stale.as_ref(), reason, &failure);
        }
        let loadable = stale.is_none() && parts::loadable(&ask);
        let part = loadable && parts::preferred(&ask, &self.cache, &keyed.key);
        if part {
            key = parts::load_key(&key, &ask.parts);
        }
        let miss = Miss {
            ask,
            keyed,
            key,
            stale,
            reason,
            part,
        };
        if miss.ask.parts.method == Method::HEAD {
            // A HEAD loads nothing for others (RFC 9110 §9.3.2): it is answered from a GET or passed.
            return self.past(&miss, None).await;
        }
        self.in_turn(miss).await
    }

    /// The stale copy, while a load that failed keeps the origin from being asked again.
    fn in_back_off(
        &self,
        ask: &Ask,
        key: &Key,
        stale: Option<&Fallback>,
        now: Instant,
    ) -> Option<Served> {
        let fallback = stale.filter(|fallback| fallback.windows.if_error)?;
        let pauses = self.cache.backoff.pauses(key.as_bytes(), now);
        pauses.then(|| self.stale(ask, &fallback.entry, StaleReason::Backoff))
    }

    /// Leads or follows until there is an answer.
    async fn in_turn(self: &Arc<Self>, mut miss: Miss) -> Served {
        let marks = &self.cache.hit_for_miss;
        if marks.applies(&miss.key, miss.ask.came_with(&miss.keyed.key)) {
            return self.side_by_side(&miss, Alone::HitForMiss).await;
        }
        let mut patience = Patience::new(self.cache.wait_timeout);
        loop {
            let mut place = match self.board(&miss) {
                Boarded::Aboard(place) => place,
                Boarded::Served(served) => return served,
            };
            let waited = self.wait(&miss, &mut place, &patience).await;
            let next = match self.settled(&miss, place, waited).await {
                Settled::Served(served) => return served,
                Settled::SideBySide(why) => Next::SideBySide(why),
                Settled::Past(why) => return self.alone(&miss, why).await,
                Settled::Variant(key) => {
                    miss.go_by(key);
                    patience.asks_again()
                }
                Settled::Part => {
                    miss.go_by_part();
                    patience.asks_again()
                }
                Settled::Again => patience.asks_again(),
                Settled::NextTurn => patience.takes_next_turn(),
                // As long as it has patience: each of these turns is a load that failed.
                Settled::AfterFailure => Next::Turn,
            };
            if let Next::SideBySide(why) = next {
                return self.side_by_side(&miss, why).await;
            }
        }
    }

    /// Leads or follows; or the answer, when a load ended since the look-up.
    fn board(self: &Arc<Self>, miss: &Miss) -> Boarded {
        let Miss { ask, keyed, .. } = miss;
        let leader = match self
            .cache
            .board(&miss.key, ask.number(), || ask.marks(keyed))
        {
            Turn::Follow(follower) => {
                self.cache.hooks.emit(Event::InflightReuse);
                ask.note(|| Waypoint::Follows(follower.led_by()));
                return Boarded::Aboard(FlightPlace {
                    follower,
                    private: None,
                    apart: None,
                });
            }
            Turn::Lead(leader) => leader,
        };
        // A load may have ended between the look-up and here.
        if let Some(entry) = self.stored_since(miss) {
            leader.land(Landing::Stored(Arc::clone(&entry)));
            let served = self.hit(&ask.parts, &entry, None, Outcome::Hit, Instant::now());
            return Boarded::Served(served);
        }
        if miss.part
            && let StoredParts::Answer(served) = self.held(ask, &keyed.key)
        {
            // The leader's Drop sends the followers to look, too.
            return Boarded::Served(served);
        }
        // Or have failed there.
        let shown = self.shown(miss.stale.as_ref());
        if let Some(served) = self.in_back_off(ask, &miss.key, shown, Instant::now()) {
            return Boarded::Served(served);
        }
        // Looked at after the load's place in the order is known: a copy that was purged
        // before must not come back by way of a validation.
        let stale = shown.map(|fallback| Arc::clone(&fallback.entry));
        ask.note(|| Waypoint::Leads);
        let (fetch, receiver) = miss.fetch(&self.cache, stale, Queue::OneLoad);
        let place = FlightPlace {
            follower: leader.follow(),
            private: Some(receiver),
            apart: None,
        };
        tokio::spawn(fetch.run(leader));
        Boarded::Aboard(place)
    }

    /// A fresh answer that was stored since the look-up.
    pub(super) fn stored_since(&self, miss: &Miss) -> Option<Arc<Entry>> {
        let (route, parts, now) = (&miss.ask.route, &miss.ask.parts, Instant::now());
        let found = self
            .cache
            .fresh_again(&miss.keyed.key, &parts.headers, now)?;
        plan::satisfies(route, parts, &found, now).then_some(found)
    }

    /// Waits for the landing, as long as this request does.
    pub(super) async fn wait(
        &self,
        miss: &Miss,
        place: &mut FlightPlace,
        patience: &Patience,
    ) -> Waited {
        let usable = miss.stale.as_ref().filter(|fallback| fallback.is_usable());
        let may_come = usable.is_some() || self.cache.below().is_some();
        let soft = miss.ask.route.policy.soft_timeout.filter(|_| may_come);
        let soft = soft.and_then(|soft| patience.after(soft));
        // A leader's client waits for its load, which has a deadline of its own.
        let long = patience.ends().filter(|_| place.private.is_none());
        let (mut soft, mut long) = (pin!(at(soft)), pin!(at(long)));
        let mut patient = true;
        loop {
            tokio::select! {
                biased;
                landing = place.follower.landing() => return Waited::Landed(landing),
                () = &mut soft, if patient => match (self.shown(usable), usable) {
                    (Some(fallback), _) => return Waited::Soft(Arc::clone(&fallback.entry)),
                    (None, Some(_)) => return Waited::Long,
                    // The load may have found one below by now.
                    (None, None) => match self.fallback_now(miss).filter(Fallback::is_usable) {
                        Some(fallback) => return Waited::Soft(fallback.entry),
                        None => patient = false,
                    },
                },
                () = &mut long => return Waited::Long,
            }
        }
    }
}

/// Ends at this moment, or never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
