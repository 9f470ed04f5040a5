//! Comfort around the types of the `load` hook.

use crate::{Header, LoadDecision, Request, Response};

/// The first header line of this name, when it is text.
pub(crate) fn first_header<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    let line = headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(&line.value).ok()
}

impl Request {
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or("/")
    }

    /// The query without the `?`.
    pub fn query(&self) -> &str {
        self.path_and_query
            .split_once('?')
            .map_or("", |(_, query)| query)
    }

    /// The Nth segment of the path, from 0: 1 is `42` in `/account/42`. None for one that
    /// would lead elsewhere in another path: `..`, `.`, or a slash in disguise.
    pub fn segment(&self, n: usize) -> Option<&str> {
        let segment = self.path().trim_start_matches('/').split('/').nth(n)?;
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        let leads_away = matches!(&*plain, "" | "." | "..")
            || ["%2f", "%5c", "\\"]
                .iter()
                .any(|slash| plain.contains(slash));
        (!leads_away).then_some(segment)
    }

    /// The first header line of this name, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        first_header(&self.headers, name)
    }
}

impl Response {
    /// A response with a body of this media type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let response = Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            ttl_ms: None,
            tags: Vec::new(),
        };
        response.header("content-type", content_type)
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
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
}

impl From<Response> for LoadDecision {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path_and_query: &str) -> Request {
        Request {
            method: "GET".into(),
            scheme: "http".into(),
            host: "shop".into(),
            path_and_query: path_and_query.into(),
            headers: vec![Header {
                name: "Accept".into(),
                value: b"text/html".to_vec(),
            }],
            body: Vec::new(),
        }
    }

    #[test]
    fn a_request_is_read_by_its_parts() {
        let request = request("/account/42?full=1");
        assert_eq!((request.path(), request.query()), ("/account/42", "full=1"));
        assert_eq!(
            (request.segment(0), request.segment(1), request.segment(2)),
            (Some("account"), Some("42"), None)
        );
        assert_eq!(request.header("accept"), Some("text/html"));
    }

    #[test]
    fn a_segment_that_leads_elsewhere_is_none() {
        for segment in ["..", ".", "%2e%2E", ".%2e", "a%2Fb", "a%5cb", "a\\b"] {
            assert_eq!(
                request(&format!("/account/{segment}")).segment(1),
                None,
                "{segment}"
            );
        }
        assert_eq!(request("/account/a..b").segment(1), Some("a..b"));
    }

    #[test]
    fn a_bare_path_has_no_query_and_no_segment() {
        let request = request("/");
        assert_eq!((request.query(), request.segment(0)), ("", None));
    }
}
