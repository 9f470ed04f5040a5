//! What a flight's landing is to one of the requests that waited for it: the shared
//! answer, its own, or none, so that it asks the origin alone.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use crate::cache::coalesce::Failure;
use crate::cache::entry::Entry;
use crate::cache::event::{Alone, Event, StaleReason};
use crate::cache::fill::Fill;
use crate::cache::freshness::State;
use crate::cache::key::Key;
use crate::cache::policy::Refusal;
use crate::cache::variant_key;
use crate::http::cache_status::{CacheStatus, Forward};
use crate::http::vary::Vary;
use crate::proxy::context::{Ask, Keyed};
use crate::proxy::fallback::Fallback;
use crate::proxy::fetch::ERRORS;
use crate::proxy::load::Place;
use crate::proxy::metrics::Outcome;
use crate::proxy::share::kept_under;
use crate::proxy::{Proxy, Served, plan, respond};

/// What a streaming flight is to this request.
pub enum Joined {
    Served(Served),
    /// The answer is of another variant; this is the key of ours.
    Other(Key),
    /// It is for the leader's client alone: each of the others asks the origin.
    Unshared,
    /// A purge overtook it, or its start is gone: ask again.
    Again,
}

impl Proxy {
    /// Reads along while the body arrives, if it is this request's variant and no purge came since.
    ///
    /// Invariant: a flight is keyed before `Vary` is known, so a follower takes the
    /// leader's answer only if its own request selects the same variant.
    pub(super) fn join(
        &self,
        ask: &Ask,
        keyed: &Keyed,
        fill: &Arc<Fill>,
        reason: Forward,
        place: &Place,
    ) -> Joined {
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
            return Joined::Other(variant);
        }
        if !leads && self.cache.hides(&fill.head.marks, place.follower.born()) {
            return Joined::Again;
        }
        let now = Instant::now();
        if !leads && !fill.head.freshness.serves_others(now) {
            return Joined::Unshared;
        }
        let status = CacheStatus::Fwd {
            reason,
            fwd_status: Some(fill.head.status.as_u16()),
            stored: true,
            collapsed: !leads,
            ttl: Some(fill.head.freshness.ttl(now)),
            detail: None,
        };
        match respond::from_fill(&ask.parts, fill, now, &status) {
            Some(mut response) if leads => {
                response.headers_mut().extend(fill.head.own.clone());
                Joined::Served(Served::new(response, Outcome::Miss))
            }
            Some(response) => Joined::Served(Served::new(response, Outcome::Coalesced)),
            None => Joined::Again,
        }
    }

    /// After a 304, or when the leader found the entry there.
    pub(super) fn stored(&self, ask: &Ask, entry: &Entry, reason: Forward, leads: bool) -> Served {
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
            respond::from_entry(&ask.parts, entry, entry.freshness.age(now), &status),
            if leads {
                Outcome::Revalidated
            } else {
                Outcome::Coalesced
            },
        )
    }

    /// From the second tier: no origin was asked.
    pub(super) fn promoted(&self, ask: &Ask, entry: &Entry, leads: bool) -> Joined {
        let now = Instant::now();
        if !leads && !self.cache.shows(entry) {
            return Joined::Again;
        }
        let (route, parts) = (&ask.route, &ask.parts);
        match entry.state(now) {
            State::Fresh if leads => {
                Joined::Served(self.hit(parts, entry, Some("l2"), Outcome::Hit, now))
            }
            State::Fresh if plan::satisfies(route, parts, entry, now) => {
                Joined::Served(self.hit(parts, entry, Some("l2"), Outcome::Coalesced, now))
            }
            State::Stale(windows)
                if windows.while_revalidate && !plan::wants_fresh(route, parts) =>
            {
                Joined::Served(self.stale_hit(parts, entry, StaleReason::Revalidating, now))
            }
            State::Fresh | State::Stale(_) => Joined::Again,
        }
    }

    /// The key of this request's variant, where a stored answer is of another one.
    pub(super) fn other_variant(&self, ask: &Ask, keyed: &Keyed, entry: &Entry) -> Option<Key> {
        let vary = Vary::parse(&entry.headers);
        let key = variant_key(&keyed.key, &vary, &ask.parts.headers);
        (key != entry.key).then(|| {
            let event = Event::InflightBypass(Alone::OtherVariant);
            self.cache.hooks.emit(event);
            key
        })
    }

    /// What is there to fall back on now: a load may have found it below.
    pub(super) fn fallback_now(&self, ask: &Ask, keyed: &Keyed) -> Option<Fallback> {
        self.cache.below()?;
        let now = Instant::now();
        let found = self.cache.fallback(&keyed.key, &ask.parts.headers, now);
        found.map(|(entry, mut windows)| {
            windows.if_error |= plan::accepts_on_error(&ask.route, &ask.parts, &entry, now);
            Fallback { entry, windows }
        })
    }

    pub(super) async fn private(
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
            return self.error(&ask.route, reason, &lost());
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

    pub(super) async fn alone(
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
    pub(super) async fn past(
        &self,
        ask: &Ask,
        stale: Option<&Fallback>,
        reason: Forward,
        detail: Option<&'static str>,
    ) -> Served {
        match self
            .pass_shared(ask, self.shown(stale).map(|f| &f.entry), reason, detail)
            .await
        {
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
}

pub fn lost() -> Failure {
    let detail = "the load ended without an answer";
    Failure::new(StatusCode::BAD_GATEWAY, "proxy_internal_error", detail)
}
