//! Values in YAML's flow style.

use serde_json::{Map, Value};

/// A value in YAML's flow style.
pub(super) fn flow_style(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => format!("{{ {} }}", flow_pairs(map).join(", ")),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(flow_style).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => quoted_if_needed(text),
        other => other.to_string(),
    }
}

/// The pairs of a mapping in the order of their keys, so that the same original gives the same text.
pub(super) fn flow_pairs(map: &Map<String, Value>) -> Vec<String> {
    let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
    pairs.sort_by_key(|(key, _)| *key);
    let pair = |(key, value): &(&String, &Value)| {
        format!("{}: {}", quoted_if_needed(key), flow_style(value))
    };
    pairs.iter().map(pair).collect()
}

/// A text as YAML, in quotation marks where it needs them. A dollar sign that begins no variable is
/// doubled, since Lamina expands variables.
fn quoted_if_needed(text: &str) -> String {
    let text = text.replace('$', "$$").replace("$${", "${");
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let is_plain = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-*?:".contains(c));
    let is_word =
        ["true", "false", "yes", "no", "on", "off", "null"].contains(&text.to_lowercase().as_str());
    let is_size = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric());
    let is_safe =
        begins_well && is_plain && !is_word && !text.ends_with(':') && !text.contains(": ");
    match is_safe || is_size {
        true => text,
        false => Value::String(text).to_string(),
    }
}
