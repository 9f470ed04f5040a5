//! Errors of our own for what could not be loaded.

use std::time::Instant;

use http::StatusCode;

use crate::cache::coalesce::Failure;
use crate::http::cache_status::{CacheStatus, Forward};
use crate::proxy::metrics::Outcome;
use crate::proxy::route::Route;
use crate::proxy::{Served, pass, respond};

/// The answer to a load that failed; its cause goes to the log, and not to the client.
pub(super) fn answer(route: &Route, reason: Forward, failure: &Failure) -> Served {
    if let Some(dropped) = route.warnings.admit(Instant::now()) {
        tracing::warn!(
            route = &*route.name,
            status = failure.status.as_u16(),
            error = failure.error,
            detail = failure.detail,
            dropped,
            "a load failed"
        );
    }
    let status: CacheStatus<'_> = pass::status(reason, None);
    Served::new(respond::failed(failure, &status), Outcome::Error)
}

/// 504 to `only-if-cached` (RFC 9111 §5.2.1.7).
pub(super) fn not_in_the_cache(reason: Forward) -> Served {
    let status = pass::status(reason, Some("only-if-cached"));
    let mut response = respond::plain(StatusCode::GATEWAY_TIMEOUT, "504 not in the cache\n");
    respond::append_status(response.headers_mut(), &status);
    Served::new(response, Outcome::Error)
}
