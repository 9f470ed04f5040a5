//! HTTP requests to the upstreams that the YAML grants this plugin.
//!
//! ```no_run
//! use lamina_plugin::fetch::{self, FetchRequest};
//!
//! let answers = fetch::all(&[
//!     FetchRequest::get("shop", "/api/user/42"),
//!     FetchRequest::get("shop", "/api/orders/42").header("accept", "application/json"),
//! ]);
//! for answer in answers {
//!     match answer {
//!         Ok(response) => println!("{}", response.status),
//!         Err(error) => println!("{error}"),
//!     }
//! }
//! ```

use crate::Header;
use crate::bindings::loading::lamina::plugin::fetch as import;
pub use crate::bindings::loading::lamina::plugin::fetch::{
    FetchError, FetchRequest, FetchResponse,
};

/// Sends one request and waits for the whole answer.
pub fn one(request: &FetchRequest) -> Result<FetchResponse, FetchError> {
    import::fetch(request)
}

/// Sends all requests at once and waits for all answers; they come in the order of
/// the requests.
pub fn all(requests: &[FetchRequest]) -> Vec<Result<FetchResponse, FetchError>> {
    import::fetch_all(requests)
}

impl FetchRequest {
    /// A `GET` for a path, and perhaps a query, of an upstream.
    pub fn get(upstream: &str, path_and_query: &str) -> Self {
        Self {
            upstream: upstream.into(),
            method: "GET".into(),
            path_and_query: path_and_query.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: None,
        }
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Waits this long at most.
    pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.timeout_ms = Some(milliseconds);
        self
    }
}

impl FetchResponse {
    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header line of this name, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        crate::load::first_header(&self.headers, name)
    }
}
