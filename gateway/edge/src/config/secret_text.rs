//! Secrets within texts that are shown: passwords and parameters of URLs, and arguments of programs.

use std::ops::Range;

/// What stands for a secret.
pub const HIDDEN: &str = "***";

/// A header field, a parameter or an argument whose name contains one of these is hidden: rather too
/// many.
const SECRET_WORDS: [&str; 10] = [
    "auth",
    "bearer",
    "cookie",
    "credential",
    "key",
    "pass",
    "pwd",
    "secret",
    "signature",
    "token",
];

/// Whether what has this name may be what somebody is known by.
pub fn may_be_credentials(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// A text without the passwords in its URLs, and without what may be credentials in their queries.
pub fn without_secrets(text: &str) -> String {
    let mut shown = text.to_owned();
    let mut all: Vec<_> = users(text).chain(parameters(text)).collect();
    all.sort_by_key(|range| range.start);
    // From the end on, so that the places before stay what they are.
    let mut rest = text.len();
    for hidden in all.into_iter().rev() {
        if hidden.end <= rest {
            rest = hidden.start;
            shown.replace_range(hidden, HIDDEN);
        }
    }
    shown
}

/// Where the passwords of users stand in URLs.
fn users(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").filter_map(|(at, mark)| {
        let begin = at + mark.len();
        let rest = &text[begin..];
        let ends = |c: char| matches!(c, '/' | '?' | '#' | '"') || c.is_whitespace();
        let authority = rest.split(ends).next()?;
        let (credentials, _) = authority.rsplit_once('@')?;
        let user = credentials.find(':').map_or(0, |colon| colon + 1);
        Some(begin + user..begin + credentials.len())
    })
}

/// Where the values of parameters stand that may be credentials.
fn parameters(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices(['?', '&']).filter_map(|(at, _)| {
        let rest = &text[at + 1..];
        let ends = |c: char| matches!(c, '&' | '#' | '"' | '{') || c.is_whitespace();
        let pair = rest.split(ends).next()?;
        let (name, value) = pair.split_once('=')?;
        let begin = at + 1 + name.len() + 1;
        (may_be_credentials(name) && !value.is_empty()).then(|| begin..begin + value.len())
    })
}

/// The arguments of a program without what may be credentials: `--token X`, `--token=X`, `TOKEN=X`.
pub fn arguments_without_secrets<'a>(arguments: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut is_awaited = false;
    let shown = arguments.map(|argument| {
        let is_option = argument.starts_with('-');
        if std::mem::take(&mut is_awaited) && !is_option {
            return HIDDEN.to_owned();
        }
        match argument.split_once('=') {
            Some((name, _)) if may_be_credentials(name) => format!("{name}={HIDDEN}"),
            Some(_) => without_secrets(argument),
            None => {
                is_awaited = is_option && may_be_credentials(argument);
                without_secrets(argument)
            }
        }
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passwords_in_urls_are_hidden() {
        for (url, shown) in [
            ("redis://:pw@h/0", "redis://:***@h/0"),
            ("amqp://me:p@w@h:1", "amqp://me:***@h:1"),
            ("nats://pw@h", "nats://***@h"),
            ("redis://me:***@h", "redis://me:***@h"),
            (
                "a http://x/ b http://u:pw@h/",
                "a http://x/ b http://u:***@h/",
            ),
            ("\"ftp://u:pw@h\" is not", "\"ftp://u:***@h\" is not"),
            ("http://h/@me", "http://h/@me"),
            ("me@h", "me@h"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn parameters_that_may_be_credentials_are_hidden() {
        for (url, shown) in [
            ("/health?token=s", "/health?token=***"),
            (
                "https://h/?a=b&api_key=s&c=d",
                "https://h/?a=b&api_key=***&c=d",
            ),
            (
                "https://u:p@h/?sig=x&X-Amz-Signature=s",
                "https://u:***@h/?sig=x&X-Amz-Signature=***",
            ),
            ("/news/?", "/news/?"),
            ("/a?token=", "/a?token="),
            ("/a?token={query}", "/a?token={query}"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn arguments_that_may_be_credentials_are_hidden() {
        let given = [
            "./hook",
            "--api-token",
            "s",
            "--zone",
            "z",
            "-password=s",
            "KEY=s",
            "--token",
            "--x",
        ];
        let shown = [
            "./hook",
            "--api-token",
            "***",
            "--zone",
            "z",
            "-password=***",
            "KEY=***",
            "--token",
            "--x",
        ];
        assert_eq!(arguments_without_secrets(given.into_iter()), shown);
    }
}
