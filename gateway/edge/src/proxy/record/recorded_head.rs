//! The head of a recorded request, as a key plugin sees it.
//!
//! A plan asks a new version of the plugin for the keys of the last requests. So the heads of those
//! that are kept are kept as well, where a key plugin decides. They are shown to nobody.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

/// The head of a request that a key plugin was asked about.
pub struct RecordedHead {
    /// The plugin's name.
    pub plugin: Box<str>,
    pub host: Box<str>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// A larger head is not kept, in octets.
const MOST: usize = 16 << 10;

impl RecordedHead {
    /// Copies a head, so that nothing keeps the memory that it arrived in. None: it is too large.
    pub fn of(plugin: &str, parts: &Parts, host: &str) -> Option<Self> {
        let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let fields = parts.headers.iter();
        let size: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if size + target.len() + host.len() > MOST {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(parts.headers.len());
        for (name, value) in &parts.headers {
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
        Some(Self {
            plugin: plugin.into(),
            host: host.into(),
            method: parts.method.clone(),
            uri: target.parse().ok()?,
            headers,
        })
    }

    /// The head as a plugin is given it.
    pub fn parts(&self) -> Parts {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = self.method.clone();
        parts.uri = self.uri.clone();
        parts.headers = self.headers.clone();
        parts
    }
}
