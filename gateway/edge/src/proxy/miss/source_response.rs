//! What a source answered, before it is judged.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Response;

use crate::cache::coalesce::LoadFailure;
use crate::cache::entry::Entry;
use crate::cache::policy::UncacheableReason;
use crate::http::body::Body;
use crate::http::memory::{self, ConnectionMemory, PROCESS};
use crate::plugin::{LoadedResponse, RequestReads};

/// What a source answered.
pub enum SourceOutcome {
    Response(SourceResponse),
    /// The loader says that the resource does not exist: the stale copy is dropped, too. Holds what
    /// the loader saw of the request.
    Absent(RequestReads),
    /// The loader wants the stale copy to be served.
    Stale,
    Failed(LoadFailure),
}

/// A response whose body is still arriving.
#[derive(Default)]
pub struct SourceResponse {
    pub response: Response<Body>,
    /// The lifetime that a plugin has set.
    pub ttl: Option<Duration>,
    /// The tags that a plugin has added.
    pub tags: Vec<String>,
    /// The request carried the validators of the stale copy, so a 304 is about that copy.
    pub validates: bool,
    /// What the loader saw of the request.
    pub seen: Option<Box<RequestReads>>,
    /// What the response plugin saw of the request.
    pub looked: Option<Box<RequestReads>>,
    /// Why the response is not to be stored, if a plugin or a rule wants that.
    pub kept_out: Option<UncacheableReason>,
    /// The stored entry that the response continues: either parts that it is combined with, whose
    /// marks it takes over, or the response that it validates.
    pub continues: Option<Arc<Entry>>,
}

impl SourceOutcome {
    /// The same outcome, with what the loader saw of the request.
    pub(super) fn after(mut self, seen: RequestReads) -> Self {
        if let Self::Response(answer) = &mut self {
            answer.seen = Some(Box::new(seen));
        }
        self
    }
}

/// A response from the source, before it is judged.
pub struct ReceivedResponse {
    pub answer: SourceResponse,
    pub at: Instant,
    pub wall: SystemTime,
    /// The time from sending the request to receiving the response's head.
    pub delay: Duration,
}

impl SourceResponse {
    /// A response that a plugin made; its memory is charged to the connection of `memory`.
    pub fn composed(loaded: LoadedResponse, memory: Option<&Arc<ConnectionMemory>>) -> Self {
        let body = memory::claim(loaded.body, &PROCESS, memory);
        let mut response = Response::new(Body::full(body));
        *response.status_mut() = loaded.status;
        *response.headers_mut() = loaded.headers;
        Self {
            response,
            ttl: loaded.ttl,
            tags: loaded.tags,
            ..Self::default()
        }
    }
}
