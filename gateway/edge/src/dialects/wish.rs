//! What a request to purge asks for, whatever dialect it is written in.

use std::fmt;

use http::StatusCode;

use crate::cache::purge::PurgeKind;
use crate::dialects::answer::AnswerForm;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeWish {
    pub targets: Vec<PurgeTarget>,
    pub kind: PurgeKind,
    pub answer: AnswerForm,
}

/// One thing that a purge must reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    Everything,
    Tag(String),
    /// All entries of a content type.
    ContentType(String),
    /// A path with its query, on these hosts.
    Page(TargetHosts, String),
    /// All paths that begin with this text, on these hosts.
    Beginning(TargetHosts, String),
    /// All paths, with their queries, that match this text, in which `*` is any run of characters.
    Pattern(TargetHosts, String),
    /// All entries of a route.
    Route(String),
}

/// The hosts on which a path is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetHosts {
    /// The host that the request is addressed to.
    OfRequest,
    Every,
    /// A host, with or without a port.
    One(String),
}

/// Why nothing is purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPurgeRequest {
    pub status: StatusCode,
    pub why: String,
}

impl PurgeWish {
    /// The same, if it names at most so many things.
    ///
    /// # Errors
    /// If it names more.
    pub fn bounded(self, max_selectors: usize) -> Result<Self, InvalidPurgeRequest> {
        let count = self.targets.len();
        match count <= max_selectors {
            true => Ok(self),
            false => Err(InvalidPurgeRequest::malformed(format!(
                "it names {count} things; at most {max_selectors} are taken at once \
                 (purge_method.max_selectors)"
            ))),
        }
    }
}

impl InvalidPurgeRequest {
    /// The request has a known form, and something in it is wrong.
    pub fn malformed(why: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            why: why.into(),
        }
    }

    /// Nothing of this kind is here.
    pub fn not_found(why: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            why: why.into(),
        }
    }

    /// The request has a form that is not known or is switched off.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_IMPLEMENTED,
            why: why.into(),
        }
    }
}

impl fmt::Display for TargetHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfRequest => Ok(()),
            Self::Every => f.write_str("*"),
            Self::One(host) => f.write_str(host),
        }
    }
}

/// In the words of the table of wire forms, and of answers that name what was purged.
impl fmt::Display for PurgeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("all"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::ContentType(kind) => write!(f, "type {kind}"),
            Self::Page(hosts, path) => write!(f, "page {hosts}{path}"),
            Self::Beginning(hosts, path) => write!(f, "prefix {hosts}{path}"),
            Self::Pattern(hosts, path) => write!(f, "pattern {hosts}{path}"),
            Self::Route(name) => write!(f, "route {name}"),
        }
    }
}
