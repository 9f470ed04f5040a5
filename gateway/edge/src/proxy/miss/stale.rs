//! When a stale copy may be shown: [`verdict`] is the one table that decides it (RFC 5861, RFC 9111
//! §4.2.4, §5.2.1.2).

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::request::Parts;

use super::Miss;
use crate::cache::coalesce::{LoadFailure, StaleUse};
use crate::cache::entry::Entry;
use crate::cache::event::{CacheEvent, StaleReason};
use crate::cache::freshness::StaleWindows;
use crate::cache::{Cache, Lookup};
use crate::http::cache_status::{CacheStatus, ForwardReason};
use crate::proxy::context::RequestContext;
use crate::proxy::counted::{CountedResponse, hit};
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::record::trail::TrailEvent;
use crate::proxy::respond::EntryReader;
use crate::proxy::route::Route;
use crate::proxy::{failure, plan, respond};

/// A stale copy and what it may be used for.
pub struct StaleCopy {
    pub entry: Arc<Entry>,
    pub windows: StaleWindows,
}

/// The situation in which there is no fresh answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StaleSituation {
    /// The copy was found and nobody has been asked. The value tells whether all purges that may
    /// reach it are known.
    Found(PurgeCertainty),
    /// A load of the key failed a moment ago.
    BackOff,
    /// The load takes longer than the soft timeout.
    SoftTimeout,
    /// The load failed. The value tells which use of a stale copy the failure allows.
    Failed(StaleUse),
}

/// Whether all purges that may reach a copy are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeCertainty {
    Sure,
    InDoubt,
}

/// Whether and how a stale copy is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StaleVerdict {
    /// It is not shown.
    Withhold,
    /// It is shown, for this reason.
    Show(StaleReason),
    /// It is shown, and refreshed in the background.
    ShowAndRefresh,
}

impl StaleVerdict {
    /// Why it is shown, if it is.
    pub fn reason(self) -> Option<StaleReason> {
        match self {
            Self::Withhold => None,
            Self::Show(reason) => Some(reason),
            Self::ShowAndRefresh => Some(StaleReason::Revalidating),
        }
    }
}

/// Decides whether and how a stale copy is shown.
///
/// | situation | what the copy must allow | what the request must say | verdict |
/// |---|---|---|---|
/// | found | `stale-while-revalidate` | nothing that asks for something fresh | show and refresh |
/// | found, all purges known | no `must-revalidate`, not purged softly | `max-stale` that covers it | show |
/// | back-off | `stale-if-error` | | show |
/// | soft timeout | `stale-if-error` or `stale-while-revalidate` | | show |
/// | failed, in the window | `stale-if-error` | | show |
/// | failed, the loader asks for the copy | no `must-revalidate` | | show |
/// | failed, never | | | withhold |
///
/// In each row with `stale-if-error`, the request's own `stale-if-error` counts as well, unless the
/// copy has `must-revalidate` or was purged softly. Directives of requests count only if the route
/// honours them. The windows of the copy already include the route's policy.
pub fn verdict(
    situation: StaleSituation,
    (entry, windows): (&Entry, StaleWindows),
    (route, parts): (&Route, &Parts),
    now: Instant,
) -> StaleVerdict {
    use StaleVerdict::{Show, ShowAndRefresh, Withhold};
    let if_error = || windows.if_error || plan::accepts_on_error(route, parts, entry, now);
    let show_if = |shown: bool, reason| if shown { Show(reason) } else { Withhold };
    match situation {
        StaleSituation::Found(_)
            if windows.while_revalidate && !plan::wants_fresh(route, parts) =>
        {
            ShowAndRefresh
        }
        StaleSituation::Found(PurgeCertainty::Sure) => show_if(
            plan::tolerates(route, parts, entry, now),
            StaleReason::Tolerated,
        ),
        StaleSituation::Found(PurgeCertainty::InDoubt) => Withhold,
        StaleSituation::BackOff => show_if(if_error(), StaleReason::Backoff),
        StaleSituation::SoftTimeout => show_if(
            windows.while_revalidate || if_error(),
            StaleReason::SoftTimeout,
        ),
        StaleSituation::Failed(StaleUse::InWindow) => show_if(if_error(), StaleReason::LoaderError),
        StaleSituation::Failed(StaleUse::Asked) => {
            show_if(!entry.freshness.must_revalidate, StaleReason::LoaderError)
        }
        StaleSituation::Failed(StaleUse::Never) => Withhold,
    }
}

