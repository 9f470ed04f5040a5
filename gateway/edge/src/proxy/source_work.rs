//! What is done for a request that the cache has not answered with a fresh entry: [`go_on`].

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Response, StatusCode};

use super::context::RequestContext;
use super::counted::CountedResponse;
use super::delivery::PendingAnswer;
use super::lookup::{CacheLookupOutcome, HitSample, RemainingWork, RoutedRequest, SourceWork};
use super::metrics::RequestOutcome;
use super::record::trail::TrailEvent;
use super::rules::compress::ClientCodings;
use super::{Proxy, context, esi, lookup, miss, origin_query, pass, plan, respond};
use crate::cache::event::StaleReason;
use crate::http::body::Body;
use crate::http::forward;
use crate::http::server::{HandlerAnswer, InterimChannel};

/// How many gateways of our name (`Via`) a request may have passed before it counts as a loop.
const MOST_PASSES: usize = 10;

/// Does the remaining work for a request that the cache did not answer with a fresh entry.
pub(super) fn go_on(
    proxy: &Arc<Proxy>,
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
            miss::refresh(&proxy.cache, &behind, *keyed, stale);
            HandlerAnswer::Now(answer)
        }
        RemainingWork::Work(work) => HandlerAnswer::later(answer_later(
            Arc::clone(proxy),
            ask,
            body,
            work,
            answer,
            early.clone(),
        )),
    }
}

/// Does the work that needs an origin or a plugin.
async fn answer_later(
    proxy: Arc<Proxy>,
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
        SourceWork::AwaitBody => Box::pin(when_begun(&proxy, ask, body)).await,
        work => work_for(&proxy, ask, body, work).await,
    };
    let response = served.response;
    served.response = response.map(|body| body.until(overdue.cancelled_owned()));
    answer.finish(&route, served, started)
}

/// Answers once it is known whether the request has a body.
async fn when_begun(proxy: &Arc<Proxy>, mut ask: RequestContext, body: Body) -> CountedResponse {
    let body = body.begun().await;
    if !body.is_empty() {
        let (reason, detail) = plan::WITH_BODY;
        return pass::pass(&proxy.cache, ask, body, reason, detail).await;
    }
    let found = look_bodiless(proxy, &ask);
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
            miss::refresh(&proxy.cache, &behind, *keyed, stale);
            served
        }
        CacheLookupOutcome::Further(RemainingWork::Work(work)) => {
            work_for(proxy, ask, body, work).await
        }
    }
}

/// Looks for the answer to a request that turned out to have no body.
fn look_bodiless(proxy: &Proxy, ask: &RequestContext) -> CacheLookupOutcome {
    lookup::look(
        proxy,
        &RoutedRequest {
            parts: &ask.parts,
            body: &Body::Empty,
            host: &ask.host,
            scheme: ask.scheme,
            wishes: &ask.wishes,
            route: &ask.route,
            started: ask.started,
            trail: ask.trail.as_deref(),
            sample: HitSample::LeftOut,
            codings: ClientCodings::of(&ask.parts).map(|codings| &**codings),
        },
    )
}

async fn work_for(
    proxy: &Arc<Proxy>,
    ask: RequestContext,
    body: Body,
    work: SourceWork,
) -> CountedResponse {
    match work {
        SourceWork::AwaitBody => {
            let (reason, detail) = plan::WITH_BODY;
            Box::pin(pass::pass(&proxy.cache, ask, body, reason, detail)).await
        }
        SourceWork::Pass(reason, detail) => {
            Box::pin(pass::pass(&proxy.cache, ask, body, reason, detail)).await
        }
        SourceWork::Load(looked) => miss::answer(proxy, Arc::new(ask), looked.0, looked.1).await,
    }
}

/// Whether the request has been here before (RFC 8586), or is in a loop somewhere else: even where
/// `CDN-Loop` is lost on the way, `Via` still grows.
fn loops(parts: &Parts) -> bool {
    forward::loops(&parts.headers, &context::CDN_ID)
        || forward::passes(&parts.headers) >= MOST_PASSES
}
