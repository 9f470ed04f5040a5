//! A request that L1 could not answer: it leads a load or follows one, and gets what
//! that comes to ([`landing`](super::landing), or a stale copy: [`fallback`](super::fallback)).

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use tokio::sync::oneshot;

use crate::cache::Lookup;
use crate::cache::coalesce::{Follower, Landing, Turn};
use crate::cache::entry::Entry;
use crate::cache::event::{Alone, Event, StaleReason};
use crate::cache::freshness::Windows;
use crate::cache::key::Key;
use crate::http::body::Body;
use crate::http::cache_status::Forward;
use crate::http::memory::PROCESS;
use crate::proxy::context::{Ask, Keyed};
use crate::proxy::fallback::Fallback;
use crate::proxy::fetch::Fetch;
use crate::proxy::landing::Joined;
use crate::proxy::metrics::Outcome;
use crate::proxy::parts::{self, Held};
use crate::proxy::{Proxy, Served, missing, plan, source};

/// How often a request asks again when a flight was lost or turned out not to be for it.
const ROUNDS: usize = 4;

/// This request's place in a flight.
pub(super) struct Place {
    pub(super) follower: Follower,
    /// Some: it leads, and a response that is not to be shared comes here.
    pub(super) private: Option<oneshot::Receiver<http::Response<Body>>>,
}

/// What came of asking for a place.
enum Boarded {
    Aboard(Place),
    /// The answer was stored since the look-up.
    Served(Served),
}

/// What a wait came to.
enum Waited {
    Landed(Landing),
    /// The soft timeout: this stale copy will do.
    Soft(Arc<Entry>),
    /// The load takes longer than a follower waits.
    Long,
}

