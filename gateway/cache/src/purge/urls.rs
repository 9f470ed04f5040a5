//! Selectors that are compared with an entry's URL.

use crate::pattern::Pattern;

/// URLs of one kind.
#[derive(Clone, PartialEq, Debug)]
pub enum UrlSelector {
    /// URLs that begin with this text, without a scheme.
    Prefix(String),
    /// URLs that match this pattern as a whole, without a scheme.
    Pattern(Pattern),
}

/// The part of an entry's URL with which a text is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UrlAnchor {
    /// `host/path?query`.
    Host,
    /// `/path?query`, on every host.
    Path,
}

impl UrlAnchor {
    pub(super) const ALL: [Self; 2] = [Self::Host, Self::Path];

    /// The anchor of a prefix, or of a pattern's source, by how it begins.
    pub(super) fn of(text: &str) -> Self {
        match text.starts_with('/') {
            true => Self::Path,
            false => Self::Host,
        }
    }

    /// The part of `url` that is compared.
    pub(super) fn subject(self, url: &str) -> &str {
        match self {
            Self::Host => url,
            Self::Path => path(url),
        }
    }
}

impl UrlSelector {
    /// URLs that begin with `prefix`.
    pub fn beginning(prefix: &str) -> Self {
        Self::Prefix(strip_scheme(prefix).to_owned())
    }

    /// URLs that match `pattern`.
    pub fn like(pattern: &Pattern) -> Self {
        Self::Pattern(without_scheme(pattern))
    }

    /// Whether `url` (`host/path?query`) is one of them.
    pub fn matches(&self, url: &str) -> bool {
        match self {
            Self::Prefix(prefix) => UrlAnchor::of(prefix).subject(url).starts_with(prefix),
            Self::Pattern(pattern) => pattern.matches(UrlAnchor::of(pattern.as_str()).subject(url)),
        }
    }

    /// Whether it is certain that all URLs that begin with `cut` are among them.
    pub fn matches_all_from(&self, cut: &str) -> bool {
        let is_open = match self {
            Self::Prefix(_) => true,
            Self::Pattern(pattern) => pattern.is_open(),
        };
        is_open && self.matches(cut)
    }
}

/// The part of `host/path?query` without the host.
fn path(url: &str) -> &str {
    url.find('/').map_or("", |at| &url[at..])
}

pub(super) fn without_scheme(pattern: &Pattern) -> Pattern {
    Pattern::new(strip_scheme(pattern.as_str()))
}

pub(super) fn strip_scheme(url: &str) -> &str {
    url.strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .unwrap_or(url)
}
