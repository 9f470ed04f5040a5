//! Error responses of our own, for requests whose answer could not be loaded.

use std::time::Instant;

use http::StatusCode;

use crate::cache::coalesce::LoadFailure;
use crate::http::cache_status::{CacheStatus, ForwardReason};
use crate::proxy::counted::{AnsweringRule, CountedResponse};
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::respond;
use crate::proxy::route::Route;
use crate::proxy::rules::limits::is_refusal;

/// The answer to a load that failed. Its cause goes to the log, and not to the client.
pub(super) fn answer(
    route: &Route,
    reason: ForwardReason,
    failure: &LoadFailure,
) -> CountedResponse {
    // A limit writes its own line.
    if !is_refusal(failure)
        && let Some(dropped) = route.warnings.admit(Instant::now())
    {
        tracing::warn!(
            route = &*route.name,
            status = failure.status.as_u16(),
            error = failure.error,
            detail = failure.detail,
            dropped,
            "a load failed"
        );
    }
    let status = CacheStatus::not_stored(reason, None);
    let answer = CountedResponse::new(respond::failed(failure, &status), RequestOutcome::Error);
    match is_refusal(failure) {
        true => answer.by(AnsweringRule::Limit),
        false => answer,
    }
}

/// The 504 response to `only-if-cached` (RFC 9111 §5.2.1.7).
pub(super) fn not_in_the_cache(reason: ForwardReason) -> CountedResponse {
    let status = CacheStatus::not_stored(reason, Some("only-if-cached"));
    let mut response = respond::plain(StatusCode::GATEWAY_TIMEOUT, "504 not in the cache\n");
    respond::append_status(response.headers_mut(), &status);
    CountedResponse::new(response, RequestOutcome::Error)
}
