//! The path of one request, with one line for each step: [`Proxy::handle`].
//!
//! A request finds its route, gets its key and is looked up in L1. The answer comes from L1, or
//! [`miss`] gets it. Requests that may not be cached bypass the cache ([`pass`]). [`respond`] makes
//! the response for the client. Plugins and policies decide; this module acts on their decisions.

mod access;
mod arrived;
mod by_url;
mod came;
mod challenge;
pub mod config;
mod context;
mod cover;
mod debug_headers;
mod delivery;
mod early;
pub mod esi;
mod excerpt;
mod explain;
mod failure;
mod generation;
mod head;
mod head_update;
mod invalidate;
pub mod metrics;
pub mod mirror;
mod miss;
mod origin_query;
mod pass;
mod plan;
mod post;
pub mod protocol;
mod purge_method;
pub mod record;
mod respond;
pub mod route;
pub mod rules;
pub mod split;
mod sticky;
mod target;
mod to_https;
mod tunnel;
mod unkeyed;
mod warm_load;
mod watch;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Response, StatusCode};

use crate::cache::entry::Entry;
use crate::cache::event::StaleReason;
use crate::cache::freshness::StaleWindows;
use crate::cache::{Cache, Lookup};
use crate::http::body::{Body, UploadTerms};
use crate::http::cache_status::{CacheStatus, ForwardReason};
use crate::http::forward::{self, ForwardingContext, HopWishes};
use crate::http::path;
use crate::http::server::{EarlyRequest, HandlerAnswer, InterimChannel, RequestArrival};
use crate::http::tls::listeners::TlsListeners;
use crate::http::tls::obtained::ChallengeLookup;
use arrived::ArrivedRequest;
use context::{DerivedKey, RequestContext};
use delivery::PendingAnswer;
use esi::PageRequest;
use metrics::RequestOutcome;
use miss::stale::{self, PurgeCertainty, StaleSituation, StaleVerdict};
use plan::RequestPlan;
use protocol::ProtocolCounts;
use purge_method::PurgeMethodRequest;
use record::trail::{RequestTrail, TrailEvent};
use record::{PendingRecord, RecordBeginning};
use route::Route;
use rules::{RouteRules, RuleAdmission};
use target::{PathRefusal, RoutingOutcome};

pub use by_url::UrlPurgeSelectors;
pub use explain::Explanation;
pub use generation::Generation;
pub use head::compact;
pub use purge_method::reach::{PurgeAddress, PurgeReach};
pub use purge_method::{PurgeMethod, ReloadsForEverybody, TokenError};

/// How many gateways of our name (`Via`) a request may have passed before it counts as a loop.
const MOST_PASSES: usize = 10;

/// Answers requests from the cache, by the rules of the current generation.
pub struct Proxy {
    pub cache: Arc<Cache>,
    tls: Arc<TlsListeners>,
    protocols: ProtocolCounts,
    generation: ArcSwap<Generation>,
    /// Whether another process has the cache and the purges now.
    passes_on: AtomicBool,
}

/// A request that has found its route.
#[derive(Clone, Copy)]
struct RoutedRequest<'a> {
    parts: &'a Parts,
    body: &'a Body,
    host: &'a str,
    scheme: &'a str,
    wishes: &'a HopWishes,
    route: &'a Arc<Route>,
    started: Instant,
    trail: Option<&'a RequestTrail>,
    sample: HitSample,
}

/// Whether a hit is one of those by which it is known how hot an entry is: those of which a record is
/// kept, so that no other hit costs more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HitSample {
    Taken,
    LeftOut,
}

/// What the look-up in the cache led to.
enum CacheLookupOutcome {
    Answer(CountedResponse),
    Further(RemainingWork),
}

/// What remains to be done for a request after the look-up.
enum RemainingWork {
    /// The request was answered with a stale entry, which is now to be refreshed in the background.
    Refresh(CountedResponse, Box<DerivedKey>, Arc<Entry>),
    Work(SourceWork),
}

impl RemainingWork {
    /// The key under which the answer may be shared, if it may be.
    fn keyed(&self) -> Option<&DerivedKey> {
        match self {
            Self::Refresh(_, keyed, _) => Some(keyed),
            Self::Work(SourceWork::Load(looked)) => Some(&looked.0),
            Self::Work(SourceWork::AwaitBody | SourceWork::Pass(..)) => None,
        }
    }
}

