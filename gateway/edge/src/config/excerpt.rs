//! The source line of a problem with a caret below it, as compilers show it.
//!
//! Whatever follows the key of a secret is hidden, on the line of the key and on the lines on which
//! its value continues, and so is whatever follows a name that others have given and that may be one
//! of credentials. A long line is cut to a window around the position. Control characters
//! become spaces.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::secret::find_secret_value;
use super::secret_text::{awaits_credentials, secrets_of_urls, value_of_credentials};
use super::tree::YamlPosition;

/// The most characters of a source line that are shown, so that a file of one long line stays
/// readable.
const SHOWN: usize = 100;

/// The lines of a text as YAML counts them: a carriage return alone ends one too.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Moves a position into the text: the parser may point beyond the end of the file, and then the
/// last line is the nearest position that can be shown.
pub fn inside(text: &str, mark: YamlPosition) -> YamlPosition {
    let (mut last, mut column) = (1, 1);
    for (n, line) in lines(text).enumerate().take(mark.line) {
        // The empty piece after the last line break is not a line.
        if n == 0 || !line.is_empty() || n + 1 < mark.line {
            (last, column) = (n + 1, line.chars().count() + 1);
        }
    }
    let column = if last < mark.line {
        column
    } else {
        column.min(mark.column)
    };
    YamlPosition {
        line: last,
        column,
        ..mark
    }
}

/// The marked line with a caret below it.
pub fn excerpt(text: &str, mark: YamlPosition) -> Option<String> {
    let above: Vec<&str> = lines(text).take(mark.line.checked_sub(1)?).collect();
    let line = lines(text).nth(above.len())?;
    Some(pointed_at(&masked(&above, line), mark))
}

/// All lines of a text without the secrets in them.
pub fn masked_lines(text: &str) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    let lines = all.iter().enumerate();
    lines.map(|(n, line)| masked(&all[..n], line)).collect()
}

/// A line without the secret in it, by itself and by the lines above it.
fn masked(above: &[&str], line: &str) -> String {
    match continues_secret(above, line) || is_value_of_option(above, line) {
        true => "***".to_owned(),
        false => mask(line),
    }
}

/// Like [`excerpt`], for a marked key: the rest of its line is not shown.
pub fn excerpt_of_key(text: &str, mark: YamlPosition) -> Option<String> {
    let line = lines(text).nth(mark.line.checked_sub(1)?)?;
    let end = mark.column.saturating_sub(1).saturating_add(mark.width);
    let shown: String = line.chars().take(end).collect();
    let masked = match first_secret(&shown) {
        Some(start) => format!("{}***", &shown[..start]),
        None => format!("{shown}: ***"),
    };
    Some(pointed_at(&masked, mark))
}

fn pointed_at(masked: &str, mark: YamlPosition) -> String {
    let column = mark.column.saturating_sub(1);
    let skip = if column < SHOWN - 20 { 0 } else { column - 20 };
    let shown: String = masked
        .chars()
        .skip(skip)
        .take(SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let shown = shown.trim_end();
    let indent = column - skip;
    let width = mark
        .width
        .min(shown.chars().count().saturating_sub(indent))
        .max(1);
    let number = mark.line.to_string();
    let margin = " ".repeat(number.len());
    format!(
        "{margin} |\n{number} | {shown}\n{margin} | {}{}",
        " ".repeat(indent),
        "^".repeat(width)
    )
}

/// The names of all keys that a configuration has: those that are not secrets hold no credentials.
static KNOWN_KEYS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let schema = super::schema();
    let (mut known, mut open) = (HashSet::new(), vec![&schema]);
    while let Some(value) = open.pop() {
        let members = value.as_object();
        for (name, member) in members.into_iter().flatten() {
            if name == "properties" {
                let keys = member.as_object().into_iter().flatten();
                known.extend(keys.map(|(key, _)| key.clone()));
            }
            open.push(member);
        }
        open.extend(value.as_array().into_iter().flatten());
    }
    known
});

/// Where the first secret of a line begins, or what may be one.
fn first_secret(line: &str) -> Option<usize> {
    let is_plain = |word: &str| KNOWN_KEYS.contains(word) || word.ends_with("_file");
    let in_url = secrets_of_urls(line).map(|secret| secret.start).min();
    let named = value_of_credentials(line, is_plain);
    [find_secret_value(line), in_url, named]
        .into_iter()
        .flatten()
        .min()
}

