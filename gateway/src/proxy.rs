//! The path of one request, one line a step: [`Proxy::serve`].
//!
//! Route, key, L1, then either the answer from there or a place in a flight
//! ([`load`]). What may not be cached goes past the cache ([`pass`]). The leader's work
//! is in [`fetch`], where a value comes from in [`source`], what the client gets in
//! [`respond`]. Plugins and policies decide; the acting is here.

mod access;
pub mod config;
mod context;
mod explain;
mod fetch;
mod invalidate;
mod load;
mod metrics;
mod pass;
mod plan;
mod purge_method;
mod respond;
pub mod route;
mod source;

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};

use crate::cache::event::{Event, StaleReason};
use crate::cache::purge::Selector;
use crate::cache::{Cache, Lookup};
use crate::http::body::Body;
use crate::http::cache_status::{CacheStatus, Forward};
use crate::http::forward;
use crate::http::server::Peer;
use access::AccessLog;
use context::{Ask, Keyed};
use metrics::Outcome;
use plan::Plan;
use purge_method::PurgeMethod;
use route::{Route, Routes};

pub use explain::Explanation;
pub use purge_method::TokenError;

/// Everything that a request needs.
pub struct Proxy {
    pub cache: Arc<Cache>,
    routes: Routes,
    purge_method: PurgeMethod,
    access: AccessLog,
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
    /// # Errors
    /// When the `PURGE` method's addresses or token can't be used.
    pub fn new(
        cache: Arc<Cache>,
        routes: Routes,
        purge_method: &config::PurgeMethod,
        access: bool,
    ) -> Result<Self, TokenError> {
        Ok(Self {
            cache,
            routes,
            purge_method: PurgeMethod::new(purge_method)?,
            access: AccessLog::new(access),
        })
    }

    /// Answers one request; counts and logs it.
    pub async fn handle(self: Arc<Self>, request: Request<Body>, peer: Peer) -> Response<Body> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let scheme = context::scheme(&parts, &peer);
        let host = context::host(&parts, scheme);
        if self.purge_method.takes(&parts) {
            return self
                .purge_method
                .answer(&self, &parts, &host, scheme, &peer);
        }
        let Some(route) = self.routes.find(&host, &parts) else {
            return respond::plain(StatusCode::NOT_FOUND, "404 no route\n");
        };
        let (route, host) = (Arc::clone(route), host.into_owned());
        let line = self.access.begin(&parts, &route, &peer);
        let served = self
            .serve(&route, host, scheme, parts, body, peer, started)
            .await;
        route.metrics.count(served.outcome, started.elapsed());
        self.access.end(line, served, started)
    }

    /// The steps. Each `return` is an exit.
    #[allow(
        clippy::too_many_arguments,
        reason = "what `handle` found out, handed on"
    )]
    async fn serve(
        self: &Arc<Self>,
        route: &Arc<Route>,
        host: String,
        scheme: &'static str,
        parts: Parts,
        body: Body,
        peer: Peer,
        started: Instant,
    ) -> Served {
        let plan = plan::plan(route, &parts, &body, &host, scheme);
        let ask = |parts, route: &Arc<Route>| Ask {
            parts,
            host,
            scheme,
            peer,
            route: Arc::clone(route),
            started,
        };
        let keyed = match plan {
            Plan::Cache(keyed) => keyed,
            Plan::Pass(reason, detail) => {
                return Box::pin(self.pass(ask(parts, route), body, reason, detail)).await;
            }
            Plan::Refuse(status) => {
                return Served::new(respond::plain(status, "refused\n"), Outcome::Error);
            }
        };
        match self.cache.lookup(&keyed.key, &parts.headers, started) {
            Lookup::Fresh(entry) if plan::satisfies(route, &parts, &entry, started) => {
                let status = CacheStatus::Hit {
                    ttl: entry.freshness.ttl(started),
                    detail: None,
                };
                Served::new(
                    respond::from_entry(&parts, &entry, started, &status),
                    Outcome::Hit,
                )
            }
            Lookup::Stale(entry, windows)
                if windows.while_revalidate && !plan::wants_fresh(route, &parts) =>
            {
                let status = CacheStatus::Hit {
                    ttl: entry.freshness.ttl(started),
                    detail: Some("stale-while-revalidate"),
                };
                let response = respond::from_entry(&parts, &entry, started, &status);
                self.cache
                    .hooks
                    .emit(Event::StaleHit(StaleReason::Revalidating));
                self.refresh(ask(parts, route), keyed, entry);
                Served::new(response, Outcome::Stale)
            }
            found => Box::pin(self.load(Arc::new(ask(parts, route)), keyed, found)).await,
        }
    }

    /// What a purge of this URL has to reach: its identity under the route and key
    /// rules that a GET for it meets. None: no route takes it, so nothing is stored.
    pub fn url_selector(&self, scheme: &str, host: &str, uri: &Uri) -> Option<Selector> {
        let request = Request::builder()
            .uri(context::origin_form(uri))
            .body(())
            .ok()?;
        let (parts, ()) = request.into_parts();
        let host = host.to_ascii_lowercase();
        let route = self.routes.find(&host, &parts)?;
        match plan::key(route, &parts, &host, scheme) {
            Plan::Cache(Keyed { key, .. }) => Some(Selector::Url(key.identity())),
            Plan::Pass(..) | Plan::Refuse(_) => None,
        }
    }
}

/// Whether the request came round to us again (RFC 8586).
fn loops(parts: &Parts) -> bool {
    forward::loops(&parts.headers, context::PSEUDONYM)
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
