//! Where a missing value comes from: the origin, or a loader plugin.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use lamina_base::turn_clock;

use crate::cache::coalesce::{LoadFailure, LoadFailureScope, StaleUse};
use crate::cache::entry::Entry;
use crate::http::body::Body;
use crate::http::{conditional, range};
use crate::origin::{AnswerReaders, FailureFallback, LoadAudience, Origin, OriginError, SendTerms};
use crate::plugin::config::LoaderError;
use crate::plugin::{CallError, LoadDecision, LoadRequest, Plugin};
use crate::proxy::context::RequestContext;
use crate::proxy::head::withholds;
use crate::proxy::message_hooks;
use crate::proxy::miss::source_response::{SourceOutcome, SourceResponse};
use crate::proxy::miss::stale::{self, StaleSituation, StaleVerdict};
use crate::proxy::rules::compress;

/// How long a load may take, and who waits for it.
struct LoadPatience {
    deadline: Instant,
    /// None: it goes on whoever waits.
    audience: Option<LoadAudience>,
}

/// The longest time for a load if the route sets no hard timeout. The upstream's own deadlines
/// apply first; this one catches what they cannot see.
const LONGEST_LOAD: Duration = Duration::from_secs(300);

/// Loads the whole of the requested resource, by a GET without the client's preconditions. The
/// validators of a stale entry are sent, so that the origin may answer 304.
pub async fn load(
    ask: &RequestContext,
    stale: Option<&Entry>,
    audience: Option<LoadAudience>,
) -> SourceOutcome {
    let deadline = deadline(ask);
    let awaited = LoadPatience { deadline, audience };
    let loaded = match &ask.route.loader {
        Some((plugin, on_error)) => {
            // In a box: the future of every load would grow by it.
            let mut load = Box::pin(by_plugin(ask, plugin, *on_error, &awaited));
            until(deadline, load.as_mut()).await
        }
        None => until(deadline, pin!(by_origin(ask, stale, &awaited))).await,
    };
    watched(ask, loaded)
}

fn watched(ask: &RequestContext, mut loaded: SourceOutcome) -> SourceOutcome {
    if let SourceOutcome::Response(answer) = &mut loaded
        // The response plugin sees a 304 only as the renewed response: see `renew::renew`.
        && !(answer.validates && answer.response.status() == StatusCode::NOT_MODIFIED)
    {
        message_hooks::response(ask, answer);
    }
    loaded
}

/// Loads for this client alone: through the loader if the route has one, otherwise with the
/// client's own request as it is.
pub async fn for_one(ask: &RequestContext, audience: Option<LoadAudience>) -> SourceOutcome {
    match (&ask.route.loader, &ask.route.origin) {
        (Some(_), _) => load(ask, None, audience).await,
        (None, Some(origin)) => {
            let mut request = match ask.for_origin(Body::empty()) {
                Ok(request) => request,
                Err(refused) => return SourceOutcome::Failed(refused),
            };
            compress::ask_for_one(&ask.parts, request.headers_mut());
            let deadline = deadline(ask);
            let awaited = LoadPatience { deadline, audience };
            let load = pin!(sent(ask, origin, request, false, &awaited));
            watched(ask, until(awaited.deadline, load).await)
        }
        (None, None) => SourceOutcome::Failed(no_origin()),
    }
}

/// Sends a request past the cache and waits for the head of its answer. Where it has no body, all
/// attempts together take no longer than the hard timeout of the route; the time of an upload is not
/// the origin's.
pub async fn passed(
    ask: &RequestContext,
    origin: &Origin,
    mut request: Request<Body>,
) -> Result<Response<Body>, LoadFailure> {
    let hard = ask.route.policy.hard_timeout;
    let deadline = hard
        .filter(|_| request.body().is_empty())
        .map(|hard| turn_clock::now() + hard);
    SendTerms::of(&mut request).deadline = deadline;
    let mut answer = pin!(origin.send(request));
    let answer = match deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), answer.as_mut()).await {
            Ok(answer) => answer,
            Err(_) => return Err(timed_out()),
        },
        None => answer.await,
    };
    answer.map_err(|error| origin_failure(origin, &error))
}

impl LoadPatience {
    /// Adds what the upstream has to know to the terms of a request.
    fn tell(&self, terms: &mut SendTerms) {
        terms.deadline = Some(self.deadline);
        terms.audience.clone_from(&self.audience);
    }
}

fn deadline(ask: &RequestContext) -> Instant {
    turn_clock::now() + ask.route.policy.hard_timeout.unwrap_or(LONGEST_LOAD)
}

/// The result of `load`, or the failure of a load that took too long. The load stays where its
/// caller has pinned it: moving the future of a load costs more than much of what it does.
async fn until(
    deadline: Instant,
    load: Pin<&mut impl Future<Output = SourceOutcome>>,
) -> SourceOutcome {
    match tokio::time::timeout_at(deadline.into(), load).await {
        Ok(loaded) => loaded,
        Err(_) => SourceOutcome::Failed(timed_out()),
    }
}

