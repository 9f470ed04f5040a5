//! What the cache can answer by itself, and what remains to be done otherwise: [`look`].

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;

use super::context::DerivedKey;
use super::counted::{CountedResponse, hit};
use super::metrics::RequestOutcome;
use super::miss::stale::{self, PurgeCertainty, StaleSituation, StaleVerdict};
use super::plan::RequestPlan;
use super::record::trail::RequestTrail;
use super::respond::EntryReader;
use super::route::Route;
use super::rules::compress::ClientCodings;
use super::rules::maintenance;
use super::{Proxy, plan, respond};
use crate::cache::entry::Entry;
use crate::cache::event::StaleReason;
use crate::cache::freshness::StaleWindows;
use crate::cache::{Cache, Lookup, LookupMissKind};
use crate::http::body::Body;
use crate::http::cache_status::ForwardReason;
use crate::http::forward::HopWishes;

/// A request that has found its route.
#[derive(Clone, Copy)]
pub(super) struct RoutedRequest<'a> {
    pub(super) parts: &'a Parts,
    pub(super) body: &'a Body,
    pub(super) host: &'a str,
    pub(super) scheme: &'a str,
    pub(super) wishes: &'a HopWishes,
    pub(super) route: &'a Arc<Route>,
    pub(super) started: Instant,
    pub(super) trail: Option<&'a RequestTrail>,
    pub(super) sample: HitSample,
    /// What its client said of codings. None: its route does not compress.
    pub(super) codings: Option<&'a ClientCodings>,
}

impl<'a> RoutedRequest<'a> {
    fn reader(&self) -> EntryReader<'a> {
        EntryReader {
            parts: self.parts,
            codings: self.codings,
        }
    }
}

/// Whether a hit is one of those by which it is known how hot an entry is: those of which a record is
/// kept, so that no other hit costs more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HitSample {
    Taken,
    LeftOut,
}

/// What the look-up in the cache led to.
pub(super) enum CacheLookupOutcome {
    Answer(CountedResponse),
    Further(RemainingWork),
}

/// What remains to be done for a request after the look-up.
pub(super) enum RemainingWork {
    /// The request was answered with a stale entry, which is now to be refreshed in the background.
    Refresh(CountedResponse, Box<DerivedKey>, Arc<Entry>),
    Work(SourceWork),
}

impl RemainingWork {
    /// The key under which the answer may be shared, if it may be.
    pub(super) fn keyed(&self) -> Option<&DerivedKey> {
        match self {
            Self::Refresh(_, keyed, _) => Some(keyed),
            Self::Work(SourceWork::Load(looked)) => Some(&looked.0),
            Self::Work(SourceWork::AwaitBody | SourceWork::Pass(..)) => None,
        }
    }
}

