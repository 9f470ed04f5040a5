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

/// Names of parameters and arguments that are hidden, and parts of too many other words.
const SECRET_NAMES: [&str; 4] = ["sig", "code", "pw", "jwt"];

/// Options whose values are credentials with many programs.
const SECRET_OPTIONS: [&str; 4] = ["-u", "--user", "-H", "--header"];

/// Whether what has this name may be what somebody is known by.
pub fn may_be_credentials(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn is_named_credentials(name: &str) -> bool {
    let is_named = |secret: &str| name.trim_start_matches('-').eq_ignore_ascii_case(secret);
    may_be_credentials(name)
        || SECRET_NAMES.iter().any(|secret| is_named(secret))
        || SECRET_OPTIONS.contains(&name)
}

/// A text without the passwords in its URLs, and without what may be credentials in their queries.
pub fn without_secrets(text: &str) -> String {
    let mut shown = text.to_owned();
    let mut all: Vec<_> = secrets_of_urls(text).collect();
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

/// Where passwords and parameters that may be credentials stand in URLs.
pub fn secrets_of_urls(text: &str) -> impl Iterator<Item = Range<usize>> {
    users(text).chain(parameters(text))
}

/// Where the value begins that belongs to the first word which may be credentials and is none of
/// those that are `plain`: behind `:` or `=`, and behind an option also the next word or item.
pub fn value_of_credentials(text: &str, plain: impl Fn(&str) -> bool) -> Option<usize> {
    let in_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut looked_at = 0;
    while let Some(found) = text[looked_at..].find(in_word) {
        let begin = looked_at + found;
        let word = text[begin..].split(|c| !in_word(c)).next()?;
        looked_at = begin + word.len();
        let is_secret = is_named_credentials(word) && !plain(word);
        let value = value_behind(&text[looked_at..], word).filter(|_| is_secret);
        if let Some(value) = value {
            return Some(text.len() - value.len());
        }
    }
    None
}

/// The value behind a word, if there is one.
fn value_behind<'a>(rest: &'a str, word: &str) -> Option<&'a str> {
    let is_quote = |c: char| matches!(c, '"' | '\'');
    let unquoted = rest.trim_start_matches(is_quote);
    let mark = unquoted.trim_start();
    let begins_value = |c: char| c.is_whitespace() || is_quote(c);
    let value = if let Some(value) = mark.strip_prefix('=') {
        value
    } else if let Some(value) = mark
        .strip_prefix(':')
        .filter(|v| v.starts_with(begins_value))
    {
        value
    } else {
        let ends = unquoted.strip_prefix(',').or(rest.strip_prefix(' '));
        ends.filter(|_| word.starts_with('-') && word.len() > 1)?
    };
    let value = value.trim_start();
    // The values of a section have names of their own.
    (!value.is_empty() && !value.starts_with('{')).then_some(value)
}

/// Whether the next argument is the value of this one.
pub fn awaits_credentials(argument: &str) -> bool {
    let is_option = argument.starts_with('-') && !argument.contains(['=', ' ', ':']);
    is_option && is_named_credentials(argument)
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
        (is_named_credentials(name) && !value.is_empty()).then(|| begin..begin + value.len())
    })
}

/// The arguments of a program without what may be credentials: `--token X`, `--token=X`, `TOKEN=X`,
/// `-H "Authorization: X"`, and the same within the text of a shell.
pub fn arguments_without_secrets<'a>(arguments: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut is_awaited = false;
    let shown = arguments.map(|argument| {
        if std::mem::take(&mut is_awaited) && !argument.starts_with('-') {
            return HIDDEN.to_owned();
        }
        is_awaited = awaits_credentials(argument);
        argument_without_secrets(argument)
    });
    shown.collect()
}

fn argument_without_secrets(argument: &str) -> String {
    let named = argument.split_once('=').map(|(name, _)| name);
    let is_name = |name: &&str| !name.contains([' ', ':']) && is_named_credentials(name);
    let value = named.filter(is_name).map(|name| name.len() + 1);
    // `-uname:password`
    let user = argument
        .strip_prefix("-u")
        .filter(|user| user.contains(':'));
    let user = user.map(|user| argument.len() - user.len());
    let found = value_of_credentials(argument, |_| false);
    let Some(begin) = [value, user, found].into_iter().flatten().min() else {
        return without_secrets(argument);
    };
    let mut around = secrets_of_urls(argument);
    let begin = around
        .find(|secret| secret.contains(&begin))
        .map_or(begin, |secret| secret.start);
    format!("{}{HIDDEN}", without_secrets(&argument[..begin]))
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
                "https://u:***@h/?sig=***&X-Amz-Signature=***",
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

    #[test]
    fn credentials_within_an_argument_are_hidden() {
        for (given, shown) in [
            ("Authorization: Bearer abc==", "Authorization: ***"),
            ("Authorization: Bearer abc", "Authorization: ***"),
            ("./hook --token s", "./hook --token ***"),
            ("A=b TOKEN=s ./hook", "A=b TOKEN=***"),
            ("-ume:pw", "-u***"),
            ("https://h/?sv=1&sig=s", "https://h/?sv=1&sig=***"),
            ("https://auth.example:8443/x", "https://auth.example:8443/x"),
            ("/etc/tokens/x", "/etc/tokens/x"),
            ("--zone=z", "--zone=z"),
        ] {
            assert_eq!(arguments_without_secrets([given].into_iter()), [shown]);
        }
        for option in ["-H", "-u", "--user", "--header", "--api-token"] {
            let given = ["curl", option, "me:pw", "https://h/"];
            let shown = ["curl", option, "***", "https://h/"];
            assert_eq!(arguments_without_secrets(given.into_iter()), shown);
        }
    }
}
