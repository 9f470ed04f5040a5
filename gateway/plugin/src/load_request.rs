//! What a loader is asked for.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method};

/// A request for a loader to answer.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    pub method: Method,
    pub scheme: Scheme,
    /// The host that the client named.
    pub host: String,
    pub path_and_query: PathAndQuery,
    pub headers: HeaderMap,
    /// The whole body. If it is larger than the plugin's `max_body`, the call fails.
    pub body: Bytes,
    /// The name of the route.
    pub route: Arc<str>,
    /// When the answer is not awaited any more; the plugin's own `load_timeout` may end the call
    /// earlier.
    pub deadline: Instant,
}