/// Work that needs an origin or a plugin.
enum SourceWork {
    /// Find out whether the request has a body.
    AwaitBody,
    Pass(ForwardReason, Option<&'static str>),
    Load(Box<(DerivedKey, Lookup)>),
}

/// Sets the limits for the request's body. Returns whether the announced length is within them.
fn admits(route: &Route, parts: &Parts) -> bool {
    let Some(terms) = parts.extensions.get::<UploadTerms>() else {
        return true;
    };
    let most = terms.set(route.upload);
    let announced = parts.headers.get(CONTENT_LENGTH);
    let length = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_none_or(|length: u64| length <= most)
}

fn too_large() -> CountedResponse {
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    let answer = respond::plain(status, "413 the request body is too large\n");
    CountedResponse::new(answer, RequestOutcome::Error)
}

/// A response, and the outcome that it is counted as.
pub struct CountedResponse {
    response: Response<Body>,
    outcome: RequestOutcome,
}

impl CountedResponse {
    fn new(response: Response<Body>, outcome: RequestOutcome) -> Self {
        Self { response, outcome }
    }
}

impl Proxy {
    /// Creates a proxy that serves this generation.
    pub fn new(
        cache: Arc<Cache>,
        tls: Arc<TlsListeners>,
        protocols: ProtocolCounts,
        generation: Arc<Generation>,
    ) -> Self {
        Self {
            cache,
            tls,
            protocols,
            generation: ArcSwap::new(generation),
            passes_on: AtomicBool::new(false),
        }
    }

    /// From now on each request is sent on to the origin, and no purge is taken: another process
    /// takes purges, of which this one does not hear.
    pub fn pass_on_everything(&self) {
        self.passes_on.store(true, Ordering::SeqCst);
    }

    /// Takes that back.
    pub fn serve_again(&self) {
        self.passes_on.store(false, Ordering::SeqCst);
    }

    /// Whether another process has the cache and the purges now.
    pub fn passes_on(&self) -> bool {
        self.passes_on.load(Ordering::SeqCst)
    }

    /// The current generation.
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Makes this the generation for new requests. Requests that are under way end on the
    /// generation that they began on. Returns the previous generation.
    pub fn swap(&self, generation: Arc<Generation>) -> Arc<Generation> {
        self.generation.swap(generation)
    }

    /// Answers one request: at once if the answer is in the cache, otherwise later. Counts and logs
    /// it.
    ///
    /// A hit needs no future of its own: on the hottest path nothing is boxed or spawned.
    pub fn handle(
        self: &Arc<Self>,
        mut parts: Parts,
        body: Body,
        entered: RequestArrival,
        early: &InterimChannel,
    ) -> HandlerAnswer {
        if let Some(too_early) = parts.extensions.remove::<EarlyRequest>() {
            return self.handle_early(too_early, (parts, body), entered, early);
        }
        match challenge::look(&parts, &entered, &self.tls) {
            ChallengeLookup::Unknown => self.serve((parts, body), entered, early, None),
            ChallengeLookup::Known(text) => self.serve((parts, body), entered, early, Some(text)),
            ChallengeLookup::Asked(answer) => {
                let (proxy, early) = (Arc::clone(self), early.clone());
                HandlerAnswer::later(async move {
                    let text = answer.await;
                    match proxy.serve((parts, body), entered, &early, text) {
                        HandlerAnswer::Now(response) => response,
                        HandlerAnswer::Later(response) => response.await,
                    }
                })
            }
        }
    }

