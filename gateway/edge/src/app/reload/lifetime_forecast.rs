//! What another configuration makes of the lifetimes of what is stored: each stored response is
//! judged by both policies of its route, as if it came again with the same fields.
//!
//! Lifetimes that a plugin sets are the plugin's in both, so such responses are judged as if it had
//! set none.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde::Serialize;

use crate::cache::entry::Entry;
use crate::cache::policy::{CredentialPresence, Credentials, HttpExchange, Lifetime};
use crate::proxy::Generation;
use crate::proxy::route::Route;

/// By routes, of those whose lifetimes would be different.
pub type LifetimeForecasts = BTreeMap<String, LifetimeForecast>;

/// Stored entries of a route whose responses would get another lifetime if they came again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct LifetimeForecast {
    pub shorter: u64,
    pub longer: u64,
    /// Those that would not be stored.
    pub not_stored: u64,
}

/// The middle of the jitter.
const NO_JITTER: u32 = u32::MAX / 2;

/// Counts an entry that can be reached by both configurations, which was asked for like this.
pub fn count(
    forecasts: &mut LifetimeForecasts,
    entry: &Entry,
    (route, path, asked): (&str, &str, &HeaderMap),
    (before, after): (&Generation, &Generation),
) {
    let judged = |generation: &Generation| {
        let route = generation.routes().named(route)?;
        lifetime(route, entry, path, asked)
    };
    let Some(before) = judged(before) else {
        // It was stored by something that is not known here.
        return;
    };
    let after = judged(after);
    if after == Some(before) {
        return;
    }
    let forecast = forecasts.entry(route.to_owned()).or_default();
    match after {
        None => forecast.not_stored += 1,
        Some(after) if after < before => forecast.shorter += 1,
        Some(_) => forecast.longer += 1,
    }
}

/// The lifetime of the response by the policy of a route. None: it is not stored.
fn lifetime(route: &Route, entry: &Entry, path: &str, asked: &HeaderMap) -> Option<Duration> {
    let exchange = HttpExchange {
        request: asked,
        path,
        status: entry.status,
        response: &entry.headers,
        length: u64::try_from(entry.body.len()).ok(),
        received: SystemTime::now(),
        plugin_ttl: None,
        credentials: Credentials::Keyed,
        authorization: CredentialPresence::Not,
    };
    let terms = route.policy.judge(&exchange, NO_JITTER).ok()?;
    match terms.lifetime {
        Lifetime::OfResponse(lifetime) | Lifetime::FromArrival(lifetime) => Some(lifetime),
    }
}