impl Proxy {
    /// Loads in the background what was served stale, unless somebody does already.
    pub(super) fn refresh(self: &Arc<Self>, ask: Ask, keyed: Keyed, stale: Arc<Entry>) {
        let key = stale.key.clone();
        if self.cache.backoff.pauses(key.as_bytes(), ask.started) {
            return;
        }
        let Turn::Lead(leader) = self.cache.board(&key, || ask.marks(&keyed)) else {
            return;
        };
        let again = self
            .cache
            .fresh_again(&keyed.key, &ask.parts.headers, Instant::now());
        if let Some(entry) = again {
            // Another refresh ended between the look-up and here.
            return leader.land(Landing::Stored(entry));
        }
        let stale = self.cache.shows(&stale).then_some(stale);
        let fetch = Fetch {
            cache: Arc::clone(&self.cache),
            ask: Arc::new(ask),
            primary: keyed.key,
            stale,
            part: false,
            private: None,
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
                Held::Answer(served) => return served,
                Held::TooLittle => reason = Forward::Partial,
                Held::Nothing => {}
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
        if let Some(fallback) = stale.as_ref().filter(|f| f.windows.if_error)
            && self.cache.backoff.pauses(key.as_bytes(), ask.started)
        {
            return self.stale(&ask, &fallback.entry, StaleReason::Backoff);
        }
        if PROCESS.is_full() {
            let failure = source::too_much_held();
            return self.stale_or_error(&ask, stale.as_ref(), reason, &failure);
        }
        if ask.parts.method == Method::HEAD {
            // A HEAD loads nothing for others (RFC 9110 §9.3.2): it is answered from a GET or passed.
            return self.past(&ask, stale.as_ref(), reason, None).await;
        }
        let part = stale.is_none() && parts::loadable(&ask);
        if part {
            key = parts::load_key(&key, &ask.parts);
        }
        if self.cache.is_private(&key, &ask.parts.headers) {
            self.cache
                .hooks
                .emit(Event::InflightBypass(Alone::HitForMiss));
            let detail = Some(Alone::HitForMiss.as_str());
            return self.past(&ask, stale.as_ref(), reason, detail).await;
        }
        for _ in 0..ROUNDS {
            let mut place = match self.board(&ask, &keyed, &key, stale.as_ref(), part) {
                Boarded::Aboard(place) => place,
                Boarded::Served(served) => return served,
            };
            let leads = place.private.is_some();
            let waited = self.wait(&ask, &keyed, &mut place, stale.as_ref()).await;
            if let Waited::Landed(Landing::Stored(entry) | Landing::Promoted(entry)) = &waited
                && !leads
                && let Some(variant) = self.other_variant(&ask, &keyed, entry)
            {
                key = variant;
                if part {
                    key = parts::load_key(&key, &ask.parts);
                }
                continue;
            }
            match waited {
                Waited::Soft(entry) => return self.stale(&ask, &entry, StaleReason::SoftTimeout),
                Waited::Long => {
                    return self
                        .alone(&ask, stale.as_ref(), reason, Alone::WaitTimeout)
                        .await;
                }
                Waited::Landed(Landing::Streaming(fill)) => {
                    match self.join(&ask, &keyed, &fill, reason, &place) {
                        Joined::Served(served) => return served,
                        Joined::Other(variant) if part => {
                            key = parts::load_key(&variant, &ask.parts);
                        }
                        Joined::Other(variant) => key = variant,
                        Joined::Unshared => {
                            return self
                                .alone(&ask, stale.as_ref(), reason, Alone::Private)
                                .await;
                        }
                        Joined::Again => {}
                    }
                }
                Waited::Landed(Landing::Stored(entry))
                    if !leads && !entry.freshness.serves_others(Instant::now()) =>
                {
                    return self
                        .alone(&ask, stale.as_ref(), reason, Alone::Private)
                        .await;
                }
                Waited::Landed(Landing::Stored(entry))
                    if leads || !self.cache.hides(&entry.marks, entry.born) =>
                {
                    return self.stored(&ask, &entry, reason, leads);
                }
                Waited::Landed(Landing::Promoted(entry)) => {
                    if let Joined::Served(served) = self.promoted(&ask, &entry, leads) {
                        return served;
                    }
                }
                Waited::Landed(Landing::Private) => {
                    return self.private(&ask, stale.as_ref(), place, reason).await;
                }
                Waited::Landed(Landing::Failed(failure)) => {
                    let stale = self.fallback_now(&ask, &keyed).or(stale);
                    return self.stale_or_error(&ask, stale.as_ref(), reason, &failure);
                }
                Waited::Landed(Landing::Stored(_) | Landing::Abandoned | Landing::InFlight) => {}
            }
        }
        self.past(&ask, stale.as_ref(), reason, Some("unsettled"))
            .await
    }

    /// Leads or follows; or the answer, when one was stored since the look-up.
    fn board(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        keyed: &Keyed,
        key: &Key,
        stale: Option<&Fallback>,
        part: bool,
    ) -> Boarded {
        let leader = match self.cache.board(key, || ask.marks(keyed)) {
            Turn::Follow(follower) => {
                self.cache.hooks.emit(Event::InflightReuse);
                return Boarded::Aboard(Place {
                    follower,
                    private: None,
                });
            }
            Turn::Lead(leader) => leader,
        };
        // A load may have ended between the look-up and here.
        let again = self
            .cache
            .fresh_again(&keyed.key, &ask.parts.headers, Instant::now())
            .filter(|entry| plan::satisfies(&ask.route, &ask.parts, entry, Instant::now()));
        if let Some(entry) = again {
            leader.land(Landing::Stored(Arc::clone(&entry)));
            let served = self.hit(&ask.parts, &entry, None, Outcome::Hit, Instant::now());
            return Boarded::Served(served);
        }
        if part && let Held::Answer(served) = self.held(ask, &keyed.key) {
            // The leader's Drop sends the followers to look, too.
            return Boarded::Served(served);
        }
        let (private, receiver) = oneshot::channel();
        let place = Place {
            follower: leader.follow(),
            private: Some(receiver),
        };
        // Looked at after the load's place in the order is known: a copy that was purged
        // before must not come back by way of a validation.
        let stale = self
            .shown(stale)
            .map(|fallback| Arc::clone(&fallback.entry));
        let fetch = Fetch {
            cache: Arc::clone(&self.cache),
            ask: Arc::clone(ask),
            primary: keyed.key.clone(),
            stale,
            part,
            private: Some(private),
            lease: None,
        };
        tokio::spawn(fetch.run(leader));
        Boarded::Aboard(place)
    }

    async fn wait(
        &self,
        ask: &Ask,
        keyed: &Keyed,
        place: &mut Place,
        stale: Option<&Fallback>,
    ) -> Waited {
        let usable = stale.filter(|fallback| fallback.is_usable());
        let may_come = usable.is_some() || self.cache.below().is_some();
        let soft = ask.route.policy.soft_timeout.filter(|_| may_come);
        // A leader's client waits for its load, which has a deadline of its own.
        let long = place.private.is_none().then_some(self.cache.wait_timeout);
        let (mut soft, mut long) = (pin!(after(soft)), pin!(after(long)));
        let mut patient = true;
        loop {
            tokio::select! {
                biased;
                landing = place.follower.landing() => return Waited::Landed(landing),
                () = &mut soft, if patient => match (self.shown(usable), usable) {
                    (Some(fallback), _) => return Waited::Soft(Arc::clone(&fallback.entry)),
                    (None, Some(_)) => return Waited::Long,
                    // The load may have found one below by now.
                    (None, None) => match self.fallback_now(ask, keyed).filter(Fallback::is_usable) {
                        Some(fallback) => return Waited::Soft(fallback.entry),
                        None => patient = false,
                    },
                },
                () = &mut long => return Waited::Long,
            }
        }
    }
}

/// Ends after `time`, or never.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
