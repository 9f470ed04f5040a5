//! Requests that bypass the cache: methods, routes and requests that are not for the cache, and
//! upgrades.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::cache::coalesce::LoadFailure;
use crate::http::body::Body;
use crate::http::cache_status::{CacheStatus, ForwardReason};
use crate::http::forward;
use crate::http::max_forwards::{self, HopBudget};
use crate::http::memory::PROCESS;
use crate::http::trace;
use crate::origin::{OpenTunnel, Origin};
use crate::proxy::context::RequestContext;
use crate::proxy::counted::CountedResponse;
use crate::proxy::head_update::{self, HeadSendTime, StoredGetResponse};
use crate::proxy::invalidate::AnsweredRequest;
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::miss::source;
use crate::proxy::miss::source_response::{SourceOutcome, SourceResponse};
use crate::proxy::record::trail::TrailEvent;
use crate::proxy::rules::{compress, limits};
use crate::proxy::{excerpt, failure, message_hooks, post, respond, sticky, tunnel};

/// Sends the request on as it is and streams the answer back. If it is a gRPC call whose answer
/// breaks off, the trailers say so.
pub(super) async fn pass(
    cache: &Arc<Cache>,
    ask: RequestContext,
    body: Body,
    reason: ForwardReason,
    detail: Option<&'static str>,
) -> CountedResponse {
    ask.note(|| TrailEvent::Passes(reason, detail));
    let dialect = ask.dialect();
    let served = pass_on(cache, ask, body, reason, detail).await;
    // It logs what it can't be told, and the client has changed its page all the same.
    let _ = cache.successor_knows().await;
    CountedResponse {
        response: dialect.passed(served.response),
        ..served
    }
}

/// Sends the request on. What its answer makes invalid is purged before the client sees the answer.
async fn pass_on(
    cache: &Arc<Cache>,
    mut ask: RequestContext,
    body: Body,
    reason: ForwardReason,
    detail: Option<&'static str>,
) -> CountedResponse {
    if let Err(served) = admit_to_source(&mut ask, reason).await {
        return *served;
    }
    let client = ask.parts.extensions.get::<OnUpgrade>().cloned();
    let upgrade = client.filter(|_| ask.wishes.upgrade.is_some());
    if upgrade.is_none() {
        ask.wishes.upgrade = None;
    }
    let reads = matches!(ask.parts.method, Method::GET | Method::HEAD);
    if ask.route.loader.is_some() && reads && body.is_empty() && upgrade.is_none() {
        let passed = pass_shared(cache, &ask, None, reason, detail).await;
        let mut served = passed.unwrap_or_else(|error| failure::answer(&ask.route, reason, &error));
        let pin = sticky::taken_from(&mut served.response);
        sticky::set(&ask, pin, &mut served.response);
        return served;
    }
    let Some(origin) = &ask.route.origin else {
        if !reads {
            let answer = respond::loads_alone("405 this route is loaded by a plugin only\n");
            return CountedResponse::new(answer, RequestOutcome::Error);
        }
        return failure::answer(&ask.route, reason, &source::no_origin());
    };
    let request = match ask.for_origin(body) {
        Ok(request) => request,
        Err(refused) => return failure::answer(&ask.route, reason, &refused),
    };
    exchange(cache, &ask, (origin, request), upgrade, (reason, detail)).await
}

/// Lets a request go on to its source, unless it ends here.
async fn admit_to_source(
    ask: &mut RequestContext,
    reason: ForwardReason,
) -> Result<(), Box<CountedResponse>> {
    if trace::is_reflected(&ask.parts.method) {
        if !ask.route.reflects {
            let answer = respond::method_not_allowed("405 TRACE is off\n");
            return Err(Box::new(CountedResponse::new(
                answer,
                RequestOutcome::Error,
            )));
        }
        trace::strip_secrets(&mut ask.parts.headers);
    }
    if max_forwards::spend(&ask.parts.method, &mut ask.parts.headers) == HopBudget::Spent {
        let served = CountedResponse::new(last_hop(ask), RequestOutcome::Pass);
        return Err(Box::new(served));
    }
    let failed = |error| Box::new(failure::answer(&ask.route, reason, &error));
    if PROCESS.stays_full().await {
        return Err(failed(source::too_much_held()));
    }
    limits::admit_to_origin(ask).await.map_err(failed)
}

