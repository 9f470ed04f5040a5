//! The rules in YAML for spellings that servers do not agree on.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PathFault;
use super::normal::remove_dot_segments;

/// How paths are read on a listener. A route's own `path` takes precedence.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathRules {
    /// Two or more slashes in a row.
    pub slashes: RepeatedSlashes,
    /// A percent-encoded slash (`%2F`).
    pub escaped_slash: EscapedSlash,
    /// A backslash, as it is or as `%5C`.
    pub backslash: UnusualOctet,
    /// A percent-encoded NUL (`%00`).
    pub nul: UnusualOctet,
}

/// How paths are read on a route; rules that it does not set are those of the listener. The route
/// is chosen by the path as the listener's rules read it, and the path that results from the
/// route's own rules must select the same route (400 otherwise).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathRuleOverrides {
    /// Two or more slashes in a row.
    pub slashes: Option<RepeatedSlashes>,
    /// A percent-encoded slash (`%2F`).
    pub escaped_slash: Option<EscapedSlash>,
    /// A backslash, as it is or as `%5C`.
    pub backslash: Option<UnusualOctet>,
    /// A percent-encoded NUL (`%00`).
    pub nul: Option<UnusualOctet>,
}

/// What is done with two or more slashes in a row.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RepeatedSlashes {
    /// The origin gets them unchanged.
    #[default]
    Keep,
    /// They become one slash.
    Merge,
    /// The request is refused (400).
    Refuse,
}

/// What is done with a percent-encoded slash.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EscapedSlash {
    /// The origin gets it unchanged.
    #[default]
    Keep,
    /// It becomes a slash.
    Decode,
    /// The request is refused (400).
    Refuse,
}

/// What is done with an octet that paths do not normally contain.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnusualOctet {
    /// The request is refused (400).
    #[default]
    Refuse,
    /// The origin gets it, percent-encoded.
    Keep,
}

/// The result of applying the rules to a path.
pub struct ShapedPath<'a> {
    pub path: Cow<'a, str>,
    /// Why the request is refused, if it is.
    pub fault: Option<PathFault>,
}

impl PathRuleOverrides {
    /// The rules that apply on a listener with the rules `listener`.
    pub fn over(self, listener: PathRules) -> PathRules {
        PathRules {
            slashes: self.slashes.unwrap_or(listener.slashes),
            escaped_slash: self.escaped_slash.unwrap_or(listener.escaped_slash),
            backslash: self.backslash.unwrap_or(listener.backslash),
            nul: self.nul.unwrap_or(listener.nul),
        }
    }
}

impl PathRules {
    /// Applies the rules to a path in normal form. The result is in normal form, too.
    pub fn shape(self, path: &str) -> ShapedPath<'_> {
        let mut shaped = Cow::Borrowed(path);
        if self.escaped_slash == EscapedSlash::Decode && path.contains("%2F") {
            shaped = Cow::Owned(remove_dot_segments(&path.replace("%2F", "/")));
        }
        let fault = self.fault(&shaped);
        if self.slashes == RepeatedSlashes::Merge && shaped.contains("//") {
            shaped = Cow::Owned(merge_slashes(&shaped));
        }
        ShapedPath {
            path: shaped,
            fault,
        }
    }

    fn fault(self, path: &str) -> Option<PathFault> {
        let refused = [
            (self.nul == UnusualOctet::Refuse, "%00", PathFault::Nul),
            (
                self.backslash == UnusualOctet::Refuse,
                "%5C",
                PathFault::Backslash,
            ),
            (
                self.slashes == RepeatedSlashes::Refuse,
                "//",
                PathFault::RepeatedSlashes,
            ),
            (
                self.escaped_slash == EscapedSlash::Refuse,
                "%2F",
                PathFault::EscapedSlash,
            ),
        ];
        let found = refused
            .into_iter()
            .find(|(refuses, text, _)| *refuses && path.contains(text));
        found.map(|(_, _, fault)| fault)
    }
}

/// A path with each run of slashes replaced by one.
pub(super) fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}
