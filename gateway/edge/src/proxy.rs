//! The path of one request, one line a step: [`Proxy::handle`].
//!
//! Route, key, L1, then either the answer from there or what [`miss`] makes of it. What may not
//! be cached goes past the cache ([`pass`]). What the client gets is made in [`respond`]. Plugins
//! and policies decide; the acting is here.

mod access;
mod by_url;
mod came;
pub mod config;
mod context;
mod cover;
mod excerpt;
mod explain;
mod failure;
mod generation;
mod grpc;
mod head;
mod head_update;
mod invalidate;
pub mod metrics;
mod miss;
mod origin_query;
mod pass;
mod plan;
mod post;
mod purge_method;
pub mod record;
mod respond;
pub mod route;
mod target;
mod tunnel;
mod unkeyed;
mod watch;

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Response, StatusCode};

use crate::cache::entry::Entry;
use crate::cache::event::StaleReason;
use crate::cache::freshness::Windows;
use crate::cache::{Cache, Lookup};
use crate::http::body::{Body, UploadTerms};
use crate::http::cache_status::{CacheStatus, Forward};
use crate::http::forward::{self, HopWishes, Received};
use crate::http::path;
use crate::http::server::{Answering, Early, Entered};
use context::{Ask, Keyed};
use metrics::Outcome;
use miss::stale::{self, Certainty, StaleSituation, StaleVerdict};
use plan::Plan;
use record::trail::{Trail, Waypoint};
use record::{Beginning, PendingRecord};
use route::Route;
use target::{Refused, Target};

pub use by_url::ByUrl;
pub use explain::Explanation;
pub use generation::Generation;
pub use head::compact;
pub use purge_method::{PurgeMethod, TokenError};

/// Gateways of our name that a request may come through.
const MOST_PASSES: usize = 10;

/// Answers requests from the cache, by the generation that serves.
pub struct Proxy {
    pub cache: Arc<Cache>,
    generation: ArcSwap<Generation>,
}

/// A request that has found its route.
#[derive(Clone, Copy)]
struct Visit<'a> {
    parts: &'a Parts,
    body: &'a Body,
    host: &'a str,
    scheme: &'a str,
    wishes: &'a HopWishes,
    route: &'a Arc<Route>,
    started: Instant,
    trail: Option<&'a Trail>,
}

/// What the cache made of a request.
enum Step {
    Answer(Served),
    Further(Further),
}

/// What remains to be done.
enum Further {
    /// Answered stale; this entry is to be refreshed behind the reader.
    Refresh(Served, Box<Keyed>, Arc<Entry>),
    Work(Work),
}

impl Further {
    /// Some: the answer may be shared under this key.
    fn keyed(&self) -> Option<&Keyed> {
        match self {
            Self::Refresh(_, keyed, _) => Some(keyed),
            Self::Work(Work::Load(looked)) => Some(&looked.0),
            Self::Work(Work::AwaitBody | Work::Pass(..)) => None,
        }
    }
}

/// What takes an origin or a plugin.
enum Work {
    /// To see whether the request has a body.
    AwaitBody,
    Pass(Forward, Option<&'static str>),
    Load(Box<(Keyed, Lookup)>),
}

/// Sets the limits of the request's body, and says whether the length that it announces is within.
fn admits(route: &Route, parts: &Parts) -> bool {
    let Some(terms) = parts.extensions.get::<UploadTerms>() else {
        return true;
    };
    let most = terms.set(route.upload);
    let announced = parts.headers.get(CONTENT_LENGTH);
    let length = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_none_or(|length: u64| length <= most)
}

/// An answer and what it counts as.
struct Served {
    response: Response<Body>,
    outcome: Outcome,
}

impl Served {
    fn new(response: Response<Body>, outcome: Outcome) -> Self {
        Self { response, outcome }
    }
}

impl Proxy {
    /// Serves this generation.
    pub fn new(cache: Arc<Cache>, generation: Arc<Generation>) -> Self {
        Self {
            cache,
            generation: ArcSwap::new(generation),
        }
    }

