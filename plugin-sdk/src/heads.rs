//! Comfort around the types of the hooks `on-request` and `on-response`.

use crate::load::first_header;
use crate::{
    Header, RequestChange, RequestDecision, RequestHead, Response, ResponseChange,
    ResponseDecision, ResponseHead,
};

fn header(name: &str, value: impl Into<Vec<u8>>) -> Header {
    Header {
        name: name.into(),
        value: value.into(),
    }
}

impl RequestHead {
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or("/")
    }

    /// The first header line of this name, when it is text and the manifest reads it.
    pub fn header(&self, name: &str) -> Option<&str> {
        first_header(&self.headers, name)
    }
}

impl ResponseHead {
    /// The first header line of this name, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        first_header(&self.headers, name)
    }
}

#[allow(clippy::derivable_impls, reason = "the type is generated")]
impl Default for RequestChange {
    fn default() -> Self {
        Self {
            path_and_query: None,
            remove_headers: Vec::new(),
            set_headers: Vec::new(),
        }
    }
}

impl RequestChange {
    /// Another path and query.
    pub fn path(mut self, path_and_query: &str) -> Self {
        self.path_and_query = Some(path_and_query.into());
        self
    }

    /// A header in the place of all lines of its name.
    pub fn set(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.set_headers.push(header(name, value));
        self
    }

    /// Takes a header out.
    pub fn remove(mut self, name: &str) -> Self {
        self.remove_headers.push(name.into());
        self
    }
}

impl Default for ResponseChange {
    fn default() -> Self {
        Self {
            store: true,
            ttl_ms: None,
            tags: Vec::new(),
            remove_headers: Vec::new(),
            set_headers: Vec::new(),
        }
    }
}

impl ResponseChange {
    /// Has the gateway not store it.
    pub fn dont_store(mut self) -> Self {
        self.store = false;
        self
    }

    /// Sets the time to live; counts more than `Cache-Control`.
    pub fn ttl_seconds(mut self, seconds: u64) -> Self {
        self.ttl_ms = Some(seconds.saturating_mul(1_000));
        self
    }

    /// Adds a tag to what is stored.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// A header in the place of all lines of its name.
    pub fn set(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.set_headers.push(header(name, value));
        self
    }

    /// Takes a header out.
    pub fn remove(mut self, name: &str) -> Self {
        self.remove_headers.push(name.into());
        self
    }
}

impl From<RequestChange> for RequestDecision {
    fn from(change: RequestChange) -> Self {
        Self::Change(change)
    }
}

impl From<Response> for RequestDecision {
    fn from(response: Response) -> Self {
        Self::Respond(response)
    }
}

impl From<ResponseChange> for ResponseDecision {
    fn from(change: ResponseChange) -> Self {
        Self::Change(change)
    }
}
