//! What is to be done with a request: look it up under this key, bypass the cache, or refuse it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Method, StatusCode};

use crate::cache::entry::Entry;
use crate::cache::key::KeyBuf;
use crate::http::body::Body;
use crate::http::cache_control::{MaxStale, RequestDirectives};
use crate::http::cache_status::ForwardReason;
use crate::http::forward;
use crate::http::tls::ClientCertificatePresented;
use crate::plugin::KeyDecision;
use crate::plugin::config::KeyError;
use crate::proxy::ReloadsForEverybody;
use crate::proxy::context::{DerivedKey, RequestContext, subject};
use crate::proxy::lookup::{HitSample, RoutedRequest};
use crate::proxy::record::trail::note_call;
use crate::proxy::route::Route;
use crate::proxy::rules::cleaning::BypassesCache;
use crate::proxy::rules::maintenance;

/// What is to be done with a request.
#[allow(
    clippy::large_enum_variant,
    reason = "a key on the stack is what spares each hit an allocation"
)]
pub enum RequestPlan {
    Cache(DerivedKey),
    /// The request may have a body. Whether it has one is known when the body has begun.
    AwaitBody,
    /// Bypass the cache, with the reason and its detail for `Cache-Status`.
    Pass(ForwardReason, Option<&'static str>),
    Refuse(StatusCode),
}

/// The reason why a request with a body bypasses the cache: the key can't cover the body (RFC 9110
/// §9.3.1 gives it no meaning).
pub(super) const WITH_BODY: (ForwardReason, Option<&str>) =
    (ForwardReason::Bypass, Some("request-body"));

/// Decides by the request alone.
pub(super) fn plan(visit: &RoutedRequest<'_>) -> RequestPlan {
    if !matches!(visit.parts.method, Method::GET | Method::HEAD) {
        return RequestPlan::Pass(ForwardReason::Method, None);
    }
    if !visit.route.cached {
        return RequestPlan::Pass(ForwardReason::Bypass, None);
    }
    if visit.route.rules.is_some() && visit.parts.extensions.get::<BypassesCache>().is_some() {
        return RequestPlan::Pass(ForwardReason::Bypass, Some("rule"));
    }
    if !visit.body.is_empty() {
        return RequestPlan::AwaitBody;
    }
    if visit.wishes.upgrade.is_some() {
        return RequestPlan::Pass(ForwardReason::Bypass, Some("upgrade"));
    }
    // The origin may answer by the certificate that `Client-Cert` tells it (RFC 9440 §3.2).
    let presented = visit.parts.extensions.get::<ClientCertificatePresented>();
    if presented.is_some() && !visit.route.key.covers(&forward::CLIENT_CERT) {
        return RequestPlan::Pass(ForwardReason::Bypass, Some("client-cert"));
    }
    key(visit)
}

/// Whether a route's key plugin is asked about such a request, as far as its head tells.
pub(super) fn asks_key_plugin(route: &Route, parts: &Parts) -> bool {
    route.cached && matches!(parts.method, Method::GET | Method::HEAD)
}

/// Derives the key, either natively or by the route's plugin.
pub(super) fn key(visit: &RoutedRequest<'_>) -> RequestPlan {
    let RoutedRequest {
        parts,
        host,
        scheme,
        route,
        ..
    } = *visit;
    let subject = subject(parts, scheme, host, route);
    let native = || RequestPlan::Cache(DerivedKey::new(route.key.build(&subject), None));
    let Some((plugin, on_error)) = &route.key_plugin else {
        return native();
    };
    let call = || plugin.key(parts, host);
    let decision = match note_call(visit.trail, "key", plugin.name(), call) {
        Ok(decision) => decision,
        Err(error) => {
            if let Some(dropped) = route.warnings.admit(visit.started) {
                let (plugin, route) = (plugin.name(), &*route.name);
                tracing::warn!(plugin, route, %error, dropped, "a key plugin failed");
            }
            return match on_error {
                KeyError::Bypass => {
                    RequestPlan::Pass(ForwardReason::Bypass, Some("key-plugin-failed"))
                }
                KeyError::DefaultKey => native(),
                KeyError::Refuse => RequestPlan::Refuse(StatusCode::INTERNAL_SERVER_ERROR),
            };
        }
    };
    match &*decision {
        KeyDecision::Default => native(),
        KeyDecision::Key { text, parts, .. } => RequestPlan::Cache(DerivedKey::new(
            route.key.build_text(text, parts, &subject),
            Some(Arc::clone(&decision)),
        )),
        KeyDecision::Bypass { .. } => RequestPlan::Pass(ForwardReason::Bypass, Some("key-plugin")),
        KeyDecision::Refuse { status } => RequestPlan::Refuse(*status),
    }
}

/// The key that a request has, or would have if it did not bypass the cache. None: a plugin gives
/// it none.
pub(super) fn key_of(ask: &RequestContext) -> Option<KeyBuf> {
    let visit = RoutedRequest {
        parts: &ask.parts,
        body: &Body::empty(),
        host: &ask.host,
        scheme: ask.scheme,
        wishes: &ask.wishes,
        route: &ask.route,
        started: ask.started,
        trail: None,
        sample: HitSample::LeftOut,
        codings: None,
    };
    match key(&visit) {
        RequestPlan::Cache(keyed) => Some(keyed.key),
        RequestPlan::AwaitBody | RequestPlan::Pass(..) | RequestPlan::Refuse(_) => None,
    }
}

/// Whether the request is one of those of operators that load a page again for everybody.
fn reloads(parts: &Parts) -> bool {
    parts.extensions.get::<ReloadsForEverybody>().is_some()
}

/// Whether the request accepts this fresh entry (RFC 9111 §5.2.1), if the route honours request
/// directives.
pub fn satisfies(route: &Route, parts: &Parts, entry: &Entry, now: Instant) -> bool {
    if reloads(parts) {
        return false;
    }
    if !route.policy.honors_requests() {
        return true;
    }
    let asked = RequestDirectives::parse(&parts.headers);
    let secs = |n: u32| Duration::from_secs(n.into());
    let age = entry.freshness.age(now);
    !asked.no_cache
        && asked.max_age.is_none_or(|max| age <= secs(max))
        && asked
            .min_fresh
            .is_none_or(|min| age + secs(min) <= entry.freshness.lifetime)
}

/// Whether the request accepts this stale entry instead of an error (`stale-if-error`, RFC 5861
/// §4), if the route honours request directives.
pub fn accepts_on_error(route: &Route, parts: &Parts, entry: &Entry, now: Instant) -> bool {
    if !route.policy.honors_requests() || entry.is_marked() || entry.freshness.must_revalidate {
        return false;
    }
    let window = RequestDirectives::parse(&parts.headers).stale_if_error;
    let secs = |n: u32| Duration::from_secs(n.into());
    window.is_some_and(|n| entry.freshness.age(now) < entry.freshness.lifetime + secs(n))
}

/// Whether the request asks for nothing stale, if the route honours request directives.
pub fn wants_fresh(route: &Route, parts: &Parts) -> bool {
    reloads(parts)
        || route.policy.honors_requests() && {
            let asked = RequestDirectives::parse(&parts.headers);
            asked.no_cache || asked.max_age.is_some() || asked.min_fresh.is_some()
        }
}

/// Whether the request accepts an entry that is this stale (RFC 9111 §5.2.1.2), if the route
/// honours request directives and the response allows it. An entry marked by a soft purge is stale
/// for a reason that no client can judge.
pub fn tolerates(route: &Route, parts: &Parts, entry: &Entry, now: Instant) -> bool {
    if !route.policy.honors_requests() || entry.freshness.must_revalidate || entry.is_marked() {
        return false;
    }
    if reloads(parts) {
        return false;
    }
    let asked = RequestDirectives::parse(&parts.headers);
    let secs = |n: u32| Duration::from_secs(n.into());
    let age = entry.freshness.age(now);
    let enough = match asked.max_stale {
        None => false,
        Some(MaxStale::Any) => true,
        Some(MaxStale::Seconds(most)) => age <= entry.freshness.lifetime + secs(most),
    };
    enough
        && !asked.no_cache
        && asked.min_fresh.is_none()
        && asked.max_age.is_none_or(|max| age <= secs(max))
}

/// Whether the request wants a stored response or none at all (RFC 9111 §5.2.1.7), or may get no
/// other one during maintenance.
pub fn only_if_cached(route: &Route, parts: &Parts) -> bool {
    maintenance::wants_only_stored(parts)
        || route.policy.honors_requests() && RequestDirectives::parse(&parts.headers).only_if_cached
}
