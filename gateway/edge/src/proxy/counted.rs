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
    /// The rule of the route that has made it. None: no rule has.
    pub(super) rule: Option<AnsweringRule>,
}

/// A rule of a route that may answer in place of the cache and the origin. Its words are those of
/// the `step` label, of the access log and of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnsweringRule {
    Access,
    Maintenance,
    Redirect,
    TrailingSlash,
    Respond,
    Limit,
    /// To a browser's preflight.
    Cors,
    Auth,
    /// With its page for an error that no other rule has made.
    Errors,
}

impl AnsweringRule {
    pub const ALL: [Self; 9] = [
        Self::Access,
        Self::Maintenance,
        Self::Redirect,
        Self::TrailingSlash,
        Self::Respond,
        Self::Limit,
        Self::Cors,
        Self::Auth,
        Self::Errors,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Maintenance => "maintenance",
            Self::Redirect => "redirect",
            Self::TrailingSlash => "trailing_slash",
            Self::Respond => "respond",
            Self::Limit => "limit",
            Self::Cors => "cors",
            Self::Auth => "auth",
            Self::Errors => "errors",
        }
    }
}

impl CountedResponse {
    pub(super) fn new(response: Response<Body>, outcome: RequestOutcome) -> Self {
        Self {
            response,
            outcome,
            rule: None,
        }
    }

    /// The same, made by this rule of the route.
    pub(super) fn by(self, rule: AnsweringRule) -> Self {
        Self {
            rule: Some(rule),
            ..self
        }
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
