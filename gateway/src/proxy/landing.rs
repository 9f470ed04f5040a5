//! What a flight's landing is to one of the requests that waited for it: the shared
//! answer, its own, or none, so that it asks the origin alone.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use crate::cache::coalesce::{Blame, Failure, Landing};
use crate::cache::entry::Entry;
use crate::cache::event::{Alone, Event, StaleReason};
use crate::cache::fill::Fill;
use crate::cache::freshness::State;
use crate::cache::key::Key;
use crate::cache::policy::Refusal;
use crate::cache::variant_key;
use crate::http::cache_status::CacheStatus;
use crate::http::vary::Vary;
use crate::proxy::excerpt::{self, Excerpted};
use crate::proxy::fallback::Fallback;
use crate::proxy::fetch::ERRORS;
use crate::proxy::head_update::Stored;
use crate::proxy::load::{FlightPlace, Miss, Waited};
use crate::proxy::metrics::Outcome;
use crate::proxy::share::kept_under;
use crate::proxy::{Proxy, Served, plan, respond};

/// What a wait came to for one request.
pub enum Settled {
    Served(Served),
    /// It loads by itself, beside whoever else does.
    SideBySide(Alone),
    /// What it gets is nobody else's: it is passed on as it is.
    Past(Alone),
    /// The answer is of another variant; this is the key of ours.
    Variant(Key),
    /// The whole is too large for the cache: the range that it asks for is to be loaded.
    Part,
    /// A purge overtook the flight, or it was lost.
    Again,
    /// The answer was the leader's own: somebody else is to lead.
    NextTurn,
    /// The load failed, perhaps by the leader's own request.
    AfterFailure,
}

impl Proxy {
    /// What a wait came to.
    pub(super) async fn settled(&self, miss: &Miss, place: FlightPlace, waited: Waited) -> Settled {
        let leads = place.private.is_some();
        let landing = match waited {
            Waited::Landed(landing) => landing,
            Waited::Soft(entry) => {
                return Settled::Served(self.stale(&miss.ask, &entry, StaleReason::SoftTimeout));
            }
            Waited::Long => return Settled::SideBySide(Alone::WaitTimeout),
        };
        match landing {
            Landing::Streaming(fill) => self.join(miss, &fill, &place),
            Landing::Stored(entry) => self.landed_stored(miss, &entry, &place),
            Landing::Promoted(entry) => self.promoted(miss, &entry, leads),
            Landing::Private(_) | Landing::LeadersOwn if leads => self.private(miss, place).await,
            Landing::Private(whose) if whose.includes(miss.ask.came_with(&miss.keyed.key)) => {
                Settled::SideBySide(Alone::Private)
            }
            Landing::Private(_) | Landing::LeadersOwn => Settled::NextTurn,
            Landing::Failed(failure) => self.landed_failed(miss, &failure, leads),
            Landing::Abandoned | Landing::InFlight => Settled::Again,
        }
    }

    fn landed_stored(&self, miss: &Miss, entry: &Entry, place: &FlightPlace) -> Settled {
        let leads = place.private.is_some();
        if !leads && let Some(variant) = self.other_variant(miss, entry) {
            return Settled::Variant(variant);
        }
        if !leads && !entry.freshness.serves_others(Instant::now()) {
            return Settled::Past(Alone::Private);
        }
        match leads || !self.cache.hides(&entry.marks, entry.born) {
            true => Settled::Served(self.stored(miss, entry, leads)),
            false => Settled::Again,
        }
    }

    /// A follower gets the failure only where its own load would have come to it.
    fn landed_failed(&self, miss: &Miss, failure: &Failure, leads: bool) -> Settled {
        let below = self.fallback_now(miss);
        let stale = below.as_ref().or(miss.stale.as_ref());
        let is_ours = leads || failure.blame == Blame::AnyRequest;
        match self.stand_in(stale, failure) {
            None if !is_ours => Settled::AfterFailure,
            _ => Settled::Served(self.stale_or_error(&miss.ask, stale, miss.reason, failure)),
        }
    }

    /// Reads along while the body arrives, if it is this request's variant and no purge came since.
    ///
    /// Invariant: a flight is keyed before `Vary` is known, so a follower takes the
    /// leader's answer only if its own request selects the same variant.
    pub(super) fn join(&self, miss: &Miss, fill: &Arc<Fill>, place: &FlightPlace) -> Settled {
        let (ask, keyed) = (&miss.ask, &miss.keyed);
        let leads = place.private.is_some();
        let variant = variant_key(
            &kept_under(&keyed.key, fill.head.status),
            &fill.head.vary,
            &ask.parts.headers,
        );
        if variant != fill.head.key {
            self.cache
                .hooks
                .emit(Event::InflightBypass(Alone::OtherVariant));
            return Settled::Variant(variant);
        }
        if !leads && self.cache.hides(&fill.head.marks, place.follower.born()) {
            return Settled::Again;
        }
        let now = Instant::now();
        if !leads && !fill.head.freshness.serves_others(now) {
            return Settled::Past(Alone::Private);
        }
        let status = CacheStatus::Fwd {
            reason: miss.reason,
            fwd_status: Some(fill.head.status.as_u16()),
            stored: true,
            collapsed: !leads,
            ttl: fill.head.freshness.ttl_left(now),
            detail: None,
        };
        match respond::from_fill(&ask.parts, fill, now, &status) {
            Some(mut response) if leads => {
                response.headers_mut().extend(fill.head.own.clone());
                Settled::Served(Served::new(response, Outcome::Miss))
            }
            Some(response) => Settled::Served(Served::new(response, Outcome::Coalesced)),
            None => Settled::Again,
        }
    }