    /// Answers a request that is about no challenge, or about one with this answer.
    fn serve(
        self: &Arc<Self>,
        (mut parts, body): (Parts, Body),
        entered: RequestArrival,
        early: &InterimChannel,
        challenge: Option<Arc<str>>,
    ) -> HandlerAnswer {
        let started = esi::fragment_began(&parts).unwrap_or_else(|| early.began());
        let generation = self.generation.load();
        let path_rules = entered.peer.path_rules;
        let ForwardingContext {
            caller,
            wishes,
            named_host,
        } = entered.received;
        let tls = entered.tls.as_ref();
        self.protocols.count(parts.version, tls.map(|tls| &**tls));
        let dialect = context::dialect(&parts);
        let spelling = path::arrive(&mut parts.uri);
        let scheme = caller.scheme();
        let host = context::host(&parts, scheme);
        let recorder = &generation.recorder;
        let begin = |parts: &Parts, host: &str, route: Option<&Route>| {
            recorder.begin(RecordBeginning::of(parts, host, &caller, route, started).over(tls))
        };
        let unrouted = |record, served| PendingAnswer::new(record, dialect).give(served);
        if let Some(text) = challenge {
            let served = challenge::answer(&text);
            return HandlerAnswer::Now(unrouted(begin(&parts, &host, None), served));
        }
        if generation.purge_method.takes(&parts) {
            let record = begin(&parts, &host, None);
            let purge_method = &generation.purge_method;
            let answer = match self.passes_on() {
                true => respond::plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "503 another process takes purges now: connect again\n",
                ),
                false => {
                    let asked =
                        PurgeMethodRequest::new(&parts, &host, &caller, named_host.as_deref());
                    purge_method.answer(&generation, &self.cache, &asked)
                }
            };
            let served = CountedResponse::new(answer, RequestOutcome::Pass);
            return HandlerAnswer::Now(unrouted(record, served));
        }
        let refreshes = generation.purge_method.is_refresh(&parts, &caller) && !self.passes_on();
        if refreshes {
            let purge_method = &generation.purge_method;
            purge_method.begin_refresh(&generation, &self.cache, &parts, &host, &caller);
        }
        if let Some(target) = entered.peer.redirect
            && let Some(served) =
                to_https::answer(target, &parts, &host, &generation.routes, &self.tls)
        {
            return HandlerAnswer::Now(unrouted(begin(&parts, &host, None), served));
        }
        let target = match spelling {
            Ok(spelling) => generation
                .routes
                .target(&host, &parts, spelling, path_rules),
            Err(fault) => RoutingOutcome::Refused(PathRefusal::Fault(fault)),
        };
        let (route, kept_host) = match target {
            RoutingOutcome::Route(route) => (route, None),
            RoutingOutcome::Shaped(route, target) => {
                let host = host.into_owned();
                path::set(&mut parts.uri, target);
                (route, Some(host))
            }
            RoutingOutcome::Nowhere => {
                let answer = respond::plain(StatusCode::NOT_FOUND, "404 no route\n");
                let served = CountedResponse::new(answer, RequestOutcome::Error);
                return HandlerAnswer::Now(unrouted(begin(&parts, &host, None), served));
            }
            RoutingOutcome::Refused(refused) => {
                let record = begin(&parts, &host, None);
                let record = record.map(|record| record.because(&refused));
                let served = generation.refuse(&refused, started);
                return HandlerAnswer::Now(unrouted(record, served));
            }
        };
        let mut request = ArrivedRequest {
            parts,
            body,
            kept_host,
            scheme,
            caller,
            wishes,
            path_rules,
            tls: entered.tls,
            started,
            answer: PendingAnswer::new(None, dialect),
        };
        if refreshes {
            request.keep_host();
            generation.purge_method.mark_refresh(&mut request.parts);
        }
        let route = match &route.split {
            None => route,
            Some(split) => {
                request.keep_host();
                let client = request.client();
                split.choose(&mut request.parts, client).unwrap_or(route)
            }
        };
        if let Some(cookie) = sticky::of(route) {
            request.keep_host();
            sticky::take(cookie, &mut request.parts);
        }
        if generation.routes.assemble_pages() {
            request.answer.page = PageRequest::of(self, route, (&request, entered.peer), early);
        }
        if let Some(rules) = &route.rules {
            rules.name(&mut request, &entered.peer);
        }
        request.answer.record = request.record_of_perhaps_a_hit(recorder, route);
        let Some(rules) = &route.rules else {
            let client = request.client();
            return match route
                .maintenance
                .answer(&mut request.parts, client, started)
            {
                None => self.go_in(&generation, route, request, early),
                Some(page) => HandlerAnswer::Now(request.refused(recorder, route, page)),
            };
        };
        request.answer.rules = Some(rules.for_answer(&request));
        self.admit(&generation, (route, rules), request, early)
    }

