//! One form for every spelling of a path, so that routes, keys, purges, the log and the origin all
//! understand a request in the same way.
//!
//! **The normal form** ([`normal`], applied by [`arrive`]) is that of RFC 3986 §6.2.2:
//! percent-encoded unreserved characters are decoded, hexadecimal digits are upper case, octets
//! that are not allowed unencoded get percent-encoded, a percent sign that begins no escape becomes
//! `%25`, dot segments are removed, and an empty path is `/`. The query gets the same form, but
//! keeps its dot segments. Its order, its empty parameters, `+`, escapes of reserved characters,
//! and the characters that browsers do not encode there (``[ ] { } | \ ^ ` ``) stay as they are:
//! origins may tell them apart.
//!
//! **The rules in YAML** ([`PathRules`], [`PathRuleOverrides`]) decide what the RFC leaves to
//! servers:
//! repeated slashes, escaped slashes, backslashes, NUL.
//!
//! **Readings** ([`readings`]) are the other paths that an origin may see in a normal form.
//! A request is answered only if all of them select the route that the normal form selects. These
//! changes are considered, alone and together: escapes decoded, up to [`MOST_DECODINGS`] times
//! (what is encoded more often is refused); slashes merged; backslashes taken for slashes; `;` and
//! what follows it in a segment left out; after decoding, everything behind NUL, `?` or `#` left
//! out; dot segments removed after each of them. These are not considered, because the paths are
//! different ones to HTTP and common servers: upper and lower case, a slash, dot or space at the
//! end, overlong UTF-8. A route for an origin that ignores such a difference needs a pattern that
//! covers all of these paths.
//!
//! **Texts written by people and services** ([`text`]) get the same form: prefixes, patterns and
//! URLs that select what is purged, and the patterns of routes.
//!
//! A path that needs no change costs one pass over a table, and no allocation.

use http::Uri;
use http::uri::PathAndQuery;

mod normal;
mod readings;
mod rules;
pub mod text;

pub use normal::{normal, remove_dot_segments};
pub use readings::{MOST_DECODINGS, PathReadings, readings};
pub use rules::{
    EscapedSlash, PathRuleOverrides, PathRules, RepeatedSlashes, ShapedPath, UnusualOctet,
};

/// Whether a path in normal form can be read as another path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathSpelling {
    /// No: the path rules have nothing to do either.
    Sole,
    /// Perhaps: see [`readings`] and [`PathRules::shape`].
    Several,
}

/// Why a path is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathFault {
    Nul,
    Backslash,
    RepeatedSlashes,
    EscapedSlash,
    /// Percent-encoded more often than [`MOST_DECODINGS`] times.
    TooDeep,
    /// The normal form does not fit into a URI.
    TooLong,
}

impl PathFault {
    /// The reason in words for the client and the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Nul => "the path has a NUL (%00)",
            Self::Backslash => "the path has a backslash",
            Self::RepeatedSlashes => "the path has two slashes in a row",
            Self::EscapedSlash => "the path has a percent-encoded slash",
            Self::TooDeep => "the path is percent-encoded several times",
            Self::TooLong => "the path is too long after percent-encoding",
        }
    }
}

/// Brings the path and the query of a request into their normal form.
///
/// # Errors
/// When the normal form is too long for a URI.
pub fn arrive(uri: &mut Uri) -> Result<PathSpelling, PathFault> {
    let Some(given) = uri.path_and_query() else {
        return Ok(PathSpelling::Sole);
    };
    let given = given.as_str();
    if normal::is_plain(given) {
        return Ok(PathSpelling::Sole);
    }
    let normal = normal(given);
    let changed = normal != given;
    let spelling = match readings::may_differ(path_of(&normal)) {
        true => PathSpelling::Several,
        false => PathSpelling::Sole,
    };
    if changed {
        let target = PathAndQuery::try_from(normal.as_ref()).map_err(|_| PathFault::TooLong)?;
        set(uri, target);
    }
    Ok(spelling)
}

/// Replaces the path and the query of a URI.
pub fn set(uri: &mut Uri, target: PathAndQuery) {
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    *uri = parts.try_into().unwrap_or_default();
}

/// A path together with the query of `uri`.
///
/// # Errors
/// When the two do not form a valid part of a URI.
pub fn with_query(path: &str, uri: &Uri) -> Result<PathAndQuery, PathFault> {
    let target = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target.map_err(|_| PathFault::TooLong)
}

/// The part before the query.
fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or(target)
}

#[cfg(test)]
mod tests;
