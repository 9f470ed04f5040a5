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
mod counted;
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
mod lookup;
mod message_hooks;
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
mod source_work;
pub mod split;
mod sticky;
mod target;
mod to_https;
mod tunnel;
mod unkeyed;
mod unrouted;
mod warm_load;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http::request::Parts;

use crate::cache::Cache;
use crate::http::body::{Body, UploadTerms};
use crate::http::forward::ForwardingContext;
use crate::http::path;
use crate::http::server::{EarlyRequest, HandlerAnswer, InterimChannel, Peer, RequestArrival};
use crate::http::tls::listeners::TlsListeners;
use crate::http::tls::obtained::ChallengeLookup;
use arrived::ArrivedRequest;
use context::RequestContext;
use counted::CountedResponse;
use delivery::PendingAnswer;
use esi::PageRequest;
use lookup::{CacheLookupOutcome, HitSample};
use metrics::RequestOutcome;
use protocol::ProtocolCounts;
use record::PendingRecord;
use route::Route;
use rules::{AnswerRules, RouteRules, RuleAdmission};
use target::RoutingOutcome;
use unrouted::{BegunRefresh, SaidInBody, UnroutedRequest};

pub use by_url::UrlPurgeSelectors;
pub use explain::Explanation;
pub use generation::Generation;
pub use head::compact;
pub use purge_method::reach::{PurgeAddress, PurgeReach};
pub use purge_method::{PurgeMethod, ReloadsForEverybody, TokenError, purge_response};

/// Answers requests from the cache, by the rules of the current generation.
pub struct Proxy {
    pub cache: Arc<Cache>,
    tls: Arc<TlsListeners>,
    protocols: ProtocolCounts,
    generation: ArcSwap<Generation>,
    /// Whether another process has the cache and the purges now.
    passes_on: AtomicBool,
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