/// Sends a request to the origin, and brings its answer into the form for the client.
async fn exchange(
    cache: &Arc<Cache>,
    ask: &RequestContext,
    (origin, mut request): (&Arc<Origin>, Request<Body>),
    upgrade: Option<OnUpgrade>,
    (reason, detail): (ForwardReason, Option<&'static str>),
) -> CountedResponse {
    compress::ask_for_one(&ask.parts, request.headers_mut());
    ask.pass_upgrade_on(request.headers_mut());
    let asked = ask.asked(&request);
    let sent = Instant::now();
    let mut response = match source::passed(ask, origin, ask.mirrored(request)).await {
        Ok(response) => response,
        Err(error) => return failure::answer(&ask.route, reason, &error),
    };
    let pin = sticky::taken_from(&mut response);
    ask.bring_back(response.headers_mut(), asked.as_ref());
    let answered = AnsweredRequest {
        cache,
        generation: &ask.generation,
        parts: &ask.parts,
        host: &ask.host,
        scheme: ask.scheme,
    };
    answered.invalidate(&ask.route.invalidate, response.status(), response.headers());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let idle = ask.route.timeouts.tunnel;
        let idle = idle.map_or(origin.tunnel_timeout(), |longest| longest.0);
        let mut served = switch(response, upgrade, idle, ask.generation.overdue());
        sticky::set(ask, pin, &mut served.response);
        return served;
    }
    let mut answer = SourceResponse {
        kept_out: ask.kept_out(response.headers()),
        response,
        ..SourceResponse::default()
    };
    message_hooks::response(ask, &mut answer);
    match post::keep(cache, ask, answer, sent).await {
        Ok(served) => served,
        Err(mut response) => {
            sticky::set(ask, pin, &mut response);
            let detail = detail.or_else(|| ask.retry_detail());
            CountedResponse::new(
                respond::passed(
                    &ask.route.policy.tags_from,
                    cleaned(response),
                    &CacheStatus::not_stored(reason, detail),
                ),
                RequestOutcome::Pass,
            )
        }
    }
}

/// The same for a request without a body, whose `RequestContext` a load may share. On a route with
/// a loader, the loader answers. The answer to a HEAD may update `stored`.
pub(super) async fn pass_shared(
    cache: &Cache,
    ask: &RequestContext,
    stored: Option<StoredGetResponse<'_>>,
    reason: ForwardReason,
    detail: Option<&'static str>,
) -> Result<CountedResponse, LoadFailure> {
    let sent = HeadSendTime {
        at: Instant::now(),
        born: cache.order(),
    };
    let response = match source::for_one(ask, None).await {
        SourceOutcome::Response(mut answer) => {
            answer.response = cleaned(answer.response);
            if let Some(stored) = stored.filter(|_| asks_origin_for_head(ask)) {
                head_update::learn(cache, ask, &stored, &answer, sent);
            }
            answer.response
        }
        SourceOutcome::Absent(_) => respond::absent(),
        SourceOutcome::Stale => return Err(source::asked_for_stale()),
        SourceOutcome::Failed(failure) => return Err(failure),
    };
    let response = match ask.route.loader.is_some() && ask.parts.method == Method::HEAD {
        true => respond::head_of(response),
        false => response,
    };
    let response = excerpt::of_passed(ask, response);
    let detail = detail.or_else(|| ask.retry_detail());
    Ok(CountedResponse::new(
        respond::passed(
            &ask.route.policy.tags_from,
            response,
            &CacheStatus::not_stored(reason, detail),
        ),
        RequestOutcome::Pass,
    ))
}

/// The answer to TRACE and OPTIONS when `Max-Forwards` ends here (RFC 9110 §7.6.2).
fn last_hop(ask: &RequestContext) -> Response<Body> {
    if ask.parts.method != Method::TRACE {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    let mut response = Response::new(Body::full(trace::reflection(&ask.parts)));
    let kind = HeaderValue::from_static("message/http");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Whether the answer tells about the stored response to GET. A loader is asked for the whole even
/// for a HEAD, so its answer says nothing new.
fn asks_origin_for_head(ask: &RequestContext) -> bool {
    ask.parts.method == Method::HEAD && ask.route.loader.is_none()
}

fn cleaned(mut response: Response<Body>) -> Response<Body> {
    let version = response.version();
    forward::append_via(response.headers_mut(), version);
    response
}

/// Starts the tunnel after the origin has switched protocols. A 101 that no client asked for is an
/// error of the origin.
fn switch(
    mut response: Response<Body>,
    client: Option<OnUpgrade>,
    idle: Duration,
    overdue: CancellationToken,
) -> CountedResponse {
    let Some(client) = client else {
        return CountedResponse::new(
            respond::plain(StatusCode::BAD_GATEWAY, "502 bad gateway\n"),
            RequestOutcome::Error,
        );
    };
    let origin = hyper::upgrade::on(&mut response);
    let counted = response.extensions_mut().remove::<OpenTunnel>();
    tokio::spawn(async move {
        let _counted = counted;
        let (Ok(client), Ok(origin)) = (client.await, origin.await) else {
            return;
        };
        let (client, origin) = (TokioIo::new(client), TokioIo::new(origin));
        tokio::select! {
            ran = tunnel::run(client, origin, idle) => {
                if let Err(error) = ran {
                    tracing::debug!(%error, "a tunnel broke off");
                }
            }
            () = overdue.cancelled() => tracing::debug!(
                "a tunnel was ended: its configuration was replaced a long time ago \
                 (server.old_engine_max)"
            ),
        }
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = response.headers().clone();
    CountedResponse::new(answer, RequestOutcome::Pass)
}
