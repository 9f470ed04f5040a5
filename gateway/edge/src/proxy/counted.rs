//! An answer of the gateway, with the outcome that it is counted as.

use std::time::Instant;

use http::Response;

use super::metrics::RequestOutcome;
use super::respond::{self, EntryReader};
use crate::cache::entry::Entry;
use crate::http::body::Body;
use crate::http::cache_status::CacheStatus;

/// A response, and the outcome that it is counted as.
pub struct CountedResponse {
    pub(super) response: Response<Body>,
    pub(super) outcome: RequestOutcome,
}

impl CountedResponse {
    pub(super) fn new(response: Response<Body>, outcome: RequestOutcome) -> Self {
        Self { response, outcome }
    }
}

/// Answers with an entry, without asking an origin or a plugin.
pub(super) fn hit<'a>(
    reader: impl Into<EntryReader<'a>>,
    entry: &Entry,
    detail: Option<&str>,
    outcome: RequestOutcome,
    now: Instant,
) -> CountedResponse {
    let age = entry.freshness.age(now);
    let ttl = entry.ttl_at(age, now);
    let status = CacheStatus::Hit { ttl, detail };
    CountedResponse::new(respond::from_entry(reader, entry, age, &status), outcome)
}