async fn sent(
    ask: &RequestContext,
    origin: &Origin,
    request: Request<Body>,
    validates: bool,
    awaited: &LoadPatience,
) -> SourceOutcome {
    let mut request = ask.mirrored(request);
    let asked = ask.asked(&request);
    awaited.tell(SendTerms::of(&mut request));
    match origin.send(request).await {
        Ok(mut response) => {
            ask.bring_back(response.headers_mut(), asked.as_ref());
            SourceOutcome::Response(SourceResponse {
                kept_out: ask.kept_out(response.headers()),
                response,
                validates,
                ..SourceResponse::default()
            })
        }
        Err(error) => SourceOutcome::Failed(origin_failure(origin, &error)),
    }
}

async fn by_origin(
    ask: &RequestContext,
    stale: Option<&Entry>,
    awaited: &LoadPatience,
) -> SourceOutcome {
    let Some(origin) = &ask.route.origin else {
        return SourceOutcome::Failed(no_origin());
    };
    let mut request = match ask.for_origin(Body::empty()) {
        Ok(request) => request,
        Err(refused) => return SourceOutcome::Failed(refused),
    };
    *request.method_mut() = Method::GET;
    conditional::strip_conditionals(request.headers_mut());
    SendTerms::of(&mut request).readers = AnswerReaders::Many;
    let fallback = fallback(ask, stale);
    let stale = stale
        .filter(|entry| entry.has_validator() && !withholds(&entry.headers, &ask.route.policy));
    if let Some(entry) = stale {
        add_validators(&mut request, entry);
    }
    SendTerms::of(&mut request).fallback = fallback;
    sent(ask, origin, request, stale.is_some(), awaited).await
}

/// What the client gets if the origin fails: the stale copy, if it may be shown then.
fn fallback(ask: &RequestContext, stale: Option<&Entry>) -> FailureFallback {
    let shown = stale.is_some_and(|entry| {
        let now = turn_clock::now();
        let copy = (entry, entry.freshness.when_doubted(now));
        let request = (&*ask.route, &ask.parts);
        let failed = StaleSituation::Failed(StaleUse::InWindow);
        stale::verdict(failed, copy, request, now) != StaleVerdict::Withhold
    });
    match shown {
        true => FailureFallback::StaleCopy,
        false => FailureFallback::Error,
    }
}

/// Loads the octets of `gap`, from the first to the last, both included, if `validator` is still
/// valid; otherwise the whole arrives (RFC 9110 §13.1.5).
pub async fn load_range(
    ask: &RequestContext,
    gap: (u64, u64),
    validator: HeaderValue,
    audience: Option<LoadAudience>,
) -> SourceOutcome {
    let Some(origin) = &ask.route.origin else {
        return SourceOutcome::Failed(no_origin());
    };
    let mut request = match ask.for_origin(Body::empty()) {
        Ok(request) => request,
        Err(refused) => return SourceOutcome::Failed(refused),
    };
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    conditional::strip_conditionals(headers);
    headers.insert(RANGE, range::request_range(gap.0, gap.1));
    headers.insert(IF_RANGE, validator);
    compress::ask_for_one(&ask.parts, headers);
    SendTerms::of(&mut request).readers = AnswerReaders::Many;
    let deadline = deadline(ask);
    let awaited = LoadPatience { deadline, audience };
    let load = pin!(sent(ask, origin, request, false, &awaited));
    watched(ask, until(deadline, load).await)
}

/// Adds the preconditions of RFC 9111 §4.3.1.
fn add_validators(request: &mut Request<Body>, entry: &Entry) {
    for (validator, precondition) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        if let Some(value) = entry.headers.get(validator) {
            request.headers_mut().insert(precondition, value.clone());
        }
    }
}

/// The request's fields for a loader, without those that ask for less than the whole.
pub fn for_loader(parts: &Parts) -> HeaderMap {
    let mut headers = parts.headers.clone();
    conditional::strip_conditionals(&mut headers);
    headers
}

async fn by_plugin(
    ask: &RequestContext,
    plugin: &Arc<Plugin>,
    on_error: LoaderError,
    awaited: &LoadPatience,
) -> SourceOutcome {
    let headers = for_loader(&ask.parts);
    let request = LoadRequest {
        method: Method::GET,
        scheme: if ask.scheme == "https" {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        },
        host: ask.host.clone(),
        path_and_query: ask
            .parts
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
        headers,
        body: bytes::Bytes::new(),
        route: Arc::clone(&ask.route.name),
        deadline: awaited.deadline,
    };
    let began = Instant::now();
    let called = plugin.load(request).await;
    if let Some(trail) = &ask.trail {
        trail.called(
            "load",
            plugin.name(),
            began.elapsed(),
            called.as_ref().err(),
        );
    }
    match called {
        Ok((LoadDecision::Response(response), seen)) => {
            SourceOutcome::Response(SourceResponse::composed(response, ask.memory.as_ref()))
                .after(seen)
        }
        Ok((LoadDecision::Pass(request), seen)) => {
            let passed = passed_on(ask, request.map(Body::full), awaited).await;
            passed.after(seen)
        }
        Ok((LoadDecision::Absent, seen)) => SourceOutcome::Absent(seen),
        Ok((LoadDecision::Stale { .. }, _)) => SourceOutcome::Stale,
        Ok((LoadDecision::Error { reason }, _)) => {
            let failure = unloaded(StatusCode::BAD_GATEWAY, reason);
            plugin_failed(
                ask,
                plugin,
                on_error,
                failure.blamed_on(LoadFailureScope::PerhapsThisRequest),
                awaited,
            )
            .await
        }
        Err(error) => {
            let failure = unloaded(call_status(&error), error.to_string());
            let failure = failure.blamed_on(call_blame(&error));
            plugin_failed(ask, plugin, on_error, failure, awaited).await
        }
    }
}

