//! The lifetime that a response states, or that a cache may assume (RFC 9111 §4.2).

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, ETAG, EXPIRES, LAST_MODIFIED};

use super::terms::{HttpExchange, Lifetime, LifetimeSource};
use crate::http::cache_control::{FieldForm, ResponseDirectives};
use crate::http::date::{self, FieldDate};

/// Statuses that a cache may keep without explicit freshness (RFC 9110 §15.1), except 206: parts
/// are stored by rules of their own.
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
/// The heuristic share of the time since `Last-Modified` (RFC 9111 §4.2.2), as a divisor, and its
/// upper bound.
const HEURISTIC_SHARE: u32 = 10;
const HEURISTIC_MAX: Duration = Duration::from_secs(86_400);

/// Explicit freshness (RFC 9111 §4.2.1).
pub(super) fn explicit(
    exchange: &HttpExchange<'_>,
    d: &ResponseDirectives,
) -> Option<(Duration, LifetimeSource)> {
    if d.no_cache == FieldForm::Whole {
        return None;
    }
    let secs = |n: u32| Duration::from_secs(n.into());
    if let Some(n) = d.s_maxage {
        return Some((secs(n), LifetimeSource::SMaxage));
    }
    if let Some(n) = d.max_age {
        return Some((secs(n), LifetimeSource::MaxAge));
    }
    if d.targeted {
        return None;
    }
    expires(exchange.response, exchange.received).map(|ttl| (ttl, LifetimeSource::Expires))
}

/// The terms for a response that must be validated before each use (RFC 9111 §5.2.2.4). It is
/// stored if §3 allows, and only with a validator, because nothing else can make it usable.
pub(super) fn never_unvalidated(
    exchange: &HttpExchange<'_>,
    d: &ResponseDirectives,
) -> Option<(Lifetime, LifetimeSource)> {
    let explicit =
        d.max_age.is_some() || d.s_maxage.is_some() || exchange.response.contains_key(EXPIRES);
    let heuristic = d.public || HEURISTIC.contains(&exchange.status.as_u16());
    let validator = has_validator(exchange);
    ((explicit || heuristic) && validator).then_some((
        Lifetime::OfResponse(Duration::ZERO),
        LifetimeSource::Validator,
    ))
}

/// Whether it has a validator that a later request can send (RFC 9111 §4.3.1).
fn has_validator(exchange: &HttpExchange<'_>) -> bool {
    let modified = || date::field(exchange.response, &LAST_MODIFIED, exchange.received).at();
    exchange.response.contains_key(ETAG) || modified().is_some()
}

/// `Expires` minus `Date`. Several lines or an invalid one mean already expired (RFC 9111 §5.3).
fn expires(headers: &HeaderMap, received: SystemTime) -> Option<Duration> {
    match date::field(headers, &EXPIRES, received) {
        FieldDate::Absent => None,
        FieldDate::Invalid => Some(Duration::ZERO),
        FieldDate::At(at) => {
            let sent = date::field(headers, &DATE, received)
                .at()
                .unwrap_or(received);
            Some(at.duration_since(sent).unwrap_or_default())
        }
    }
}

/// Heuristic freshness (RFC 9111 §4.2.2); without it, a lifetime of zero if there is a validator.
pub(super) fn heuristic(
    exchange: &HttpExchange<'_>,
    d: &ResponseDirectives,
) -> Option<(Lifetime, LifetimeSource)> {
    if !HEURISTIC.contains(&exchange.status.as_u16()) && !d.public {
        return None;
    }
    let headers = exchange.response;
    let modified = date::field(headers, &LAST_MODIFIED, exchange.received).at();
    let sent = date::field(headers, &DATE, exchange.received)
        .at()
        .unwrap_or(exchange.received);
    let share = modified
        .and_then(|at| sent.duration_since(at).ok())
        .map(|d| (d / HEURISTIC_SHARE).min(HEURISTIC_MAX));
    match share {
        Some(ttl) => Some((Lifetime::OfResponse(ttl), LifetimeSource::Heuristic)),
        None => has_validator(exchange).then_some((
            Lifetime::OfResponse(Duration::ZERO),
            LifetimeSource::Validator,
        )),
    }
}
