//! Comfort around the types of the `key` hook.

use crate::{CacheKey, KeyDecision, KeyInputs, KeyNeeds, KeyRules, QueryNeed};

impl KeyNeeds {
    /// Nothing; add to it.
    pub fn nothing() -> Self {
        Self {
            method: false,
            host: false,
            path: false,
            query: QueryNeed::None,
            headers: Vec::new(),
            cookies: Vec::new(),
        }
    }

    /// Host, path and the whole query: what [`KeyInputs::url`] needs.
    pub fn url() -> Self {
        Self {
            host: true,
            path: true,
            query: QueryNeed::Whole,
            ..Self::nothing()
        }
    }

    /// No query.
    pub fn without_query(mut self) -> Self {
        self.query = QueryNeed::None;
        self
    }

    /// A header, by its name in lower case; `x-*` takes all that begin so.
    pub fn header(mut self, name: &str) -> Self {
        self.headers.push(name.into());
        self
    }

    /// A cookie; `ab_*` takes all that begin so.
    pub fn cookie(mut self, name: &str) -> Self {
        self.cookies.push(name.into());
        self
    }
}

impl KeyRules {
    /// The URL as it is.
    pub fn url() -> Self {
        Self {
            keep: None,
            drop: Vec::new(),
            sort: false,
            headers: Vec::new(),
            cookies: Vec::new(),
        }
    }
}

impl KeyInputs {
    /// `host/path?query`, of what was declared.
    pub fn url(&self) -> String {
        self.url_with_query(self.query.as_deref().unwrap_or(""))
    }

    /// `host/path?query` with another query; without the `?` when it is empty.
    pub fn url_with_query(&self, query: &str) -> String {
        let (host, path) = (
            self.host.as_deref().unwrap_or(""),
            self.path.as_deref().unwrap_or("/"),
        );
        let mark = if query.is_empty() { "" } else { "?" };
        [host, path, mark, query].concat()
    }

    /// The first line of a declared header; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|f| f.name == name)
            .map(|f| f.value.as_str())
    }

    /// A declared cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies
            .iter()
            .find(|f| f.name == name)
            .map(|f| f.value.as_str())
    }
}

impl CacheKey {
    /// A key for a URL, written `host/path?query`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            text: url.into(),
            parts: Vec::new(),
            tags: Vec::new(),
        }
    }

    /// Adds a part: what separates variants of the URL.
    pub fn part(mut self, part: impl Into<String>) -> Self {
        self.parts.push(part.into());
        self
    }

    /// Adds a tag to what is stored under the key.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }
}

impl From<CacheKey> for KeyDecision {
    fn from(key: CacheKey) -> Self {
        Self::Key(key)
    }
}
