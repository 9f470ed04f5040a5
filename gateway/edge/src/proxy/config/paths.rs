//! Whether a route's path pattern can match a request that is answered.

use crate::http::path::{
    EscapedSlash, PathRuleOverrides, PathRules, RepeatedSlashes, UnusualOctet, readings, text,
};
use crate::pattern::Pattern;

/// A path pattern in the normal form in which paths are matched.
pub fn normal_pattern(pattern: &str) -> String {
    text::pattern(pattern).into_owned()
}

/// Checks one pattern of a route: `all` are the route's patterns, `overrides` its `path` settings,
/// `listeners` the rules of each listener.
///
/// # Errors
/// Returns why no request that it matches is answered, and what to write instead.
pub fn check(
    pattern: &str,
    all: &[String],
    overrides: PathRuleOverrides,
    listeners: &[PathRules],
) -> Result<(), String> {
    let normal = normal_pattern(pattern);
    if text::has_dot_segments(pattern) {
        return Err(format!(
            "{pattern:?} has dot segments, which are removed from a path before it is matched; \
             expected {normal:?}"
        ));
    }
    let refused = |listener: &PathRules| unanswered(&normal, overrides.over(*listener), *listener);
    let reasons: Option<Vec<_>> = listeners.iter().map(refused).collect();
    if let Some(reason) = reasons.and_then(|reasons| reasons.into_iter().next()) {
        return Err(format!(
            "{pattern:?} can match no path that is answered: {reason}"
        ));
    }
    let all: Vec<Pattern> = all
        .iter()
        .map(|one| Pattern::new(&normal_pattern(one)))
        .collect();
    let is_taken = |path: &String| all.iter().any(|pattern| pattern.matches(path));
    let others = readings(&example(&normal)).unwrap_or_default();
    match others.iter().find(|other| !is_taken(other)) {
        None => Ok(()),
        Some(other) => Err(format!(
            "{pattern:?} matches paths that an origin may read as others, such as {other:?}, \
             which this route does not match, so that they are refused (400); expected a pattern \
             for those in the list as well"
        )),
    }
}

/// The reason why paths that a pattern matches are not answered under these rules, if there is one.
fn unanswered(normal: &str, rules: PathRules, listener: PathRules) -> Option<&'static str> {
    let has = |text: &str| normal.contains(text);
    let merges =
        listener.slashes == RepeatedSlashes::Merge || rules.slashes != RepeatedSlashes::Keep;
    let decodes =
        listener.escaped_slash == EscapedSlash::Decode || rules.escaped_slash != EscapedSlash::Keep;
    let reasons = [
        (
            has("%00") && rules.nul == UnusualOctet::Refuse,
            "%00 is refused; expected `path: { nul: keep }` on the route",
        ),
        (
            has("%5C") && rules.backslash == UnusualOctet::Refuse,
            "a backslash is refused; expected `path: { backslash: keep }` on the route",
        ),
        (
            has("//") && merges,
            "repeated slashes are merged or refused; expected single ones, or `slashes: keep`",
        ),
        (
            has("%2F") && decodes,
            "%2F is decoded or refused; expected a slash, or `escaped_slash: keep`",
        ),
    ];
    let found = reasons.into_iter().find(|(applies, _)| *applies);
    found.map(|(_, reason)| reason)
}

/// A path that a pattern matches.
fn example(normal: &str) -> String {
    let mut path = String::with_capacity(normal.len() + 1);
    let mut chars = normal.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' => path.push('x'),
            '\\' => path.extend(chars.next()),
            c => path.push(c),
        }
    }
    match path.starts_with('/') {
        true => path,
        false => format!("/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pattern: &str, more: &[&str], overrides: &str, listener: &str) -> Result<(), String> {
        let all: Vec<String> = [&[pattern], more]
            .concat()
            .iter()
            .map(|p| (*p).to_owned())
            .collect();
        let overrides = serde_yaml::from_str(overrides).unwrap();
        let listener = serde_yaml::from_str(listener).unwrap();
        check(pattern, &all, overrides, &[listener])
    }

    #[test]
    fn a_pattern_that_no_answered_path_matches_is_told() {
        for (pattern, more, overrides, listener, word) in [
            ("/a/../b/*", &[][..], "{}", "{}", Some("\"/b/*\"")),
            ("/%2e/b", &[], "{}", "{}", Some("dot segments")),
            ("/café/*", &[], "{}", "{}", None),
            ("/a/...", &[], "{}", "{}", None),
            ("*.css", &[], "{}", "{}", None),
            ("*", &[], "{}", "{}", None),
            (r"/a\\b", &[], "{}", "{}", Some("backslash: keep")),
            (r"/a\\b", &["/a/b"], "{backslash: keep}", "{}", None),
            ("/a%00", &[], "{}", "{}", Some("nul: keep")),
            ("//x/*", &[], "{}", "{}", Some("\"/x/x\"")),
            ("//x/*", &["/x/*"], "{}", "{}", None),
            ("//x/*", &["/x/*"], "{}", "{slashes: merge}", Some("merged")),
            (
                "//x/*",
                &["/x/*"],
                "{slashes: keep}",
                "{slashes: merge}",
                Some("merged"),
            ),
            (
                "//x/*",
                &["/x/*"],
                "{slashes: keep}",
                "{slashes: refuse}",
                None,
            ),
            (
                "/group%2fproject/*",
                &[],
                "{}",
                "{}",
                Some("\"/group/project/x\""),
            ),
            (
                "/group%2fproject/*",
                &["/group/project/*"],
                "{}",
                "{}",
                None,
            ),
            (
                "/group%2fproject/*",
                &["/group/project/*"],
                "{escaped_slash: decode}",
                "{}",
                Some("decoded"),
            ),
            ("/a;b/*", &[], "{}", "{}", Some("\"/a/x\"")),
        ] {
            let found = judged(pattern, more, overrides, listener);
            match word {
                None => assert_eq!(found, Ok(()), "{pattern} {overrides} {listener}"),
                Some(word) => {
                    let message = found.unwrap_err();
                    assert!(message.contains(word), "{pattern}: {message}");
                }
            }
        }
    }
}
