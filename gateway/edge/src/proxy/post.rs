//! The answer to a POST that says it is also the answer to a GET (RFC 9110 §9.3.3): a 200 with
//! explicit freshness and a `Content-Location` that names the same URL. It is stored if the route
//! of the GET has `store_post`, because then every client gets a page that one client has sent.
//!
//! It is stored like the answer of any load: in a flight whose leader began after the POST's own
//! purge of the URL, so that requests that arrive meanwhile follow it. Key, route and policy are
//! those of a GET. If a flight is already under way, nothing is stored.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::CONTENT_LOCATION;
use http::{Method, Response, StatusCode, Uri};

use crate::cache::Cache;
use crate::cache::coalesce::{FlightOutcome, LeadOrFollow};
use crate::cache::policy::LifetimeSource;
use crate::http::body::Body;
use crate::http::cache_status::{CacheStatus, ForwardReason};
use crate::http::forward::HopWishes;
use crate::http::path::PathSpelling;
use crate::proxy::context::{DerivedKey, RequestContext};
use crate::proxy::counted::CountedResponse;
use crate::proxy::head::prepare;
use crate::proxy::lookup::{HitSample, RoutedRequest};
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::miss::judge::{self, check_key_covers_reads};
use crate::proxy::miss::load::{LoadMode, MissLoad};
use crate::proxy::miss::publish::publish;
use crate::proxy::miss::source_response::{ReceivedResponse, SourceResponse};
use crate::proxy::miss::{LoadKind, lost};
use crate::proxy::plan::{self, RequestPlan};
use crate::proxy::target::RoutingOutcome;
use crate::proxy::{failure, invalidate, origin_query, respond};

/// Stores the answer to a POST while its client reads it. Returns the answer as an error if it is
/// not to be stored.
pub(super) async fn keep(
    cache: &Arc<Cache>,
    ask: &RequestContext,
    answer: SourceResponse,
    sent: Instant,
) -> Result<CountedResponse, Response<Body>> {
    let response = &answer.response;
    let fits = response.status() == StatusCode::OK && names_itself(ask, response);
    if ask.parts.method != Method::POST || !fits {
        return Err(answer.response);
    }
    let Some((get, keyed)) = as_get(ask) else {
        return Err(answer.response);
    };
    let (get, at) = (Arc::new(get), Instant::now());
    let mut arrived = ReceivedResponse {
        answer,
        at,
        wall: SystemTime::now(),
        delay: at - sent,
    };
    let mut load = MissLoad {
        cache: Arc::clone(cache),
        ask: Arc::clone(&get),
        primary: keyed.key.clone(),
        stale: None,
        kind: LoadKind::Whole,
        private: None,
        mode: LoadMode::OneForAll,
        audience: None,
        lease: None,
    };
    let terms = judge::terms(&load, &get.marks(&keyed).tags, &arrived);
    let terms =
        terms.and_then(|terms| check_key_covers_reads(&load, &mut arrived.answer).map(|()| terms));
    let terms = match terms {
        Ok(terms) if is_explicit(terms.source) => terms,
        Ok(_) | Err(_) => return Err(arrived.answer.response),
    };
    let leader = match cache.lead_or_follow(&keyed.key.to_key(), ask.number(), || get.marks(&keyed))
    {
        LeadOrFollow::Lead(leader) => leader,
        LeadOrFollow::Follow(_) => return Err(arrived.answer.response),
    };
    prepare(&mut arrived);
    let mut follower = leader.follow();
    tokio::spawn(async move { publish(&mut load, leader, arrived, terms).await });
    Ok(while_stored(ask, follower.outcome().await))
}

/// The GET request that the POST stands for, on the route that takes the GET.
fn as_get(ask: &RequestContext) -> Option<(RequestContext, DerivedKey)> {
    let mut parts = ask.parts.clone();
    parts.method = Method::GET;
    let RoutingOutcome::Route(route) =
        ask.generation
            .routes
            .target(&ask.host, &parts, PathSpelling::Several, ask.path_rules)
    else {
        return None;
    };
    let route = Arc::clone(route);
    let visit = RoutedRequest {
        parts: &parts,
        body: &Body::empty(),
        host: &ask.host,
        scheme: ask.scheme,
        wishes: &HopWishes::default(),
        route: &route,
        started: ask.started,
        trail: ask.trail.as_deref(),
        sample: HitSample::LeftOut,
        codings: None,
    };
    let RequestPlan::Cache(keyed) = plan::key(&visit) else {
        return None;
    };
    let get = RequestContext {
        generation: Arc::clone(&ask.generation),
        parts,
        host: ask.host.clone(),
        scheme: ask.scheme,
        caller: ask.caller.clone(),
        wishes: HopWishes::default(),
        path_rules: ask.path_rules,
        started: ask.started,
        interim: None,
        memory: ask.memory.clone(),
        trail: ask.trail.clone(),
        route,
    };
    // It is unknown how another route's plugin would have changed the response.
    let unseen = get.route.response_plugin.is_some() && !Arc::ptr_eq(&get.route, &ask.route);
    // A GET would not have sent the part of the query that the key leaves out.
    let told_more = origin_query::narrowed(&get.parts.uri, &get.route, &keyed.key).is_some();
    let stores = get.route.cached && get.route.policy.store_post;
    (stores && !unseen && !told_more).then_some((get, keyed))
}

/// The answer for the client of the POST: the whole, whatever its preconditions say.
fn while_stored(ask: &RequestContext, outcome: FlightOutcome) -> CountedResponse {
    let now = Instant::now();
    let FlightOutcome::Streaming(fill) = outcome else {
        return failure::answer(&ask.route, ForwardReason::Method, &lost());
    };
    let status = CacheStatus::Fwd {
        reason: ForwardReason::Method,
        fwd_status: Some(fill.head.status.as_u16()),
        stored: true,
        collapsed: false,
        ttl: fill.head.freshness.ttl_left(now),
        detail: None,
    };
    match respond::from_fill(&ask.parts, &fill, now, &status) {
        Some(mut response) => {
            response.headers_mut().extend(fill.head.own.clone());
            CountedResponse::new(response, RequestOutcome::Pass)
        }
        None => failure::answer(&ask.route, ForwardReason::Method, &lost()),
    }
}

fn is_explicit(source: LifetimeSource) -> bool {
    matches!(
        source,
        LifetimeSource::SMaxage | LifetimeSource::MaxAge | LifetimeSource::Expires
    )
}

/// Whether `Content-Location` is the URL of the request.
fn names_itself(ask: &RequestContext, response: &Response<Body>) -> bool {
    let origin = (ask.scheme, &*ask.host);
    let named = invalidate::named_uri(
        response.headers(),
        &CONTENT_LOCATION,
        origin,
        &ask.parts.uri,
    );
    named.is_some_and(|uri| target(&uri) == target(&ask.parts.uri))
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}
