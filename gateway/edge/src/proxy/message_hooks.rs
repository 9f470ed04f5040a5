//! Calls the plugins that look at messages: at a request before its key is derived, and at a
//! response before it is judged for the cache.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderName, Response, StatusCode};

use crate::cache::policy::UncacheableReason;
use crate::http::body::Body;
use crate::http::cache_status::{CacheStatus, ForwardReason};
use crate::http::path::{self, PathFault, PathRules};
use crate::plugin::config::{RequestError, ResponseError};
use crate::plugin::{CallError, HookRequest, LoadedResponse, Plugin, RequestDecision, SeenField};
use crate::proxy::arrived::ArrivedRequest;
use crate::proxy::context::RequestContext;
use crate::proxy::counted::CountedResponse;
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::miss::source_response::SourceResponse;
use crate::proxy::record::trail::{RequestTrail, note_call};
use crate::proxy::respond;
use crate::proxy::route::Route;
use crate::proxy::target::reshape;

/// The decision of a request plugin.
pub enum RequestPluginOutcome {
    /// Go on with the request, changed or not.
    Further,
    Respond(LoadedResponse),
    Refuse(StatusCode),
    /// The plugin wrote a path that is refused.
    BadPath(PathFault),
}

/// What a request plugin, or the `auth` of a route, changed in the head. It is attached to the
/// request as an extension.
#[derive(Clone)]
pub struct PluginHeadChanges {
    /// The names of the fields that it has set.
    pub set: Arc<[HeaderName]>,
    /// Those of these fields that the client had not sent in this form; the origin gets them.
    pub fields: Arc<[SeenField]>,
    /// Whether the plugin removed or replaced the `Authorization` that the client had sent.
    pub took_authorization: bool,
    pub took_cookies: bool,
}

/// Calls the route's request plugin, which may change the request. Returns the response if the
/// plugin answers or refuses it.
pub fn request(
    route: &Route,
    request: &mut ArrivedRequest,
    trail: Option<&RequestTrail>,
) -> Option<CountedResponse> {
    let (plugin, on_error) = route.request_plugin.as_ref()?;
    let about = (request.scheme, &*request.host, request.caller.client());
    let rules = route.path.over(request.path_rules);
    let parts = &mut request.parts;
    let call = || ask(plugin, &route.name, parts, about, rules);
    match note_call(trail, "request", plugin.name(), call) {
        Ok(RequestPluginOutcome::Further) => None,
        Ok(RequestPluginOutcome::Respond(response)) => {
            let response = SourceResponse::composed(response, None).response;
            let status = CacheStatus::not_stored(ForwardReason::Bypass, Some("plugin"));
            Some(CountedResponse::new(
                respond::passed(&route.policy.tags_from, response, &status),
                RequestOutcome::Pass,
            ))
        }
        Ok(RequestPluginOutcome::Refuse(status)) => Some(refused(status)),
        Ok(RequestPluginOutcome::BadPath(fault)) => {
            let what = "a request plugin wrote a path that is refused";
            warn(route, plugin, fault.reason(), what);
            Some(refused(StatusCode::BAD_REQUEST))
        }
        Err(error) => {
            warn(route, plugin, &error, "a request plugin failed");
            match on_error {
                RequestError::Continue => None,
                RequestError::Refuse => Some(refused(StatusCode::INTERNAL_SERVER_ERROR)),
            }
        }
    }
}

/// Calls a request plugin and makes the change that it wants, in normal form and by the `rules` of
/// the route. The client is None if no client sent the request.
pub fn ask(
    plugin: &Plugin,
    route: &str,
    parts: &mut Parts,
    (scheme, host, client): (&str, &str, Option<IpAddr>),
    rules: PathRules,
) -> Result<RequestPluginOutcome, CallError> {
    let head = HookRequest {
        parts,
        scheme,
        host,
        client,
        route,
    };
    Ok(match plugin.on_request(head)? {
        RequestDecision::Next => RequestPluginOutcome::Further,
        RequestDecision::Change {
            path_and_query,
            headers,
        } => {
            if let Some(target) = path_and_query {
                path::set(&mut parts.uri, target);
                if let Err(fault) = reshape(&mut parts.uri, rules) {
                    return Ok(RequestPluginOutcome::BadPath(fault));
                }
            }
            let by = PluginHeadChanges::of(&headers, &parts.headers);
            headers.apply(&mut parts.headers);
            let by = match parts.extensions.remove::<PluginHeadChanges>() {
                Some(earlier) => by.after(&earlier),
                None => by,
            };
            parts.extensions.insert(by);
            RequestPluginOutcome::Further
        }
        RequestDecision::Respond(response) => RequestPluginOutcome::Respond(response),
        RequestDecision::Refuse(status) => RequestPluginOutcome::Refuse(status),
    })
}

/// Calls the route's response plugin, which may change the response.
pub fn response(ask: &RequestContext, answer: &mut SourceResponse) {
    let Some((plugin, on_error)) = &ask.route.response_plugin else {
        return;
    };
    let head = HookRequest {
        parts: &ask.parts,
        scheme: ask.scheme,
        host: &ask.host,
        client: ask.caller.client(),
        route: &ask.route.name,
    };
    if ask.route.looked.is_some() {
        let (headers, query) = (&ask.parts.headers, ask.parts.uri.query());
        answer.looked = Some(Box::new(plugin.response_sees(headers, query)));
    }
    let response: &mut Response<Body> = &mut answer.response;
    let call = || plugin.on_response(head, response.status(), response.headers());
    match note_call(ask.trail.as_deref(), "response", plugin.name(), call) {
        Ok(None) => {}
        Ok(Some(change)) => {
            change.headers.apply(response.headers_mut());
            answer.ttl = change.ttl.or(answer.ttl);
            answer.tags.extend(change.tags);
            if !change.store {
                answer.kept_out = Some(UncacheableReason::Plugin);
            }
        }
        Err(error) => {
            warn(&ask.route, plugin, &error, "a response plugin failed");
            if *on_error == ResponseError::RefuseStore {
                answer.kept_out = Some(UncacheableReason::Plugin);
            }
        }
    }
}

fn refused(status: StatusCode) -> CountedResponse {
    CountedResponse::new(respond::plain(status, "refused\n"), RequestOutcome::Error)
}

fn warn(route: &Route, plugin: &Plugin, error: impl fmt::Display, what: &str) {
    if let Some(dropped) = route.warnings.admit(Instant::now()) {
        let (plugin, route) = (plugin.name(), &*route.name);
        tracing::warn!(plugin, route, %error, dropped, "{what}");
    }
}
