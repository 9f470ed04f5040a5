//! The source line of a problem with a caret below it, as compilers show it.
//!
//! Whatever follows the key of a secret is hidden, on the line of the key and on the lines on which
//! its value continues. A long line is cut to a window around the position. Control characters
//! become spaces.

use super::secret::find_secret_value;
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
    match continues_secret(above, line) {
        true => "***".to_owned(),
        false => mask(line),
    }
}

/// Like [`excerpt`], for a marked key: the rest of its line is not shown.
pub fn excerpt_of_key(text: &str, mark: YamlPosition) -> Option<String> {
    let line = lines(text).nth(mark.line.checked_sub(1)?)?;
    let end = mark.column.saturating_sub(1).saturating_add(mark.width);
    let shown: String = line.chars().take(end).collect();
    let masked = match find_secret_value(&shown) {
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

/// Hides the text after the key of a secret.
fn mask(line: &str) -> String {
    match find_secret_value(line) {
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
}