    /// Takes a request through the rules of its route.
    fn admit(
        self: &Arc<Self>,
        generation: &Arc<Generation>,
        (route, rules): (&Arc<Route>, &Arc<RouteRules>),
        mut request: ArrivedRequest,
        early: &InterimChannel,
    ) -> HandlerAnswer {
        if !rules.may_wait(&request) {
            let admission = rules.admit(&mut request).now_or_never();
            let admission = admission.unwrap_or_else(RuleAdmission::unable);
            return self.admitted(generation, route, (request, admission), early);
        }
        let (proxy, generation) = (Arc::clone(self), Arc::clone(generation));
        let (route, rules, early) = (Arc::clone(route), Arc::clone(rules), early.clone());
        HandlerAnswer::later(async move {
            let admission = rules.admit(&mut request).await;
            match proxy.admitted(&generation, &route, (request, admission), &early) {
                HandlerAnswer::Now(response) => response,
                HandlerAnswer::Later(response) => response.await,
            }
        })
    }

    fn admitted(
        self: &Arc<Self>,
        generation: &Arc<Generation>,
        route: &Arc<Route>,
        (request, admission): (ArrivedRequest, RuleAdmission),
        early: &InterimChannel,
    ) -> HandlerAnswer {
        match admission {
            RuleAdmission::Admitted => self.go_in(generation, route, request, early),
            RuleAdmission::Answered(served) => {
                HandlerAnswer::Now(request.refused(&generation.recorder, route, served))
            }
        }
    }

    /// Answers a request that the rules of its route let in: the request plugin, the key, the cache.
    fn go_in(
        self: &Arc<Self>,
        generation: &Arc<Generation>,
        route: &Arc<Route>,
        mut request: ArrivedRequest,
        early: &InterimChannel,
    ) -> HandlerAnswer {
        let started = request.started;
        if generation.routes.assemble_pages() {
            esi::prepare(route, &mut request.parts);
        }
        if !admits(route, &request.parts) {
            return HandlerAnswer::Now(request.refused(&generation.recorder, route, too_large()));
        }
        let record = &mut request.answer.record;
        let trail = match route.has_plugins() {
            true => record.as_mut().and_then(PendingRecord::trail),
            false => None,
        };
        if let Some(served) = watch::request(route, &mut request, trail.as_deref()) {
            return HandlerAnswer::Now(request.answer.finish(route, served, started));
        }
        let sample = match request.answer.is_of_a_sample() {
            true => HitSample::Taken,
            false => HitSample::LeftOut,
        };
        let found = self.look(&request.routed(&request.host(), route, trail.as_deref(), sample));
        let is_hit = matches!(&found, CacheLookupOutcome::Answer(served) if served.outcome == RequestOutcome::Hit);
        if !is_hit {
            request.begin_record(&generation.recorder, route);
        }
        if !is_hit || sample == HitSample::Taken {
            request.keep_head(route);
        }
        let work = match found {
            CacheLookupOutcome::Answer(served) => {
                return HandlerAnswer::Now(request.answer.finish(route, served, started));
            }
            CacheLookupOutcome::Further(work) => work,
        };
        request.keep_host();
        if let Some(keyed) = work.keyed() {
            origin_query::narrow(&mut request.parts.uri, route, &keyed.key);
        }
        let ArrivedRequest {
            parts,
            body,
            kept_host,
            scheme,
            caller,
            wishes,
            path_rules,
            mut answer,
            ..
        } = request;
        let ask = RequestContext {
            generation: Arc::clone(generation),
            parts,
            host: kept_host.unwrap_or_default(),
            scheme,
            caller,
            wishes,
            path_rules,
            route: Arc::clone(route),
            started,
            interim: None,
            memory: Some(Arc::clone(early.memory())),
            trail: trail.or_else(|| answer.record.as_mut().and_then(PendingRecord::trail)),
        };
        self.go_on(ask, body, work, answer, early)
    }

