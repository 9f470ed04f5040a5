//! A request that L1 could not answer: it leads a load or follows one, and gets what
//! that comes to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::sync::oneshot;

use crate::cache::coalesce::{Failure, Follower, Landing, StaleUse, Turn};
use crate::cache::entry::Entry;
use crate::cache::event::{Alone, Event, StaleReason};
use crate::cache::fill::Fill;
use crate::cache::freshness::Windows;
use crate::cache::key::Key;
use crate::cache::policy::Refusal;
use crate::cache::{Lookup, variant_key};
use crate::http::body::Body;
use crate::http::cache_status::{CacheStatus, Forward};
use crate::proxy::context::{Ask, Keyed};
use crate::proxy::fetch::{ERRORS, Fetch};
use crate::proxy::metrics::Outcome;
use crate::proxy::{Proxy, Served, missing, plan, respond};

/// How often a request asks again when a flight was lost or turned out not to be for it.
const ROUNDS: usize = 4;

/// A stale copy and what it may be used for.
struct Fallback {
    entry: Arc<Entry>,
    windows: Windows,
}

/// This request's place in a flight.
struct Place {
    follower: Follower,
    /// Some: it leads, and a response that is not to be shared comes here.
    private: Option<oneshot::Receiver<http::Response<Body>>>,
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
            private: None,
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
        let reason = missing(&found);
        if plan::only_if_cached(&ask.route, &ask.parts) {
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
            Lookup::Stale(entry, windows) => (entry.key.clone(), Some(Fallback { entry, windows })),
        };
        if let Some(fallback) = stale.as_ref().filter(|f| f.windows.if_error)
            && self.cache.backoff.pauses(key.as_bytes(), ask.started)
        {
            return self.stale(&ask, &fallback.entry, StaleReason::Backoff);
        }
        if ask.parts.method == Method::HEAD {
            // A HEAD loads nothing for others (RFC 9110 §9.3.2): it is answered from a GET or passed.
            return self.past(&ask, stale.as_ref(), reason, None).await;
        }
        if self.cache.is_private(&key, &ask.parts.headers) {
            self.cache
                .hooks
                .emit(Event::InflightBypass(Alone::HitForMiss));
            let detail = Some(Alone::HitForMiss.as_str());
            return self.past(&ask, stale.as_ref(), reason, detail).await;
        }
        for _ in 0..ROUNDS {
            let mut place = match self.board(&ask, &keyed, &key, stale.as_ref()) {
                Ok(place) => place,
                Err(entry) => {
                    return self.hit(&ask.parts, &entry, None, Outcome::Hit, Instant::now());
                }
            };
            let leads = place.private.is_some();
            match self.wait(&ask, &mut place, stale.as_ref()).await {
                Waited::Soft(entry) => return self.stale(&ask, &entry, StaleReason::SoftTimeout),
                Waited::Long => {
                    return self
                        .alone(&ask, stale.as_ref(), reason, Alone::WaitTimeout)
                        .await;
                }
                Waited::Landed(Landing::Streaming(fill)) => {
                    match self.join(&ask, &keyed, &fill, reason, &place) {
                        Joined::Served(served) => return served,
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
                Waited::Landed(Landing::Private) => {
                    return self.private(&ask, stale.as_ref(), place, reason).await;
                }
                Waited::Landed(Landing::Failed(failure)) => {
                    return self.stale_or_error(&ask, stale.as_ref(), reason, &failure);
                }
                Waited::Landed(Landing::Stored(_) | Landing::Abandoned | Landing::InFlight) => {}
            }
        }
        self.past(&ask, stale.as_ref(), reason, Some("unsettled"))
            .await
    }

    /// Leads or follows; or an entry, when one was stored since the look-up.
    fn board(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        keyed: &Keyed,
        key: &Key,
        stale: Option<&Fallback>,
    ) -> Result<Place, Arc<Entry>> {
        let leader = match self.cache.board(key, || ask.marks(keyed)) {
            Turn::Follow(follower) => {
                self.cache.hooks.emit(Event::InflightReuse);
                return Ok(Place {
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
            return Err(entry);
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
            private: Some(private),
        };
        tokio::spawn(fetch.run(leader));
        Ok(place)
    }

    async fn wait(&self, ask: &Ask, place: &mut Place, stale: Option<&Fallback>) -> Waited {
        let usable = stale.filter(|f| f.windows.if_error || f.windows.while_revalidate);
        let soft = ask.route.policy.soft_timeout.zip(usable);
        // A leader's client waits for its load, which has a deadline of its own.
        let long = place.private.is_none().then_some(self.cache.wait_timeout);
        tokio::select! {
            biased;
            landing = place.follower.landing() => Waited::Landed(landing),
            () = after(soft.map(|(time, _)| time)) => match self.shown(usable) {
                Some(fallback) => Waited::Soft(Arc::clone(&fallback.entry)),
                None => Waited::Long,
            },
            () = after(long) => Waited::Long,
        }
    }

    /// Reads along while the body arrives, if it is this request's variant and no purge came since.
    ///
    /// Invariant: a flight is keyed before `Vary` is known, so a follower takes the
    /// leader's answer only if its own request selects the same variant.
    fn join(
        &self,
        ask: &Ask,
        keyed: &Keyed,
        fill: &Arc<Fill>,
        reason: Forward,
        place: &Place,
    ) -> Joined {
        let leads = place.private.is_some();
        let variant = variant_key(&keyed.key, &fill.vary, &ask.parts.headers);
        if variant != fill.key {
            self.cache
                .hooks
                .emit(Event::InflightBypass(Alone::OtherVariant));
            return Joined::Other(variant);
        }
        if !leads && self.cache.hides(&fill.marks, place.follower.born()) {
            return Joined::Again;
        }
        let now = Instant::now();
        if !leads && !fill.freshness.serves_others(now) {
            return Joined::Unshared;
        }
        let status = CacheStatus::Fwd {
            reason,
            fwd_status: Some(fill.status.as_u16()),
            stored: true,
            collapsed: !leads,
            ttl: Some(fill.freshness.ttl(now)),
            detail: None,
        };
        match respond::from_fill(&ask.parts, fill, now, &status) {
            Some(mut response) if leads => {
                response.headers_mut().extend(fill.own.clone());
                Joined::Served(Served::new(response, Outcome::Miss))
            }
            Some(response) => Joined::Served(Served::new(response, Outcome::Coalesced)),
            None => Joined::Again,
        }
    }

    /// After a 304, or when the leader found the entry there.
    fn stored(&self, ask: &Ask, entry: &Entry, reason: Forward, leads: bool) -> Served {
        let now = Instant::now();
        let status = CacheStatus::Fwd {
            reason,
            fwd_status: Some(StatusCode::NOT_MODIFIED.as_u16()),
            stored: true,
            collapsed: !leads,
            ttl: Some(entry.freshness.ttl(now)),
            detail: None,
        };
        Served::new(
            respond::from_entry(&ask.parts, entry, now, &status),
            if leads {
                Outcome::Revalidated
            } else {
                Outcome::Coalesced
            },
        )
    }

    async fn private(
        &self,
        ask: &Ask,
        stale: Option<&Fallback>,
        place: Place,
        reason: Forward,
    ) -> Served {
        let Some(receiver) = place.private else {
            return self.alone(ask, stale, reason, Alone::Private).await;
        };
        let Ok(response) = receiver.await else {
            return self.error(reason, &lost());
        };
        let refusal = response
            .extensions()
            .get::<Refusal>()
            .map(|refusal| refusal.as_str());
        let status = CacheStatus::Fwd {
            reason,
            fwd_status: Some(response.status().as_u16()),
            stored: false,
            collapsed: false,
            ttl: None,
            detail: refusal,
        };
        Served::new(respond::passed(response, &status), Outcome::Miss)
    }

    async fn alone(
        &self,
        ask: &Ask,
        stale: Option<&Fallback>,
        reason: Forward,
        why: Alone,
    ) -> Served {
        self.cache.hooks.emit(Event::InflightBypass(why));
        self.past(ask, stale, reason, Some(why.as_str())).await
    }

    /// Asks for this request alone; a stale copy stands in for a failure here, too.
    async fn past(
        &self,
        ask: &Ask,
        stale: Option<&Fallback>,
        reason: Forward,
        detail: Option<&'static str>,
    ) -> Served {
        match self.pass_shared(ask, reason, detail).await {
            Ok(served) if ERRORS.contains(&served.response.status().as_u16()) => {
                match self.shown(stale).filter(|f| f.windows.if_error) {
                    Some(fallback) => self.stale(ask, &fallback.entry, StaleReason::LoaderError),
                    None => served,
                }
            }
            Ok(served) => served,
            Err(failure) => self.stale_or_error(ask, stale, reason, &failure),
        }
    }

    fn stale_or_error(
        &self,
        ask: &Ask,
        stale: Option<&Fallback>,
        reason: Forward,
        failure: &Failure,
    ) -> Served {
        let may = |fallback: &&Fallback| match failure.stale {
            StaleUse::InWindow => fallback.windows.if_error,
            StaleUse::Asked => !fallback.entry.freshness.must_revalidate,
            StaleUse::Never => false,
        };
        match self.shown(stale).filter(may) {
            Some(fallback) => self.stale(ask, &fallback.entry, StaleReason::LoaderError),
            None => self.error(reason, failure),
        }
    }

    /// The stale copy, unless a purge came since it was looked up.
    fn shown<'a>(&self, stale: Option<&'a Fallback>) -> Option<&'a Fallback> {
        stale.filter(|fallback| self.cache.shows(&fallback.entry))
    }

    fn stale(&self, ask: &Ask, entry: &Entry, why: StaleReason) -> Served {
        self.cache.hooks.emit(Event::StaleHit(why));
        let now = Instant::now();
        let ttl = entry.freshness.ttl(now);
        let status = match why {
            // Nothing was asked of the origin.
            StaleReason::Backoff | StaleReason::Revalidating => CacheStatus::Hit {
                ttl,
                detail: Some(why.as_str()),
            },
            StaleReason::LoaderError | StaleReason::SoftTimeout => CacheStatus::Fwd {
                reason: Forward::Stale,
                fwd_status: None,
                stored: false,
                collapsed: false,
                ttl: Some(ttl),
                detail: Some(why.as_str()),
            },
        };
        Served::new(
            respond::from_entry(&ask.parts, entry, now, &status),
            Outcome::Stale,
        )
    }

    pub(super) fn error(&self, reason: Forward, failure: &Failure) -> Served {
        tracing::warn!(
            status = failure.status.as_u16(),
            error = failure.error,
            detail = failure.detail,
            "a load failed"
        );
        let status = CacheStatus::Fwd {
            reason,
            fwd_status: None,
            stored: false,
            collapsed: false,
            ttl: None,
            detail: None,
        };
        Served::new(respond::failed(failure, &status), Outcome::Error)
    }

    /// 504 to `only-if-cached` (RFC 9111 §5.2.1.7).
    fn unsatisfied(&self, reason: Forward) -> Served {
        let status = CacheStatus::Fwd {
            reason,
            fwd_status: None,
            stored: false,
            collapsed: false,
            ttl: None,
            detail: Some("only-if-cached"),
        };
        let mut response = respond::plain(StatusCode::GATEWAY_TIMEOUT, "504 not in the cache\n");
        respond::append_status(response.headers_mut(), &status);
        Served::new(response, Outcome::Error)
    }
}

/// What a streaming flight is to this request.
enum Joined {
    Served(Served),
    /// The answer is of another variant; this is the key of ours.
    Other(Key),
    /// It is for the leader's client alone: each of the others asks the origin.
    Unshared,
    /// A purge overtook it, or its start is gone: ask again.
    Again,
}

/// Ends after `time`, or never.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn lost() -> Failure {
    let detail = "the load ended without an answer";
    Failure::new(StatusCode::BAD_GATEWAY, "proxy_internal_error", detail)
}
