//! What stands in for an answer that could not be loaded: a stale copy in its window
//! (RFC 5861), else an error of ours.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use crate::cache::coalesce::{Failure, StaleUse};
use crate::cache::entry::Entry;
use crate::cache::event::{Event, StaleReason};
use crate::cache::freshness::Windows;
use crate::http::cache_status::{CacheStatus, Forward};
use crate::proxy::context::Ask;
use crate::proxy::metrics::Outcome;
use crate::proxy::record::trail::Waypoint;
use crate::proxy::route::Route;
use crate::proxy::{Proxy, Served, respond};

/// A stale copy and what it may be used for.
pub struct Fallback {
    pub entry: Arc<Entry>,
    pub windows: Windows,
}

impl Fallback {
    /// Whether it may be served at all.
    pub fn is_usable(&self) -> bool {
        self.windows.if_error || self.windows.while_revalidate
    }
}

/// Whether a copy is there that may not be used unvalidated: where its origin can't be
/// reached, 504 says so (RFC 9111 §5.2.2.2).
fn must_ask(stale: Option<&Fallback>) -> bool {
    stale.is_some_and(|fallback| fallback.entry.freshness.must_revalidate)
}

impl Proxy {
    /// The stale copy that may be served in place of this failure.
    pub(super) fn stand_in<'a>(
        &self,
        stale: Option<&'a Fallback>,
        failure: &Failure,
    ) -> Option<&'a Fallback> {
        self.shown(stale).filter(|fallback| match failure.stale {
            StaleUse::InWindow => fallback.windows.if_error,
            StaleUse::Asked => !fallback.entry.freshness.must_revalidate,
            StaleUse::Never => false,
        })
    }

    pub(super) fn stale_or_error(
        &self,
        ask: &Ask,
        stale: Option<&Fallback>,
        reason: Forward,
        failure: &Failure,
    ) -> Served {
        match self.stand_in(stale, failure) {
            Some(fallback) => self.stale(ask, &fallback.entry, StaleReason::LoaderError),
            None if failure.disconnected && must_ask(stale) => {
                let failure = Failure {
                    status: StatusCode::GATEWAY_TIMEOUT,
                    ..failure.clone()
                };
                self.error(&ask.route, reason, &failure)
            }
            None => self.error(&ask.route, reason, failure),
        }
    }

    /// The stale copy, unless a purge came since it was looked up.
    pub(super) fn shown<'a>(&self, stale: Option<&'a Fallback>) -> Option<&'a Fallback> {
        stale.filter(|fallback| self.cache.shows(&fallback.entry))
    }

    pub(super) fn stale(&self, ask: &Ask, entry: &Entry, why: StaleReason) -> Served {
        self.cache.hooks.emit(Event::StaleHit(why));
        ask.note(|| Waypoint::Stale(why));
        let now = Instant::now();
        let ttl = entry.ttl(now);
        let status = match why {
            // Nothing was asked of the origin.
            StaleReason::Backoff | StaleReason::Revalidating | StaleReason::Tolerated => {
                CacheStatus::Hit {
                    ttl,
                    detail: Some(why.as_str()),
                }
            }
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
            respond::from_entry(&ask.parts, entry, entry.freshness.age(now), &status),
            Outcome::Stale,
        )
    }

    pub(super) fn error(&self, route: &Route, reason: Forward, failure: &Failure) -> Served {
        if let Some(dropped) = route.warnings.admit(Instant::now()) {
            tracing::warn!(
                route = &*route.name,
                status = failure.status.as_u16(),
                error = failure.error,
                detail = failure.detail,
                dropped,
                "a load failed"
            );
        }
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
    pub(super) fn unsatisfied(&self, reason: Forward) -> Served {
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