    /// Does the remaining work for a request that the cache did not answer with a fresh entry.
    fn go_on(
        self: &Arc<Self>,
        ask: RequestContext,
        body: Body,
        work: RemainingWork,
        answer: PendingAnswer,
        early: &InterimChannel,
    ) -> HandlerAnswer {
        match work {
            RemainingWork::Refresh(served, keyed, stale) => {
                ask.note(|| TrailEvent::Stale(StaleReason::Revalidating));
                let answer = answer.finish(&ask.route, served, ask.started);
                let behind = RequestContext {
                    memory: None,
                    ..ask
                };
                miss::refresh(&self.cache, &behind, *keyed, stale);
                HandlerAnswer::Now(answer)
            }
            RemainingWork::Work(work) => {
                HandlerAnswer::later(Arc::clone(self).go(ask, body, work, answer, early.clone()))
            }
        }
    }

    /// Looks for what the cache can answer by itself. Each `return` is an exit.
    fn look(&self, visit: &RoutedRequest<'_>) -> CacheLookupOutcome {
        let RoutedRequest {
            parts,
            route,
            started,
            ..
        } = *visit;
        let page = || route.maintenance.page_instead_of_a_load(parts, started);
        let keyed = match plan::plan(visit) {
            RequestPlan::Cache(_) if self.passes_on() => {
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
        let found = match self.cache.lookup(&keyed.key, &parts.headers, started) {
            Lookup::Fresh(entry) if self.overstays(route, &entry, started) => {
                let windows = entry.freshness.when_doubted(started);
                Lookup::Stale(entry, windows)
            }
            found => found,
        };
        match found {
            Lookup::Fresh(entry)
                if plan::satisfies(route, parts, &entry, started)
                    || rules::maintenance::wants_only_stored(parts) =>
            {
                if visit.sample == HitSample::Taken {
                    entry.note_use();
                }
                CacheLookupOutcome::Answer(hit(parts, &entry, None, RequestOutcome::Hit, started))
            }
            Lookup::Stale(entry, windows) => self.stale_or_load(visit, keyed, entry, windows),
            found => CacheLookupOutcome::Further(RemainingWork::Work(SourceWork::Load(Box::new(
                (keyed, found),
            )))),
        }
    }

    /// Answers with a stale copy if it may be shown before anybody is asked; otherwise the request
    /// is to be loaded.
    fn stale_or_load(
        &self,
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
        let certainty = match self.cache.is_sure(&entry) {
            true => PurgeCertainty::Sure,
            false => PurgeCertainty::InDoubt,
        };
        let found = StaleSituation::Found(certainty);
        let verdict = match rules::maintenance::wants_only_stored(parts) {
            true if certainty == PurgeCertainty::Sure => {
                StaleVerdict::Show(StaleReason::Maintenance)
            }
            true => StaleVerdict::Withhold,
            false => stale::verdict(found, (&entry, windows), (route, parts), started),
        };
        let shown = |reason| stale::serve_now(&self.cache, parts, &entry, reason, started);
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
    fn overstays(&self, route: &Route, entry: &Entry, now: Instant) -> bool {
        let most = route.policy.max_staleness;
        most.is_some_and(|most| self.cache.is_cut_off() && entry.freshness.age(now) > most)
    }

    /// Does the work that needs an origin or a plugin.
    async fn go(
        self: Arc<Self>,
        mut ask: RequestContext,
        body: Body,
        work: SourceWork,
        answer: PendingAnswer,
        early: InterimChannel,
    ) -> Response<Body> {
        if esi::fragment_began(&ask.parts).is_none() {
            let open = |cx: &mut Context<'_>| early.open(ask.parts.version, cx.waker());
            ask.interim = poll_fn(|cx| Poll::Ready(open(cx))).await;
        }
        let (route, started) = (Arc::clone(&ask.route), ask.started);
        let overdue = ask.generation.overdue();
        let mut served = match work {
            // A flight that waits for itself would hang.
            _ if loops(&ask.parts) => {
                let refusal = respond::plain(StatusCode::LOOP_DETECTED, "508 loop detected\n");
                CountedResponse::new(refusal, RequestOutcome::Error)
            }
            SourceWork::AwaitBody => Box::pin(self.when_begun(ask, body)).await,
            work => self.work(ask, body, work).await,
        };
        let response = served.response;
        served.response = response.map(|body| body.until(overdue.cancelled_owned()));
        answer.finish(&route, served, started)
    }

    /// Answers once it is known whether the request has a body.
    async fn when_begun(self: &Arc<Self>, mut ask: RequestContext, body: Body) -> CountedResponse {
        let body = body.begun().await;
        if !body.is_empty() {
            let (reason, detail) = plan::WITH_BODY;
            return pass::pass(&self.cache, ask, body, reason, detail).await;
        }
        let found = self.look_bodiless(&ask);
        if let CacheLookupOutcome::Further(work) = &found
            && let Some(keyed) = work.keyed()
        {
            origin_query::narrow(&mut ask.parts.uri, &ask.route, &keyed.key);
        }
        match found {
            CacheLookupOutcome::Answer(served) => served,
            CacheLookupOutcome::Further(RemainingWork::Refresh(served, keyed, stale)) => {
                let behind = RequestContext {
                    memory: None,
                    interim: None,
                    ..ask
                };
                miss::refresh(&self.cache, &behind, *keyed, stale);
                served
            }
            CacheLookupOutcome::Further(RemainingWork::Work(work)) => {
                self.work(ask, body, work).await
            }
        }
    }

    /// Looks for the answer to a request that turned out to have no body.
    fn look_bodiless(&self, ask: &RequestContext) -> CacheLookupOutcome {
        self.look(&RoutedRequest {
            parts: &ask.parts,
            body: &Body::Empty,
            host: &ask.host,
            scheme: ask.scheme,
            wishes: &ask.wishes,
            route: &ask.route,
            started: ask.started,
            trail: ask.trail.as_deref(),
            sample: HitSample::LeftOut,
        })
    }

    async fn work(
        self: &Arc<Self>,
        ask: RequestContext,
        body: Body,
        work: SourceWork,
    ) -> CountedResponse {
        match work {
            SourceWork::AwaitBody => {
                let (reason, detail) = plan::WITH_BODY;
                Box::pin(pass::pass(&self.cache, ask, body, reason, detail)).await
            }
            SourceWork::Pass(reason, detail) => {
                Box::pin(pass::pass(&self.cache, ask, body, reason, detail)).await
            }
            SourceWork::Load(looked) => miss::answer(self, Arc::new(ask), looked.0, looked.1).await,
        }
    }
}

/// Answers with an entry, without asking an origin or a plugin.
fn hit(
    parts: &Parts,
    entry: &Entry,
    detail: Option<&str>,
    outcome: RequestOutcome,
    now: Instant,
) -> CountedResponse {
    let age = entry.freshness.age(now);
    let ttl = entry.ttl_at(age, now);
    let status = CacheStatus::Hit { ttl, detail };
    CountedResponse::new(respond::from_entry(parts, entry, age, &status), outcome)
}

impl Generation {
    /// The answer to a request with a refused path. The log has details that the client does not
    /// get.
    fn refuse(&self, refused: &PathRefusal, now: Instant) -> CountedResponse {
        if let Some(dropped) = self.refused_paths.admit(now) {
            tracing::warn!(reason = %refused, dropped, "a request was refused for its path");
        }
        let text = format!("400 {}\n", refused.reason());
        CountedResponse::new(
            respond::plain(StatusCode::BAD_REQUEST, text),
            RequestOutcome::Error,
        )
    }
}

/// Whether the request has been here before (RFC 8586), or is in a loop somewhere else: even where
/// `CDN-Loop` is lost on the way, `Via` still grows.
fn loops(parts: &Parts) -> bool {
    forward::loops(&parts.headers, &context::CDN_ID)
        || forward::passes(&parts.headers, context::PSEUDONYM) >= MOST_PASSES
}

/// Why a request goes to the origin, in the terms of RFC 9211.
fn missing(found: &Lookup) -> ForwardReason {
    match found {
        Lookup::Fresh(_) => ForwardReason::Request,
        Lookup::Stale(..) => ForwardReason::Stale,
        Lookup::Miss(_, crate::cache::LookupMissKind::Variant) => ForwardReason::VaryMiss,
        Lookup::Miss(_, crate::cache::LookupMissKind::Uri) => ForwardReason::UriMiss,
    }
}
