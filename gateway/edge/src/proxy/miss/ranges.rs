//! Ranges of responses that are not stored as a whole: on routes with `ranges: parts`, and of
//! responses that are too large to store, unless `ranges: whole` forbids it. They are answered from
//! stored parts if these hold everything that is asked for (RFC 9111 §3.3). What is missing is
//! loaded like everything else, but under a key of its own; see [`combine`](super::combine).

use std::time::Instant;

use http::header::{CONTENT_RANGE, IF_RANGE, RANGE};
use http::request::Parts as Request;
use http::{HeaderValue, Method, Response, StatusCode};

use crate::cache::Cache;
use crate::cache::config::RangeLoadMode;
use crate::cache::entry::Entry;
use crate::cache::freshness::FreshnessState;
use crate::cache::key::{EntryKey, KeyBuf};
use crate::http::body::Body;
use crate::http::cache_status::CacheStatus;
use crate::http::memory::stored::ReadsStored;
use crate::http::{conditional, range};
use crate::proxy::context::RequestContext;
use crate::proxy::counted::CountedResponse;
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::plan;
use crate::proxy::respond::{self, ConditionalOutcome};
use crate::proxy::route::Route;

/// What stored parts can do for a request.
pub enum StoredParts {
    /// There are none, or none that is fresh.
    Nothing,
    /// There are some, but not all that the request asks for.
    TooLittle,
    Answer(CountedResponse),
}

/// Whether a route may store parts. A loader is always asked for the whole.
pub fn are_kept(route: &Route) -> bool {
    route.policy.ranges != RangeLoadMode::Whole && route.loader.is_none()
}

/// Whether the request's range may be loaded by itself: it is a single range, and there is no
/// precondition that could lead to an answer other than a part or the whole.
pub fn loadable(ask: &RequestContext) -> bool {
    are_kept(&ask.route)
        && ask.parts.method == Method::GET
        && range::is_single(&ask.parts.headers)
        && !conditional::has_preconditions(&ask.parts.headers)
}

/// Whether a range that may be loaded by itself should not make us load the whole: the route says
/// so, or the whole is larger than the cache takes.
pub fn preferred(ask: &RequestContext, cache: &Cache, key: &KeyBuf) -> bool {
    let most = cache.rules().max_object_bytes as u64;
    let begins_beyond = || range::begins_at(&ask.parts.headers).is_some_and(|at| at >= most);
    ask.route.policy.ranges == RangeLoadMode::Parts || cache.large.knows(key) || begins_beyond()
}

/// The key of a load for the request's range. Two such requests share an answer only if they ask
/// for the same octets under the same condition.
pub fn load_key(key: &EntryKey, request: &Request) -> EntryKey {
    let line = |name| {
        request
            .headers
            .get(name)
            .map_or(&b""[..], HeaderValue::as_bytes)
    };
    key.of_range(line(RANGE), line(IF_RANGE))
}

/// What the stored parts can do for a range request.
pub(super) fn stored_parts(cache: &Cache, ask: &RequestContext, key: &KeyBuf) -> StoredParts {
    let asks = ask.parts.method == Method::GET && ask.parts.headers.contains_key(RANGE);
    if !asks || !are_kept(&ask.route) {
        return StoredParts::Nothing;
    }
    let now = Instant::now();
    let fresh = |entry: &Entry| {
        entry.state(now) == FreshnessState::Fresh
            && plan::satisfies(&ask.route, &ask.parts, entry, now)
    };
    let found = cache.parts(&key.of_parts(), &ask.parts.headers);
    let Some(entry) = found.filter(|entry| fresh(entry)) else {
        return StoredParts::Nothing;
    };
    match answer(&ask.parts, &entry, now) {
        Some(response) => StoredParts::Answer(CountedResponse::new(response, RequestOutcome::Hit)),
        None => StoredParts::TooLittle,
    }
}

/// The answer from stored parts, if they hold all of it.
fn answer(request: &Request, entry: &Entry, now: Instant) -> Option<Response<Body>> {
    let held = entry.parts.as_ref()?;
    // If the length is unknown, no position is beyond the end.
    let length = held.length.unwrap_or(u64::MAX);
    let (first, last) =
        match respond::special(request, StatusCode::OK, &entry.headers, Some(length)) {
            ConditionalOutcome::NotModified => {
                return Some(closed(respond::not_modified(&entry.headers), entry, now));
            }
            ConditionalOutcome::Unsatisfiable(length) if held.length.is_some() => {
                return Some(closed(respond::unsatisfiable(length), entry, now));
            }
            ConditionalOutcome::Part(first, last) if held.missing(first, last).is_none() => {
                (first, last)
            }
            ConditionalOutcome::Part(..) => held.answered(request.headers.get(RANGE)?)?,
            ConditionalOutcome::Whole
            | ConditionalOutcome::Parts(_)
            | ConditionalOutcome::Unsatisfiable(_) => return None,
        };
    let body = Body::slices(held.slices(first, last)?);
    let mut response = respond::whole(StatusCode::PARTIAL_CONTENT, entry.headers.clone(), body);
    let reads = ReadsStored::Several(held.readers(first, last));
    response.extensions_mut().insert(reads);
    let place = range::content_range(first, last, held.length);
    response.headers_mut().insert(CONTENT_RANGE, place);
    Some(closed(response, entry, now))
}

fn closed(mut response: Response<Body>, entry: &Entry, now: Instant) -> Response<Body> {
    let status = CacheStatus::Hit {
        ttl: entry.ttl(now),
        detail: None,
    };
    respond::finish(&mut response, entry.freshness.age(now), &status);
    response
}