    /// After a 304, or when the leader found the entry there.
    fn stored(&self, miss: &Miss, entry: &Entry, leads: bool) -> Served {
        let (ask, now) = (&miss.ask, Instant::now());
        let status = CacheStatus::Fwd {
            reason: miss.reason,
            fwd_status: Some(StatusCode::NOT_MODIFIED.as_u16()),
            stored: true,
            collapsed: !leads,
            ttl: entry.freshness.ttl_left(now).map(|_| entry.ttl(now)),
            detail: None,
        };
        Served::new(
            respond::from_entry(&ask.parts, entry, entry.freshness.age(now), &status),
            if leads {
                Outcome::Revalidated
            } else {
                Outcome::Coalesced
            },
        )
    }

    /// From the second tier: no origin was asked.
    fn promoted(&self, miss: &Miss, entry: &Entry, leads: bool) -> Settled {
        let (ask, now) = (&miss.ask, Instant::now());
        if !leads && let Some(variant) = self.other_variant(miss, entry) {
            return Settled::Variant(variant);
        }
        if !leads && !self.cache.shows(entry) {
            return Settled::Again;
        }
        let (route, parts) = (&ask.route, &ask.parts);
        match entry.state(now) {
            State::Fresh if leads => {
                Settled::Served(self.hit(parts, entry, Some("l2"), Outcome::Hit, now))
            }
            State::Fresh if plan::satisfies(route, parts, entry, now) => {
                Settled::Served(self.hit(parts, entry, Some("l2"), Outcome::Coalesced, now))
            }
            State::Stale(windows)
                if windows.while_revalidate && !plan::wants_fresh(route, parts) =>
            {
                Settled::Served(self.stale_hit(parts, entry, StaleReason::Revalidating, now))
            }
            State::Fresh | State::Stale(_) => Settled::Again,
        }
    }

    /// The key of this request's variant, where a stored answer is of another one.
    fn other_variant(&self, miss: &Miss, entry: &Entry) -> Option<Key> {
        let vary = Vary::parse(&entry.headers);
        let key = variant_key(&miss.keyed.key, &vary, &miss.ask.parts.headers);
        (key != entry.key).then(|| {
            let event = Event::InflightBypass(Alone::OtherVariant);
            self.cache.hooks.emit(event);
            key
        })
    }

    /// What is there to fall back on now: a load may have found it below.
    pub(super) fn fallback_now(&self, miss: &Miss) -> Option<Fallback> {
        self.cache.below()?;
        let (ask, keyed) = (&miss.ask, &miss.keyed);
        let now = Instant::now();
        let found = self.cache.fallback(&keyed.key, &ask.parts.headers, now);
        found.map(|(entry, mut windows)| {
            windows.if_error |= plan::accepts_on_error(&ask.route, &ask.parts, &entry, now);
            Fallback { entry, windows }
        })
    }

    /// What the leader's client gets that is for it alone.
    async fn private(&self, miss: &Miss, place: FlightPlace) -> Settled {
        let response = match place.private {
            Some(receiver) => receiver.await.ok(),
            None => None,
        };
        let Some(response) = response else {
            return Settled::Served(self.error(&miss.ask.route, miss.reason, &lost()));
        };
        let refusal = response.extensions().get::<Refusal>().copied();
        let fwd_status = Some(response.status().as_u16());
        let excerpted = match miss.part {
            // The origin was asked for the range, and knows none.
            true => Excerpted::Response(excerpt::of_passed(&miss.ask, response)),
            false => excerpt::of_load(&miss.ask, response),
        };
        let response = match excerpted {
            Excerpted::Response(response) => response,
            Excerpted::TooFar if refusal == Some(Refusal::TooLarge) && miss.may_go_by_part() => {
                return Settled::Part;
            }
            Excerpted::TooFar => return Settled::Past(Alone::Range),
        };
        let refusal = refusal.map(|refusal| refusal.as_str());
        let status = CacheStatus::Fwd {
            reason: miss.reason,
            fwd_status,
            stored: false,
            collapsed: false,
            ttl: None,
            detail: place.apart.map(Alone::as_str).or(refusal),
        };
        let outcome = match place.apart {
            Some(_) => Outcome::Pass,
            None => Outcome::Miss,
        };
        Settled::Served(Served::new(respond::passed(response, &status), outcome))
    }

    /// As [`past`](Self::past), and counted as a request that could not follow.
    pub(super) async fn alone(&self, miss: &Miss, why: Alone) -> Served {
        self.cache.hooks.emit(Event::InflightBypass(why));
        self.past(miss, Some(why.as_str())).await
    }

    /// Passes the request on as it is; a stale copy stands in for a failure here, too.
    pub(super) async fn past(&self, miss: &Miss, detail: Option<&'static str>) -> Served {
        let (ask, stale) = (&miss.ask, miss.stale.as_ref());
        let stored = self.shown(stale).map(|fallback| Stored {
            copy: &fallback.entry,
            primary: &miss.keyed.key,
        });
        match self.pass_shared(ask, stored, miss.reason, detail).await {
            Ok(served) if ERRORS.contains(&served.response.status().as_u16()) => {
                match self.shown(stale).filter(|f| f.windows.if_error) {
                    Some(fallback) => self.stale(ask, &fallback.entry, StaleReason::LoaderError),
                    None => served,
                }
            }
            Ok(served) => served,
            Err(failure) => self.stale_or_error(ask, stale, miss.reason, &failure),
        }
    }
}

pub fn lost() -> Failure {
    let detail = "the load ended without an answer";
    Failure::new(StatusCode::BAD_GATEWAY, "proxy_internal_error", detail)
}
