//! The few forms of regular expressions that clients send. None is ever run: each is read as the
//! list, the text or the beginning that it stands for, or refused.

use std::borrow::Cow;

use super::host::is_host;

/// The beginning of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathExpression {
    /// All paths.
    Any,
    /// Paths that begin so.
    Beginning(String),
    /// This path alone.
    Whole(String),
}

/// The most bytes of a beginning, since other nodes get it, too.
pub const LONGEST_BEGINNING: usize = 8 << 10;

/// An expression in a path as its sender wrote it: letters that stand for themselves in no URL were
/// percent-encoded when the request arrived.
pub fn as_written(path: &str) -> Cow<'_, str> {
    const ENCODED: [(&str, &str); 7] = [
        ("%5C", "\\"),
        ("%5B", "["),
        ("%5D", "]"),
        ("%7C", "|"),
        ("%5E", "^"),
        ("%7B", "{"),
        ("%7D", "}"),
    ];
    let mut text = Cow::Borrowed(path);
    for (encoded, letter) in ENCODED {
        for encoded in [encoded.to_owned(), encoded.to_ascii_lowercase()] {
            if text.contains(&encoded) {
                text = Cow::Owned(text.replace(&encoded, letter));
            }
        }
    }
    text
}

/// The one text that a regular expression stands for. An unescaped dot counts as a dot. None if it
/// may match several texts.
pub fn literal(expression: &str) -> Option<String> {
    let mut text = String::with_capacity(expression.len());
    let mut letters = expression.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(
                letters
                    .next()
                    .filter(|next| !next.is_ascii_alphanumeric())?,
            ),
            '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            _ => text.push(letter),
        }
    }
    Some(text)
}

/// `a|b`: texts with `|` in between, which is not escaped. None for anything else, and for an empty
/// text.
pub fn alternatives(expression: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut letters = expression.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '|' => parts.push(String::new()),
            letter => {
                let part = parts.last_mut()?;
                part.push(letter);
                if letter == '\\' {
                    part.push(letters.next()?);
                }
            }
        }
    }
    let texts = parts.iter().map(|part| literal(part));
    texts
        .map(|text| text.filter(|text| !text.is_empty()))
        .collect()
}

/// What is between these two texts.
pub fn between<'a>(expression: &'a str, before: &str, after: &str) -> Option<&'a str> {
    expression.strip_prefix(before)?.strip_suffix(after)
}

/// `(ONE)|(OTHER)`: what is in the parentheses of each, which has this beginning and end.
pub fn in_parentheses(expression: &str, before: &str, after: &str) -> Option<Vec<String>> {
    let inner = between(expression, "(", ")")?;
    let parts = inner.split(")|(");
    let texts = parts.map(|part| literal(between(part, before, after)?));
    texts
        .map(|text| text.filter(|text| !text.is_empty()))
        .collect()
}

/// A path, or the beginning of paths: `.*`, `^/x`, `/x`, `^/x.*`, `^/x$`. What is not bound to the
/// end of a path is a beginning, and so is what ends in open dots, which stand for any letters.
/// None for anything else.
pub fn path(expression: &str) -> Option<PathExpression> {
    if matches!(expression, ".*" | "^.*" | "(.*)" | "^.*$" | ".") {
        return Some(PathExpression::Any);
    }
    let text = expression.strip_prefix('^').unwrap_or(expression);
    let (text, is_whole) = match text.strip_suffix('$') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let any_letters = || {
        let rest = text.trim_end_matches('.');
        // An escaped dot is one.
        let rest = match rest.ends_with('\\') {
            true => text.get(..rest.len() + 1)?,
            false => rest,
        };
        (rest.len() < text.len()).then_some(rest)
    };
    let open = [".*", "(.*)"]
        .into_iter()
        .find_map(|all| text.strip_suffix(all))
        .or_else(any_letters);
    let path = literal(open.unwrap_or(text)).filter(|path| path.starts_with('/'))?;
    match (path.as_str(), is_whole && open.is_none()) {
        (_, true) => Some(PathExpression::Whole(path)),
        ("/", false) => Some(PathExpression::Any),
        (_, false) => Some(PathExpression::Beginning(path)),
    }
}

/// Hosts: `^(h1|h2)$`, `^h$`, or `h`, which is that host alone. None for anything else.
pub fn hosts(expression: &str) -> Option<Vec<String>> {
    let inner = expression.strip_prefix('^').unwrap_or(expression);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let hosts = match between(inner, "(", ")") {
        Some(list) => alternatives(list)?,
        None => vec![literal(inner)?],
    };
    hosts.iter().all(|host| is_host(host)).then_some(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Option<Vec<String>> {
        Some(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn only_what_stands_for_one_text_is_one() {
        assert_eq!(literal("a.b\\.c\\-\\|"), Some("a.b.c-|".to_owned()));
        for several in ["a*", "a+", "(a)", "[a]", "a|b", "^a", "a\\d", "a\\"] {
            assert_eq!(literal(several), None, "{several}");
        }
    }

    #[test]
    fn an_expression_that_arrived_as_a_path_is_read_as_it_was_written() {
        assert_eq!(as_written("/a%5C.html%5b0%7C1%5D"), "/a\\.html[0|1]");
        assert_eq!(as_written("/a%20b"), "/a%20b");
    }

    #[test]
    fn lists_are_read_as_lists() {
        assert_eq!(alternatives("a|b\\|c|d\\.e"), texts(&["a", "b|c", "d.e"]));
        for other in ["", "a||b", "a|b*", "|", "a|\\"] {
            assert_eq!(alternatives(other), None, "{other}");
        }
        let both = "((^|,)a(,|$))|((^|,)b\\.c(,|$))";
        assert_eq!(in_parentheses(both, "(^|,)", "(,|$)"), texts(&["a", "b.c"]));
        assert_eq!(in_parentheses("((^|,)a(,|$))|b", "(^|,)", "(,|$)"), None);
    }

    #[test]
    fn paths_and_hosts_are_read_as_such() {
        let beginning = |path: &str| Some(PathExpression::Beginning(path.to_owned()));
        assert_eq!(path(".*"), Some(PathExpression::Any));
        assert_eq!(path("^/news/"), beginning("/news/"));
        assert_eq!(path("/news/.*"), beginning("/news/"));
        assert_eq!(path("^/user/."), beginning("/user/"));
        assert_eq!(path("^/user/.$"), beginning("/user/"));
        assert_eq!(path("^/user/\\."), beginning("/user/."));
        assert_eq!(path("^/user/.."), beginning("/user/"));
        assert_eq!(path("^/user/\\..."), beginning("/user/."));
        assert_eq!(
            path("^/a\\.html$"),
            Some(PathExpression::Whole("/a.html".to_owned()))
        );
        for other in ["", "news", "^/(a|b)", "/a.*b", "[0-9]", "^/a/[0-9]+$"] {
            assert_eq!(path(other), None, "{other}");
        }
        assert_eq!(
            hosts("^(a.example|b\\.example)$"),
            texts(&["a.example", "b.example"])
        );
        assert_eq!(hosts("shop.example:8080"), texts(&["shop.example:8080"]));
        for other in [
            "",
            ".*",
            "^(a|.*)$",
            "*.example",
            "a/b",
            "a,b",
            "^a|b$",
            "a|b",
        ] {
            assert_eq!(hosts(other), None, "{other}");
        }
    }
}