/// The plugin rewrote the request; the host itself streams the origin's answer.
async fn passed_on(
    ask: &RequestContext,
    mut request: Request<Body>,
    awaited: &LoadPatience,
) -> SourceOutcome {
    let Some(origin) = &ask.route.origin else {
        return SourceOutcome::Failed(no_origin());
    };
    ask.forward(request.headers_mut());
    ask.charge(&mut request);
    if let Err(refused) = ask.apply_rules(&mut request) {
        return SourceOutcome::Failed(refused);
    }
    SendTerms::of(&mut request).readers = AnswerReaders::Many;
    sent(ask, origin, request, false, awaited).await
}

async fn plugin_failed(
    ask: &RequestContext,
    plugin: &Plugin,
    on_error: LoaderError,
    failure: LoadFailure,
    awaited: &LoadPatience,
) -> SourceOutcome {
    if let Some(dropped) = ask.route.warnings.admit(Instant::now()) {
        let (plugin, route) = (plugin.name(), &*ask.route.name);
        let detail = &*failure.detail;
        tracing::warn!(plugin, route, detail, dropped, "a loader plugin failed");
    }
    match on_error {
        LoaderError::Origin => by_origin(ask, None, awaited).await,
        LoaderError::StaleThenError => SourceOutcome::Failed(failure),
        LoaderError::Error => SourceOutcome::Failed(LoadFailure {
            stale: StaleUse::Never,
            ..failure
        }),
    }
}

fn unloaded(status: StatusCode, detail: String) -> LoadFailure {
    LoadFailure {
        retry_after: retry_after(status),
        ..LoadFailure::new(status, "proxy_internal_error", detail)
    }
}

/// The failure when responses hold as much memory as they may: no new load may begin.
pub fn too_much_held() -> LoadFailure {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let detail = "answers that clients read slowly already hold server.max_held_bytes";
    LoadFailure {
        retry_after: retry_after(status),
        ..LoadFailure::new(status, "proxy_internal_error", detail)
    }
}

fn retry_after(status: StatusCode) -> Option<u32> {
    (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1)
}

fn call_status(error: &CallError) -> StatusCode {
    match error {
        CallError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        CallError::Overloaded | CallError::TotalMemory(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// Whom a failed plugin call concerns: a call that reached the plugin may have failed because of
/// this request.
fn call_blame(error: &CallError) -> LoadFailureScope {
    match error {
        CallError::Overloaded | CallError::TotalMemory(_) | CallError::Quarantined => {
            LoadFailureScope::AnyRequest
        }
        _ => LoadFailureScope::PerhapsThisRequest,
    }
}

/// The failure of a load whose origin failed, with the status and error for the client.
pub fn origin_failure(origin: &Origin, error: &OriginError) -> LoadFailure {
    let status = error.status();
    let detail = format!("upstream {}: {error}", origin.name());
    let blame = match error.may_be_the_requests() {
        true => LoadFailureScope::PerhapsThisRequest,
        false => LoadFailureScope::AnyRequest,
    };
    LoadFailure {
        blame,
        retry_after: retry_after(status),
        disconnected: error.is_disconnect(),
        alert: error.tls_alert(),
        ..LoadFailure::new(status, error.proxy_status(), detail)
    }
}

fn timed_out() -> LoadFailure {
    let detail = "the load took longer than the hard timeout";
    let failure = LoadFailure::new(StatusCode::GATEWAY_TIMEOUT, "http_response_timeout", detail);
    failure.blamed_on(LoadFailureScope::PerhapsThisRequest)
}

/// The failure with which a loader asks for the stale copy.
pub fn asked_for_stale() -> LoadFailure {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let detail = "the loader asked for the stale copy";
    LoadFailure {
        retry_after: retry_after(status),
        stale: StaleUse::Asked,
        blame: LoadFailureScope::PerhapsThisRequest,
        ..LoadFailure::new(status, "proxy_internal_response", detail)
    }
}

/// The failure on a route without an upstream whose loader handed the request back.
pub fn no_origin() -> LoadFailure {
    let detail = "the route has no upstream to pass the request to";
    LoadFailure::new(StatusCode::BAD_GATEWAY, "destination_not_found", detail)
}
