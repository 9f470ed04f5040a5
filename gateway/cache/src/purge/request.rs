//! What is purged, how, and on whose behalf; and what that means for an entry.

use crate::key::{KeyId, PurgeHash};
use crate::pattern::Pattern;

/// What a purge reaches.
#[derive(Clone, Debug)]
pub enum Selector {
    /// One key with all its variants, by its short name (see [`KeyId`]).
    Key(KeyId),
    /// One URL with every combination of headers, cookies and plugin parts.
    Url(PurgeHash),
    /// URLs (`host/path?query`, or `/path?query` on every host) that begin with this.
    Prefix(String),
    /// URLs in the same forms that match this pattern as a whole.
    Pattern(Pattern),
    Tag(String),
    /// Responses of one origin that share a group (see [`crate::tags::group`]).
    Group(PurgeHash),
    Route(String),
    All,
}

/// How a purge leaves an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeKind {
    /// Hidden from now on.
    Hard,
    /// Stale from now on: it may be served while it is refreshed.
    Soft,
}

/// What the log says about an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryVisibility {
    Visible,
    /// Visible, but made stale by a soft purge.
    Marked,
    /// Purges that reach it may have been missed: it may be used only after its origin has
    /// validated it.
    Doubted,
    Hidden,
}

/// Who asked for a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeInitiator {
    /// The admin API, a `PURGE` request, or another node.
    Operator,
    /// A rule of the configuration, caused by a request of any client.
    Request,
}