    /// The generation that serves.
    pub fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Has another generation answer what comes from now on; what is under way ends on the one
    /// that it began on. Returns the one that served.
    pub fn swap(&self, generation: Arc<Generation>) -> Arc<Generation> {
        self.generation.swap(generation)
    }

    /// Answers one request: at once from the cache, else later. Counts and logs it.
    ///
    /// A hit is no future of its own: on the hottest path nothing is boxed or spawned.
    pub fn handle(
        self: &Arc<Self>,
        mut parts: Parts,
        body: Body,
        entered: Entered,
        early: &Early,
    ) -> Answering {
        let started = early.began();
        let generation = self.generation.load();
        let path_rules = entered.peer.path_rules;
        let Received { caller, wishes } = entered.received;
        let spelling = path::arrive(&mut parts.uri);
        let scheme = caller.scheme();
        let host = context::host(&parts, scheme);
        let recorder = &generation.recorder;
        if generation.purge_method.takes(&parts) {
            let purge_method = &generation.purge_method;
            let record = recorder.begin(Beginning::of(&parts, &host, &caller, None, started));
            let answer = purge_method.answer(&generation, &self.cache, &parts, &host, &caller);
            return Answering::Now(answered(record, Served::new(answer, Outcome::Pass)));
        }
        let target = match spelling {
            Ok(spelling) => generation
                .routes
                .target(&host, &parts, spelling, path_rules),
            Err(fault) => Target::Refused(Refused::Fault(fault)),
        };
        let (route, host) = match target {
            Target::Route(route) => (route, host),
            Target::Shaped(route, target) => {
                let host = host.into_owned();
                path::set(&mut parts.uri, target);
                (route, Cow::Owned(host))
            }
            Target::Nowhere => {
                let answer = respond::plain(StatusCode::NOT_FOUND, "404 no route\n");
                let record = recorder.begin(Beginning::of(&parts, &host, &caller, None, started));
                return Answering::Now(answered(record, Served::new(answer, Outcome::Error)));
            }
            Target::Refused(refused) => {
                let record = recorder.begin(Beginning::of(&parts, &host, &caller, None, started));
                let record = record.map(|record| record.because(&refused));
                return Answering::Now(answered(record, generation.refuse(&refused, started)));
            }
        };
        let mut record =
            recorder.of_perhaps_a_hit(Beginning::of(&parts, &host, &caller, Some(route), started));
        if !admits(route, &parts) {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            let answer = respond::plain(status, "413 the request body is too large\n");
            let record = record.or_else(|| {
                recorder.begin(Beginning::of(&parts, &host, &caller, Some(route), started))
            });
            let served = Served::new(answer, Outcome::Error);
            return Answering::Now(finish(route, record, served, started));
        }
        let mut trail = match route.has_plugins() {
            true => record.as_mut().and_then(PendingRecord::trail),
            false => None,
        };
        let host = match route.request_plugin {
            None => host,
            Some(_) => {
                let host = host.into_owned();
                let trail = trail.as_deref();
                let answer = watch::request(route, &mut parts, &host, &caller, path_rules, trail);
                if let Some(served) = answer {
                    return Answering::Now(finish(route, record, served, started));
                }
                Cow::Owned(host)
            }
        };
        let visit = Visit {
            parts: &parts,
            body: &body,
            host: &host,
            scheme,
            wishes: &wishes,
            route,
            started,
            trail: trail.as_deref(),
        };
        let further = match self.look(&visit) {
            Step::Answer(served) => {
                if record.is_none() && served.outcome != Outcome::Hit {
                    record =
                        recorder.begin(Beginning::of(&parts, &host, &caller, Some(route), started));
                }
                return Answering::Now(finish(route, record, served, started));
            }
            Step::Further(further) => further,
        };
        let mut record = record.or_else(|| {
            recorder.begin(Beginning::of(&parts, &host, &caller, Some(route), started))
        });
        trail = trail.or_else(|| record.as_mut().and_then(PendingRecord::trail));
        let (route, host) = (Arc::clone(route), host.into_owned());
        if let Some(keyed) = further.keyed() {
            origin_query::narrow(&mut parts.uri, &route, &keyed.key);
        }
        let ask = Ask {
            generation: Guard::into_inner(generation),
            parts,
            host,
            scheme,
            caller,
            wishes,
            path_rules,
            route,
            started,
            interim: None,
            memory: Some(Arc::clone(early.memory())),
            trail,
        };
        match further {
            Further::Refresh(served, keyed, stale) => {
                ask.note(|| Waypoint::Stale(StaleReason::Revalidating));
                let answer = finish(&ask.route, record, served, started);
                let behind = Ask {
                    memory: None,
                    ..ask
                };
                miss::refresh(&self.cache, &behind, *keyed, stale);
                Answering::Now(answer)
            }
            Further::Work(work) => {
                Answering::later(Arc::clone(self).go(ask, body, work, record, early.clone()))
            }
        }
    }

