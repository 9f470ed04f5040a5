//! What is to be done with a request: look under this key, go past the cache, refuse.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Method, StatusCode};

use crate::cache::entry::Entry;
use crate::http::cache_control::{MaxStale, RequestDirectives};
use crate::http::cache_status::ForwardReason;
use crate::plugin::KeyDecision;
use crate::plugin::config::KeyError;
use crate::proxy::RoutedRequest;
use crate::proxy::context::{DerivedKey, subject};
use crate::proxy::record::trail::note_call;
use crate::proxy::route::Route;

/// What is to be done with a request.
#[allow(
    clippy::large_enum_variant,
    reason = "a key on the stack is what spares each hit an allocation"
)]
pub enum RequestPlan {
    Cache(DerivedKey),
    /// The request may have a body; what is to be done is known when it has begun.
    AwaitBody,
    /// Past the cache, with the reason and its detail for `Cache-Status`.
    Pass(ForwardReason, Option<&'static str>),
    Refuse(StatusCode),
}

/// What becomes of a request that has a body: the key can't cover it (RFC 9110 §9.3.1 gives it
/// no meaning).
pub(super) const WITH_BODY: (ForwardReason, Option<&str>) =
    (ForwardReason::Bypass, Some("request-body"));

/// Decides from the request alone.
pub(super) fn plan(visit: &RoutedRequest<'_>) -> RequestPlan {
    if !matches!(visit.parts.method, Method::GET | Method::HEAD) {
        return RequestPlan::Pass(ForwardReason::Method, None);
    }
    if !visit.route.cached {
        return RequestPlan::Pass(ForwardReason::Bypass, None);
    }
    if !visit.body.is_empty() {
        return RequestPlan::AwaitBody;
    }
    if visit.wishes.upgrade.is_some() {
        return RequestPlan::Pass(ForwardReason::Bypass, Some("upgrade"));
    }
    key(visit)
}

/// Derives the key, natively or by the route's plugin.
pub(super) fn key(visit: &RoutedRequest<'_>) -> RequestPlan {
    let RoutedRequest {
        parts,
        host,
        scheme,
        route,
        ..
    } = *visit;
    let subject = subject(parts, scheme, host, route);
    let native = || {
        RequestPlan::Cache(DerivedKey {
            key: route.key.build(&subject),
            plugin: None,
        })
    };
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
        KeyDecision::Key { text, parts, .. } => RequestPlan::Cache(DerivedKey {
            key: route.key.build_text(text, parts, &subject),
            plugin: Some(Arc::clone(&decision)),
        }),
        KeyDecision::Bypass { .. } => RequestPlan::Pass(ForwardReason::Bypass, Some("key-plugin")),
        KeyDecision::Refuse { status } => RequestPlan::Refuse(*status),
    }
}

/// Whether a fresh entry is what the request accepts (RFC 9111 §5.2.1), where the route listens to it.
pub fn satisfies(route: &Route, parts: &Parts, entry: &Entry, now: Instant) -> bool {
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

/// Whether the request accepts this stale entry in place of an error (`stale-if-error`,
/// RFC 5861 §4), where the route listens to it.
pub fn accepts_on_error(route: &Route, parts: &Parts, entry: &Entry, now: Instant) -> bool {
    if !route.policy.honors_requests() || entry.is_marked() || entry.freshness.must_revalidate {
        return false;
    }
    let window = RequestDirectives::parse(&parts.headers).stale_if_error;
    let secs = |n: u32| Duration::from_secs(n.into());
    window.is_some_and(|n| entry.freshness.age(now) < entry.freshness.lifetime + secs(n))
}

/// Whether the request asked for nothing stale, where the route listens to it.
pub fn wants_fresh(route: &Route, parts: &Parts) -> bool {
    route.policy.honors_requests() && {
        let asked = RequestDirectives::parse(&parts.headers);
        asked.no_cache || asked.max_age.is_some() || asked.min_fresh.is_some()
    }
}

/// Whether the request takes an entry that is this stale (RFC 9111 §5.2.1.2), where the
/// route listens to it and the response allows it. What a soft purge marked is stale for
/// a reason that no client can weigh.
pub fn tolerates(route: &Route, parts: &Parts, entry: &Entry, now: Instant) -> bool {
    if !route.policy.honors_requests() || entry.freshness.must_revalidate || entry.is_marked() {
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

/// Whether the request wants a stored response or none (RFC 9111 §5.2.1.7).
pub fn only_if_cached(route: &Route, parts: &Parts) -> bool {
    route.policy.honors_requests() && RequestDirectives::parse(&parts.headers).only_if_cached
}