impl StaleCopy {
    /// The copy that a look-up found, to validate or to fall back on.
    pub fn of(found: &Lookup) -> Option<Self> {
        match found {
            Lookup::Miss(..) => None,
            // It is fresh, but the request does not accept it.
            Lookup::Fresh(entry) => Some(Self {
                entry: Arc::clone(entry),
                windows: StaleWindows {
                    while_revalidate: false,
                    if_error: true,
                },
            }),
            Lookup::Stale(entry, windows) => Some(Self {
                entry: Arc::clone(entry),
                windows: *windows,
            }),
        }
    }

    /// Whether and how it is shown for this request.
    pub fn verdict(
        &self,
        situation: StaleSituation,
        ask: &RequestContext,
        now: Instant,
    ) -> StaleVerdict {
        let request = (&*ask.route, &ask.parts);
        verdict(situation, (&self.entry, self.windows), request, now)
    }
}

/// The stale copy that may be served instead of this failure, unless a purge has hidden it since
/// the look-up.
pub(super) fn stand_in<'a>(
    miss: &Miss,
    copy: Option<&'a StaleCopy>,
    failure: &LoadFailure,
) -> Option<&'a StaleCopy> {
    let failed = StaleSituation::Failed(failure.stale);
    copy.filter(|copy| {
        let verdict = copy.verdict(failed, &miss.ask, Instant::now());
        verdict.reason().is_some() && miss.proxy.cache.shows(&copy.entry)
    })
}

/// The answer to a load that failed: a stale copy if one may be shown, otherwise an error.
pub(super) fn or_error(
    miss: &Miss,
    copy: Option<&StaleCopy>,
    failure: &LoadFailure,
) -> CountedResponse {
    let (ask, reason) = (&miss.ask, miss.reason);
    if let Some(copy) = stand_in(miss, copy, failure) {
        return serve(
            &miss.proxy.cache,
            ask,
            &copy.entry,
            StaleReason::LoaderError,
        );
    }
    // If the copy must be validated and its origin cannot be reached, the answer is 504 (RFC 9111
    // §5.2.2.2).
    let must_ask = copy.is_some_and(|copy| copy.entry.freshness.must_revalidate);
    match failure.disconnected && must_ask {
        true => {
            let failure = LoadFailure {
                status: StatusCode::GATEWAY_TIMEOUT,
                ..failure.clone()
            };
            failure::answer(&ask.route, reason, &failure)
        }
        false => failure::answer(&ask.route, reason, failure),
    }
}

/// Answers with a stale copy.
pub fn serve(
    cache: &Cache,
    ask: &RequestContext,
    entry: &Entry,
    why: StaleReason,
) -> CountedResponse {
    ask.note(|| TrailEvent::Stale(why));
    serve_now(cache, &ask.parts, entry, why, Instant::now())
}

/// Answers with a stale copy at the moment `now`. Notes nothing in the trail.
pub fn serve_now<'a>(
    cache: &Cache,
    reader: impl Into<EntryReader<'a>>,
    entry: &Entry,
    why: StaleReason,
    now: Instant,
) -> CountedResponse {
    cache.hooks.emit(CacheEvent::StaleHit(why));
    match why {
        // No origin was asked.
        StaleReason::Backoff
        | StaleReason::Revalidating
        | StaleReason::Tolerated
        | StaleReason::Maintenance => hit(
            reader,
            entry,
            Some(why.as_str()),
            RequestOutcome::Stale,
            now,
        ),
        StaleReason::LoaderError | StaleReason::SoftTimeout => {
            let status = CacheStatus::Fwd {
                reason: ForwardReason::Stale,
                fwd_status: None,
                stored: false,
                collapsed: false,
                ttl: Some(entry.ttl(now)),
                detail: Some(why.as_str()),
            };
            let age = entry.freshness.age(now);
            CountedResponse::new(
                respond::from_entry(reader, entry, age, &status),
                RequestOutcome::Stale,
            )
        }
    }
}
