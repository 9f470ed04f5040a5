//! Writes a value as YAML in block style, with a comment behind each scalar.
//!
//! Texts are quoted wherever some reader could take them for something else; `$` is doubled where it would begin a variable.

use serde_yaml::{Mapping, Value};

use super::de::is_text;
use super::expand;

/// What is said about the values of a tree. A part is what is known about one of its places.
pub trait ValueComments: Copy {
    /// The part about the value of a key.
    fn key(self, name: &str) -> Self;
    /// The part about an item of a list.
    fn item(self, n: usize) -> Self;
    /// What is said about this value, which has none below it.
    fn comment(self, value: &Value) -> String;
}

/// The text of a mapping, with its comments.
pub fn text(map: &Mapping, comments: impl ValueComments) -> String {
    let mut lines = Vec::new();
    write_map(&mut lines, map, 0, comments);
    lines.concat()
}

fn write_map(lines: &mut Vec<String>, map: &Mapping, indent: usize, comments: impl ValueComments) {
    for (key, value) in map {
        let name = key.as_str().unwrap_or_default();
        let begin = format!("{}{}:", " ".repeat(indent), quoted(name));
        write_value(lines, (&begin, value), indent + 2, comments.key(name));
    }
}

fn write_list(
    lines: &mut Vec<String>,
    list: &[Value],
    indent: usize,
    comments: impl ValueComments,
) {
    for (n, value) in list.iter().enumerate() {
        let (first, dash) = (lines.len(), format!("{}-", " ".repeat(indent)));
        match leaf(value) {
            Some(_) => write_value(lines, (&dash, value), indent + 2, comments.item(n)),
            None => {
                write_below(lines, value, indent + 2, comments.item(n));
                lines[first].replace_range(..=indent, &dash);
            }
        }
    }
}

fn write_value(
    lines: &mut Vec<String>,
    (begin, value): (&str, &Value),
    indent: usize,
    comments: impl ValueComments,
) {
    match leaf(value) {
        Some(text) => lines.push(format!("{begin} {text}  # {}\n", comments.comment(value))),
        None => {
            lines.push(format!("{begin}\n"));
            write_below(lines, value, indent, comments);
        }
    }
}

fn write_below(
    lines: &mut Vec<String>,
    value: &Value,
    indent: usize,
    comments: impl ValueComments,
) {
    match value {
        Value::Mapping(map) => write_map(lines, map, indent, comments),
        Value::Sequence(list) => write_list(lines, list, indent, comments),
        _ => {}
    }
}

/// The text of a value that has none below it.
fn leaf(value: &Value) -> Option<String> {
    match value {
        Value::Mapping(map) if map.is_empty() => Some("{}".to_owned()),
        Value::Sequence(list) if list.is_empty() => Some("[]".to_owned()),
        Value::Mapping(_) | Value::Sequence(_) => None,
        Value::String(text) => Some(quoted(&expand::escaped(text))),
        Value::Null => Some("null".to_owned()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Tagged(tagged) => leaf(&tagged.value),
    }
}

/// A text as it stands in YAML: as it is if that is plain to every reader.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,=~-".contains(c);
    let begins = |c: char| c.is_ascii_alphanumeric() || "_./".contains(c);
    let is_plain = text.starts_with(begins)
        && text.chars().all(plain)
        && !text.ends_with(':')
        && !may_be_a_number(text)
        && is_text(text);
    if is_plain {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{feff}' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether some readers take it for a number: octal, sexagesimal, or of another base.
fn may_be_a_number(text: &str) -> bool {
    let bases = ["0x", "0o", "0b"];
    text.chars()
        .all(|c| c.is_ascii_digit() || c == ':' || c == '_')
        || bases.iter().any(|base| text.starts_with(base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{de, parser};
    use proptest::prelude::*;

    #[derive(Clone, Copy)]
    struct NoComments;

    impl ValueComments for NoComments {
        fn key(self, _: &str) -> Self {
            self
        }

        fn item(self, _: usize) -> Self {
            self
        }

        fn comment(self, _: &Value) -> String {
            "x".to_owned()
        }
    }

    #[test]
    fn lists_and_mappings_nest_in_block_style() {
        let value: Mapping = serde_yaml::from_str(
            "{a: {b: 1, c: []}, l: [x, {k: 'on: y', m: [1, {z: ~}]}, [[2], 3]], e: {}}",
        )
        .unwrap();
        let text = text(&value, NoComments);
        let expected = "\
a:
  b: 1  # x
  c: []  # x
l:
  - x  # x
  - k: \"on: y\"  # x
    m:
      - 1  # x
      - z: null  # x
  - - - 2  # x
    - 3  # x
e: {}  # x
";
        assert_eq!(text, expected);
        let read: Mapping = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read, value);
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_by_us_and_by_others(given in ".*|[-0-9.e+~:#&*!%@`'\"{}\\[\\], \n]*") {
            let text = format!("a: {}", quoted(&given));
            let node = parser::parse(&text).map_err(|e| TestCaseError::fail(e.message))?;
            let ours: serde_json::Value = de::read(&node).map_err(|e| TestCaseError::fail(e.message))?;
            prop_assert_eq!(ours["a"].as_str(), Some(&*given));
            let theirs: Mapping = serde_yaml::from_str(&text).unwrap();
            prop_assert_eq!(theirs["a"].as_str(), Some(&*given));
        }
    }
}