/// Whether a line is an item of a list behind one that is an option with credentials.
fn is_value_of_option(above: &[&str], line: &str) -> bool {
    let item = |line: &str| {
        let item = line.trim().strip_prefix("- ")?;
        Some(item.trim().trim_matches(['"', '\'']).to_owned())
    };
    let option = above.last().and_then(|line| item(line));
    let is_awaited = option.is_some_and(|option| awaits_credentials(&option));
    is_awaited && item(line).is_some_and(|item| !item.starts_with('-'))
}

/// Hides the text after the key of a secret.
fn mask(line: &str) -> String {
    match first_secret(line) {
        Some(start) => format!("{}***", &line[..start]),
        None => line.to_owned(),
    }
}

/// Whether a line is part of a secret whose key is further up: directly above without a value, or
/// on a line that this line is indented under.
fn continues_secret(above: &[&str], line: &str) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut level = indent(line);
    let mut nearest = true;
    for line in above.iter().rev().filter(|line| !line.trim().is_empty()) {
        let inside = indent(line) < level;
        if inside || nearest {
            let value = find_secret_value(line).map(|start| line[start..].trim());
            if value.is_some_and(|value| inside || is_to_come(value)) {
                return true;
            }
        }
        nearest = false;
        level = level.min(indent(line));
        if level == 0 {
            break;
        }
    }
    false
}

/// Whether the value begins on a later line: there is no value yet, or only characters that
/// announce one.
fn is_to_come(value: &str) -> bool {
    value.starts_with('#') || value.chars().all(|c| c.is_ascii_punctuation())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_value_even_in_a_long_line() {
        let text = format!("{}x: bad", " ".repeat(300));
        let shown = excerpt(
            &text,
            YamlPosition {
                source: 0,
                line: 1,
                column: 304,
                width: 3,
            },
        )
        .unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].find("bad"), lines[2].find("^^^"));
        assert!(lines[1].len() < 120);
    }

    #[test]
    fn an_excerpt_hides_a_secret() {
        let shown = excerpt(
            "admin: { token: s3cret }",
            YamlPosition {
                source: 0,
                line: 1,
                column: 1,
                width: 5,
            },
        )
        .unwrap();
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn an_excerpt_hides_a_secret_that_began_on_a_line_above() {
        let shown = |text: &str, line: usize| {
            let mark = YamlPosition {
                source: 0,
                line,
                column: 1,
                width: 1,
            };
            excerpt(text, mark).unwrap()
        };
        for (text, line) in [
            ("token:\n  s3cret", 2),
            ("a: {token: # here\n\ns3cret}", 3),
            ("secret: |\n  one\n    two\n  s3cret", 4),
            ("  password: \"x\n    s3cret\"", 2),
        ] {
            assert!(!shown(text, line).contains("s3cret"), "{text}");
        }
        let sibling = "admin:\n  token: s3cret\n  address: x";
        assert!(shown(sibling, 3).contains("address: x"));
    }

    #[test]
    fn an_excerpt_hides_what_others_have_named() {
        for line in [
            "exec: [./hook, --api-token, s3cret]",
            "exec: [sh, -c, \"./hook --token s3cret\"]",
            "    config: { passphrase: s3cret }",
            "health: { path: /health?pwd=s3cret }",
            "cookies: { session-cookie: s3cret }",
            "set: { Authorization: s3cret }",
            "- --api-token=s3cret",
            "url: https://h/?sv=1&sig=s3cret",
        ] {
            assert!(!mask(line).contains("s3cret"), "{}", mask(line));
        }
        let list = "exec:\n  - ./hook\n  - \"--api-token\"\n  - s3cret\n  - last";
        let shown = masked_lines(list);
        assert!(!shown.concat().contains("s3cret"), "{shown:?}");
        assert_eq!(shown[4], "  - last");
        for line in [
            "key: { cookies: [session], headers: [x-user] }",
            "auth: { jwt: { keys: https://id.example/keys } }",
            "    secret_file: /run/secrets/jwt",
            "bypass: { cookies: [a] }",
            "  auth-service: { targets: [\"http://auth.internal:8080\"] }",
        ] {
            assert_eq!(mask(line), line);
        }
    }
}