    /// From now on each request is sent on to the origin: another process takes purges, of which this
    /// one does not hear.
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
        if matches!(body, Body::Boxed(_)) && self.purges_with_body(&parts, &body) {
            let (proxy, early) = (Arc::clone(self), early.clone());
            return HandlerAnswer::later(async move {
                let body = unrouted::read_before_purge(body).await;
                match proxy.handle(parts, body, entered, &early) {
                    HandlerAnswer::Now(response) => response,
                    HandlerAnswer::Later(response) => response.await,
                }
            });
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

    /// Whether a request to purge has a body that has not been read.
    fn purges_with_body(&self, parts: &Parts, body: &Body) -> bool {
        !body.is_empty() && self.generation.load().purge_method.takes(parts)
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
        let RequestArrival {
            received:
                ForwardingContext {
                    caller,
                    wishes,
                    named_host,
                },
            tls,
            peer,
            ..
        } = entered;
        self.protocols.count(parts.version, tls.as_deref());
        let spelling = path::arrive(&mut parts.uri);
        let host = context::host(&parts, caller.scheme());
        let unrouted = UnroutedRequest {
            parts: &parts,
            said: SaidInBody::of(&body),
            host: &host,
            caller: &caller,
            tls: tls.as_ref(),
            named_host: named_host.as_deref(),
            path_rules: peer.path_rules,
            started,
        };
        if let Some(answer) = unrouted.answer(self, &generation, challenge, peer.redirect) {
            return unrouted.give(self, &generation.recorder, answer);
        }
        let refresh = unrouted.begin_refresh(self, &generation);
        let (route, target) = match unrouted.route(&generation, spelling, peer.path_rules) {
            RoutingOutcome::Route(route) => (route, None),
            RoutingOutcome::Shaped(route, target) => (route, Some(target)),
            RoutingOutcome::Nowhere => {
                let served = unrouted::nowhere();
                return HandlerAnswer::Now(unrouted.finish(&generation.recorder, served));
            }
            RoutingOutcome::Refused(why) => {
                return HandlerAnswer::Now(unrouted.refuse(&generation, &why));
            }
        };
        let dialect = context::dialect(&parts);
        let scheme = caller.scheme();
        let host = host.into_owned();
        if let Some(target) = target {
            path::set(&mut parts.uri, target);
        }
        let mut request = ArrivedRequest {
            parts,
            body,
            host,
            scheme,
            caller,
            wishes,
            path_rules: peer.path_rules,
            tls,
            started,
            above_limits: Vec::new(),
            answer: PendingAnswer::new(None, dialect),
        };
        let Some(refresh) = refresh else {
            return self.enter(&generation, route, (request, peer), early);
        };
        generation.purge_method.mark_refresh(&mut request.parts);
        match refresh.is_to_be_logged() {
            true => {
                let route = Arc::clone(route);
                self.enter_when_logged(refresh, (&generation, route), (request, peer), early)
            }
            false => self.enter(&generation, route, (request, peer), early),
        }
    }

    /// Lets a refresh enter its route when the second tier's log has taken it: what began to load
    /// before would be stale as soon as it is stored.
    fn enter_when_logged(
        self: &Arc<Self>,
        refresh: BegunRefresh,
        (generation, route): (&Arc<Generation>, Arc<Route>),
        (request, peer): (ArrivedRequest, Peer),
        early: &InterimChannel,
    ) -> HandlerAnswer {
        let (proxy, generation, early) = (Arc::clone(self), Arc::clone(generation), early.clone());
        HandlerAnswer::later(async move {
            refresh.logged().await;
            match proxy.enter(&generation, &route, (request, peer), &early) {
                HandlerAnswer::Now(response) => response,
                HandlerAnswer::Later(response) => response.await,
            }
        })
    }

    /// Lets a request enter its route, or the one that takes a share of its requests.
    fn enter(
        self: &Arc<Self>,
        generation: &Arc<Generation>,
        route: &Arc<Route>,
        (mut request, peer): (ArrivedRequest, Peer),
        early: &InterimChannel,
    ) -> HandlerAnswer {
        let recorder = &generation.recorder;
        let route = match &route.split {
            None => route,
            Some(split) => {
                let client = request.client();
                split.choose(&mut request.parts, client).unwrap_or(route)
            }
        };
        if let Some(cookie) = sticky::of(route) {
            sticky::take(cookie, &mut request.parts);
        }
        if generation.routes.assemble_pages() {
            request.answer.page = PageRequest::of(self, route, (&request, peer), early);
        }
        if let Some(rules) = &route.rules {
            request.answer.rules = Some(AnswerRules::new(rules, &request, &peer));
        }
        request.answer.record = request.record_of_perhaps_a_hit(recorder, route);
        let Some(rules) = &route.rules else {
            let (client, started) = (request.client(), request.started);
            let maintenance = &route.maintenance;
            return match maintenance.answer(&mut request.parts, client, started) {
                None => self.go_in(generation, route, request, early),
                Some(page) => HandlerAnswer::Now(request.refused(recorder, route, page)),
            };
        };
        self.admit(generation, (route, rules), request, early)
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
            return self.admitted(generation, route, request, admission, early);
        }
        let (proxy, generation) = (Arc::clone(self), Arc::clone(generation));
        let (route, rules, early) = (Arc::clone(route), Arc::clone(rules), early.clone());
        HandlerAnswer::later(async move {
            let admission = rules.admit(&mut request).await;
            match proxy.admitted(&generation, &route, request, admission, &early) {
                HandlerAnswer::Now(response) => response,
                HandlerAnswer::Later(response) => response.await,
            }
        })
    }

    fn admitted(
        self: &Arc<Self>,
        generation: &Arc<Generation>,
        route: &Arc<Route>,
        request: ArrivedRequest,
        admission: RuleAdmission,
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
        if let Some(served) = message_hooks::request(route, &mut request, trail.as_deref()) {
            return HandlerAnswer::Now(request.answer.finish(route, served, started));
        }
        if let Some(mirror) = &route.mirror
            && mirror.copies_arrived(&request.parts, &request.body)
            && let Ok(asked) = request.context(generation, route).for_origin(Body::empty())
        {
            mirror.copy_arrived(&asked);
        }
        let sample = match request.answer.is_of_a_sample() {
            true => HitSample::Taken,
            false => HitSample::LeftOut,
        };
        let found = lookup::look(self, &request.routed(route, trail.as_deref(), sample));
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
        request.attach_what_is_known(route);
        if let Some(keyed) = work.keyed() {
            origin_query::narrow(&mut request.parts.uri, route, &keyed.key);
        }
        let ArrivedRequest {
            parts,
            body,
            host,
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
            host,
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
        source_work::go_on(self, ask, body, work, answer, early)
    }
}