    /// What the cache can answer by itself. Each `return` is an exit.
    fn look(&self, visit: &Visit<'_>) -> Step {
        let Visit {
            parts,
            route,
            started,
            ..
        } = *visit;
        let keyed = match plan::plan(visit) {
            Plan::Cache(keyed) => keyed,
            Plan::AwaitBody => return Step::Further(Further::Work(Work::AwaitBody)),
            Plan::Pass(reason, detail) => {
                return Step::Further(Further::Work(Work::Pass(reason, detail)));
            }
            Plan::Refuse(status) => {
                let refusal = respond::plain(status, respond::text(status));
                return Step::Answer(Served::new(refusal, Outcome::Error));
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
            Lookup::Fresh(entry) if plan::satisfies(route, parts, &entry, started) => {
                Step::Answer(hit(parts, &entry, None, Outcome::Hit, started))
            }
            Lookup::Stale(entry, windows) => self.stale_or_load(visit, keyed, entry, windows),
            found => Step::Further(Further::Work(Work::Load(Box::new((keyed, found))))),
        }
    }

    /// Answers with a stale copy where one may be shown before anybody is asked.
    fn stale_or_load(
        &self,
        visit: &Visit<'_>,
        keyed: Keyed,
        entry: Arc<Entry>,
        windows: Windows,
    ) -> Step {
        let Visit {
            parts,
            route,
            started,
            ..
        } = *visit;
        let certainty = match self.cache.is_sure(&entry) {
            true => Certainty::Sure,
            false => Certainty::InDoubt,
        };
        let found = StaleSituation::Found(certainty);
        let verdict = stale::verdict(found, (&entry, windows), (route, parts), started);
        let shown = |reason| stale::serve_now(&self.cache, parts, &entry, reason, started);
        match verdict {
            StaleVerdict::ShowAndRefresh => {
                let served = shown(StaleReason::Revalidating);
                Step::Further(Further::Refresh(served, Box::new(keyed), entry))
            }
            StaleVerdict::Show(reason) => Step::Answer(shown(reason)),
            StaleVerdict::Withhold => {
                let found = Lookup::Stale(entry, windows);
                Step::Further(Further::Work(Work::Load(Box::new((keyed, found)))))
            }
        }
    }

    /// Whether an entry is too old to be served unchecked while peers are not heard.
    fn overstays(&self, route: &Route, entry: &Entry, now: Instant) -> bool {
        let most = route.policy.max_staleness;
        most.is_some_and(|most| self.cache.is_cut_off() && entry.freshness.age(now) > most)
    }

    /// What takes an origin or a plugin.
    async fn go(
        self: Arc<Self>,
        mut ask: Ask,
        body: Body,
        work: Work,
        record: Option<PendingRecord>,
        early: Early,
    ) -> Response<Body> {
        ask.interim = poll_fn(|cx| Poll::Ready(early.open(ask.parts.version, cx.waker()))).await;
        let (route, started) = (Arc::clone(&ask.route), ask.started);
        let served = match work {
            // A flight that waits for itself would hang.
            _ if loops(&ask.parts) => {
                let refusal = respond::plain(StatusCode::LOOP_DETECTED, "508 loop detected\n");
                Served::new(refusal, Outcome::Error)
            }
            Work::AwaitBody => self.when_begun(ask, body).await,
            work => self.work(ask, body, work).await,
        };
        finish(&route, record, served, started)
    }

    /// Answers once it is known whether the request has a body.
    async fn when_begun(self: &Arc<Self>, ask: Ask, body: Body) -> Served {
        let body = body.begun().await;
        if !body.is_empty() {
            let (reason, detail) = plan::WITH_BODY;
            return pass::pass(&self.cache, ask, body, reason, detail).await;
        }
        match self.look_bodiless(&ask) {
            Step::Answer(served) => served,
            Step::Further(Further::Refresh(served, keyed, stale)) => {
                let behind = Ask {
                    memory: None,
                    interim: None,
                    ..ask
                };
                miss::refresh(&self.cache, &behind, *keyed, stale);
                served
            }
            Step::Further(Further::Work(work)) => self.work(ask, body, work).await,
        }
    }

    /// Looks for the answer to a request that turned out to have no body.
    fn look_bodiless(&self, ask: &Ask) -> Step {
        self.look(&Visit {
            parts: &ask.parts,
            body: &Body::Empty,
            host: &ask.host,
            scheme: ask.scheme,
            wishes: &ask.wishes,
            route: &ask.route,
            started: ask.started,
            trail: ask.trail.as_deref(),
        })
    }

    async fn work(self: &Arc<Self>, ask: Ask, body: Body, work: Work) -> Served {
        match work {
            Work::AwaitBody => {
                let (reason, detail) = plan::WITH_BODY;
                pass::pass(&self.cache, ask, body, reason, detail).await
            }
            Work::Pass(reason, detail) => pass::pass(&self.cache, ask, body, reason, detail).await,
            Work::Load(looked) => miss::answer(self, Arc::new(ask), looked.0, looked.1).await,
        }
    }
}

/// Answers with an entry, without asking anybody.
fn hit(
    parts: &Parts,
    entry: &Entry,
    detail: Option<&str>,
    outcome: Outcome,
    now: Instant,
) -> Served {
    let age = entry.freshness.age(now);
    let ttl = entry.ttl_at(age, now);
    let status = CacheStatus::Hit { ttl, detail };
    Served::new(respond::from_entry(parts, entry, age, &status), outcome)
}

impl Generation {
    /// The answer to a path that is refused; the log has what the client is not told.
    fn refuse(&self, refused: &Refused, now: Instant) -> Served {
        if let Some(dropped) = self.refused_paths.admit(now) {
            tracing::warn!(reason = %refused, dropped, "a request was refused for its path");
        }
        let text = format!("400 {}\n", refused.reason());
        Served::new(
            respond::plain(StatusCode::BAD_REQUEST, text),
            Outcome::Error,
        )
    }
}

/// Counts an answer and notes it on the record.
fn finish(
    route: &Route,
    record: Option<PendingRecord>,
    served: Served,
    started: Instant,
) -> Response<Body> {
    route.metrics.count(served.outcome, started.elapsed());
    answered(record, served)
}

/// The answer; its record, where there is one, ends with its body.
fn answered(record: Option<PendingRecord>, served: Served) -> Response<Body> {
    match record {
        Some(record) => record.answered(served),
        None => served.response,
    }
}

/// Whether the request came round to us again (RFC 8586), or goes round somewhere: where
/// `CDN-Loop` gets lost on the way, `Via` still grows.
fn loops(parts: &Parts) -> bool {
    forward::loops(&parts.headers, &context::CDN_ID)
        || forward::passes(&parts.headers, context::PSEUDONYM) >= MOST_PASSES
}

/// Why a request goes to the origin, in RFC 9211's words.
fn missing(found: &Lookup) -> Forward {
    match found {
        Lookup::Fresh(_) => Forward::Request,
        Lookup::Stale(..) => Forward::Stale,
        Lookup::Miss(_, crate::cache::Missing::Variant) => Forward::VaryMiss,
        Lookup::Miss(_, crate::cache::Missing::Uri) => Forward::UriMiss,
    }
}
