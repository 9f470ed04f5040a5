//! What hooks decide: the guests' answers after `check` has looked at them.
//!
//! Plain values without a way back into the plugin: `proxy` acts on them.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Request, StatusCode};

use crate::http::forward;

/// What `key` decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyDecision {
    /// The route's own key.
    Default,
    /// This key.
    Key {
        /// The URL that stands for the request, as `host/path?query`.
        text: String,
        /// What separates variants of that URL; a purge of the URL takes all.
        parts: Vec<String>,
        /// Tags for what is stored.
        tags: Vec<String>,
    },
    /// Go past the cache.
    Bypass {
        /// For the log.
        reason: String,
    },
    /// Answer with this status, 400 to 599.
    Refuse { status: StatusCode },
}

/// What `on-request` decided.
#[derive(Debug)]
pub enum RequestDecision {
    /// On with it, as it is.
    Next,
    /// On with it, changed.
    Change {
        path_and_query: Option<PathAndQuery>,
        headers: HeaderChange,
    },
    /// This answer, at once.
    Respond(LoadedResponse),
    /// This status, 400 to 599, at once.
    Refuse(StatusCode),
}

/// How `on-response` changes a response.
#[derive(Debug)]
pub struct ResponseChange {
    /// Whether it may be stored, as far as the plugin is concerned.
    pub store: bool,
    /// Time to live; counts more than `Cache-Control`.
    pub ttl: Option<Duration>,
    /// Further tags.
    pub tags: Vec<String>,
    pub headers: HeaderChange,
}

/// How headers are changed: first these go, then those are set.
#[derive(Debug, Default)]
pub struct HeaderChange {
    pub remove: Vec<HeaderName>,
    pub set: HeaderMap,
}

/// What `load` decided.
#[derive(Debug)]
pub enum LoadDecision {
    /// The response.
    Response(LoadedResponse),
    /// The route's upstream is to answer this request; its URI is absolute.
    Pass(Request<Bytes>),
    /// There is no such thing, and no stale copy of it any more.
    Absent,
    /// The stale copy if there is one, else a failure.
    Stale { reason: String },
    /// A failure. The reason is for the log, never for a client.
    Error { reason: String },
}

/// A response made by a loader.
#[derive(Debug)]
pub struct LoadedResponse {
    /// 200 to 599.
    pub status: StatusCode,
    /// Without headers of the connection; `Content-Length` is true.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Time to live; counts more than `Cache-Control`.
    pub ttl: Option<Duration>,
    /// Tags besides those in the headers.
    pub tags: Vec<String>,
}

impl HeaderChange {
    /// Without `Host`: route and key went by the one that came.
    pub(super) fn but_host(mut self) -> Self {
        self.remove.retain(|name| *name != HOST);
        self.set.remove(HOST);
        self
    }

    /// Makes the change.
    pub fn apply(&self, headers: &mut HeaderMap) {
        // `X_User` is the same variable as `X-User` to many a server.
        for name in self.remove.iter().chain(self.set.keys()) {
            forward::remove_spellings(headers, name);
        }
        for (name, value) in &self.set {
            headers.append(name, value.clone());
        }
    }
}