/// Work that needs an origin or a plugin.
pub(super) enum SourceWork {
    /// Find out whether the request has a body.
    AwaitBody,
    Pass(ForwardReason, Option<&'static str>),
    Load(Box<(DerivedKey, Lookup)>),
}

/// Looks for what the cache can answer by itself. Each `return` is an exit.
pub(super) fn look(proxy: &Proxy, visit: &RoutedRequest<'_>) -> CacheLookupOutcome {
    let RoutedRequest {
        parts,
        route,
        started,
        ..
    } = *visit;
    let page = || route.maintenance.page_instead_of_a_load(parts, started);
    let keyed = match plan::plan(visit) {
        RequestPlan::Cache(_) if proxy.passes_on() => {
            let (reason, detail) = (ForwardReason::Bypass, Some("replaced"));
            return CacheLookupOutcome::Further(RemainingWork::Work(SourceWork::Pass(
                reason, detail,
            )));
        }
        RequestPlan::Cache(keyed) => keyed,
        RequestPlan::AwaitBody => {
            let work = RemainingWork::Work(SourceWork::AwaitBody);
            return page().map_or(
                CacheLookupOutcome::Further(work),
                CacheLookupOutcome::Answer,
            );
        }
        RequestPlan::Pass(reason, detail) => {
            let work = RemainingWork::Work(SourceWork::Pass(reason, detail));
            return page().map_or(
                CacheLookupOutcome::Further(work),
                CacheLookupOutcome::Answer,
            );
        }
        RequestPlan::Refuse(status) => {
            let refusal = respond::plain(status, respond::text(status));
            return CacheLookupOutcome::Answer(CountedResponse::new(
                refusal,
                RequestOutcome::Error,
            ));
        }
    };
    let found = match proxy.cache.lookup(&keyed.key, &parts.headers, started) {
        Lookup::Fresh(entry) if overstays(&proxy.cache, route, &entry, started) => {
            let windows = entry.freshness.when_doubted(started);
            Lookup::Stale(entry, windows)
        }
        found => found,
    };
    match found {
        Lookup::Fresh(entry)
            if plan::satisfies(route, parts, &entry, started)
                || maintenance::wants_only_stored(parts) =>
        {
            if visit.sample == HitSample::Taken {
                entry.note_use();
            }
            let reader = visit.reader();
            CacheLookupOutcome::Answer(hit(reader, &entry, None, RequestOutcome::Hit, started))
        }
        Lookup::Stale(entry, windows) => stale_or_load(&proxy.cache, visit, keyed, entry, windows),
        found => CacheLookupOutcome::Further(RemainingWork::Work(SourceWork::Load(Box::new((
            keyed, found,
        ))))),
    }
}

/// Answers with a stale copy if it may be shown before anybody is asked; otherwise the request
/// is to be loaded.
fn stale_or_load(
    cache: &Cache,
    visit: &RoutedRequest<'_>,
    keyed: DerivedKey,
    entry: Arc<Entry>,
    windows: StaleWindows,
) -> CacheLookupOutcome {
    let RoutedRequest {
        parts,
        route,
        started,
        ..
    } = *visit;
    let certainty = match cache.is_sure(&entry) {
        true => PurgeCertainty::Sure,
        false => PurgeCertainty::InDoubt,
    };
    let found = StaleSituation::Found(certainty);
    let verdict = match maintenance::wants_only_stored(parts) {
        true if certainty == PurgeCertainty::Sure => StaleVerdict::Show(StaleReason::Maintenance),
        true => StaleVerdict::Withhold,
        false => stale::verdict(found, (&entry, windows), (route, parts), started),
    };
    let shown = |reason| stale::serve_now(cache, visit.reader(), &entry, reason, started);
    match verdict {
        StaleVerdict::ShowAndRefresh => {
            let served = shown(StaleReason::Revalidating);
            CacheLookupOutcome::Further(RemainingWork::Refresh(served, Box::new(keyed), entry))
        }
        StaleVerdict::Show(reason) => CacheLookupOutcome::Answer(shown(reason)),
        StaleVerdict::Withhold => {
            let found = Lookup::Stale(entry, windows);
            CacheLookupOutcome::Further(RemainingWork::Work(SourceWork::Load(Box::new((
                keyed, found,
            )))))
        }
    }
}

/// Whether an entry is older than `max_staleness` while this node does not hear its peers.
fn overstays(cache: &Cache, route: &Route, entry: &Entry, now: Instant) -> bool {
    let most = route.policy.max_staleness;
    most.is_some_and(|most| cache.is_cut_off() && entry.freshness.age(now) > most)
}

/// Why a request goes to the origin, in the terms of RFC 9211.
pub(super) fn missing(found: &Lookup) -> ForwardReason {
    match found {
        Lookup::Fresh(_) => ForwardReason::Request,
        Lookup::Stale(..) => ForwardReason::Stale,
        Lookup::Miss(_, LookupMissKind::Variant) => ForwardReason::VaryMiss,
        Lookup::Miss(_, LookupMissKind::Uri) => ForwardReason::UriMiss,
    }
}
