//! The decisions of hooks: the guests' answers after `check` has validated them.
//!
//! Plain values without a connection to the plugin; `proxy` acts on them.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Request, StatusCode};

use crate::http::forward;

/// What `key` decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyDecision {
    /// Use the route's own key.
    Default,
    /// Use this key.
    Key {
        /// The URL that identifies the request, as `host/path?query`.
        text: String,
        /// What distinguishes variants of that URL; a purge of the URL purges all of them.
        parts: Vec<String>,
        /// Tags for the entry that is stored.
        tags: Vec<String>,
    },
    /// Do not use the cache.
    Bypass {
        /// The reason, for the log.
        reason: String,
    },
    /// Answer with this status, 400 to 599.
    Refuse { status: StatusCode },
}

/// What `on-request` decided.
#[derive(Debug)]
pub enum RequestDecision {
    /// Continue with the request unchanged.
    Next,
    /// Continue with the changed request.
    Change {
        path_and_query: Option<PathAndQuery>,
        headers: HeaderChange,
    },
    /// Send this response at once.
    Respond(LoadedResponse),
    /// Answer with this status, 400 to 599, at once.
    Refuse(StatusCode),
}

/// How `on-response` changes a response.
#[derive(Debug)]
pub struct ResponseChange {
    /// Whether the plugin allows the response to be stored.
    pub store: bool,
    /// Time to live; overrides `Cache-Control`.
    pub ttl: Option<Duration>,
    /// Additional tags.
    pub tags: Vec<String>,
    pub headers: HeaderChange,
}

/// How headers are changed: `remove` first, then `set`.
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
    /// Let the route's upstream answer this request; its URI is absolute.
    Pass(Request<Bytes>),
    /// The resource does not exist; a stale copy must not be used either.
    Absent,
    /// Use the stale copy if there is one; otherwise it is a failure.
    Stale { reason: String },
    /// A failure. The reason is for the log, never for a client.
    Error { reason: String },
}

/// A response made by a loader.
#[derive(Debug)]
pub struct LoadedResponse {
    /// The status, 200 to 599.
    pub status: StatusCode,
    /// Without headers of the connection; `Content-Length` is correct.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Time to live; overrides `Cache-Control`.
    pub ttl: Option<Duration>,
    /// Tags in addition to those in the headers.
    pub tags: Vec<String>,
}

impl HeaderChange {
    /// Removes changes of `Host`: route and key were chosen by the original one.
    pub(super) fn but_host(mut self) -> Self {
        self.remove.retain(|name| *name != HOST);
        self.set.remove(HOST);
        self
    }

    /// Applies the change to `headers`.
    pub fn apply(&self, headers: &mut HeaderMap) {
        // Many servers treat `X_User` as the same variable as `X-User`.
        for name in self.remove.iter().chain(self.set.keys()) {
            forward::remove_spellings(headers, name);
        }
        for (name, value) in &self.set {
            headers.append(name, value.clone());
        }
    }
}
