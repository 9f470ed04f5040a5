//! Compares the expected decision with the actual one: every difference, with its place.
//!
//! Fields that `expect` leaves out are not compared; `json` is compared as a whole. `null` expects
//! that there is nothing, such as a header that must be absent.

use std::fmt;

use serde_json::{Map, Value};

/// A difference.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct DecisionDifference {
    /// The path of the field, such as `key.text`. Empty if the decision is another one.
    place: String,
    expected: String,
    got: String,
}

/// Every difference between `expect` and the actual decision `got`.
pub(super) fn differences(expect: &Value, got: &Value) -> Vec<DecisionDifference> {
    let mut found = Vec::new();
    match (expect, got) {
        // The word of the decision is enough: `expect: bypass`.
        (Value::String(word), Value::Object(told))
            if told.len() == 1 && told.contains_key(word) => {}
        (Value::Object(wanted), Value::String(word)) if is_word(wanted, word) => {}
        (Value::Object(wanted), Value::Object(told)) if !is_another(wanted, told) => {
            fields("", wanted, told, &mut found);
        }
        _ => values("", expect, got, &mut found),
    }
    found
}

/// Whether this consists only of a decision's word, as in `default: true`.
fn is_word(wanted: &Map<String, Value>, word: &str) -> bool {
    wanted.len() == 1 && wanted.get(word) == Some(&Value::Bool(true))
}

/// Whether these are two different decisions, and not one with different details.
fn is_another(wanted: &Map<String, Value>, told: &Map<String, Value>) -> bool {
    !wanted.is_empty() && wanted.keys().all(|word| !told.contains_key(word))
}

fn fields(
    place: &str,
    wanted: &Map<String, Value>,
    told: &Map<String, Value>,
    found: &mut Vec<DecisionDifference>,
) {
    let is_headers = place.ends_with("headers");
    for (name, wanted) in wanted {
        let at = match place.is_empty() {
            true => name.clone(),
            false => format!("{place}.{name}"),
        };
        let name = match is_headers {
            true => name.to_ascii_lowercase(),
            false => name.clone(),
        };
        match (wanted, told.get(&name)) {
            (Value::Null, None) => {}
            (Value::Object(wanted), Some(Value::Object(told))) if name != "json" => {
                fields(&at, wanted, told, found);
            }
            (wanted, Some(told)) => values(&at, wanted, told, found),
            (wanted, None) => found.push(DecisionDifference {
                got: format!("there is no such name; expected one of: {}", names(told)),
                place: at,
                expected: wanted.to_string(),
            }),
        }
    }
}

fn values(place: &str, wanted: &Value, told: &Value, found: &mut Vec<DecisionDifference>) {
    // For HTTP, 60 is a text.
    let same_text = match (wanted, told) {
        (Value::Number(number), Value::String(text)) => number.to_string() == *text,
        (Value::Bool(truth), Value::String(text)) => truth.to_string() == *text,
        _ => false,
    };
    if wanted != told && !same_text {
        found.push(DecisionDifference {
            place: place.to_owned(),
            expected: wanted.to_string(),
            got: without_json(told).to_string(),
        });
    }
}

/// The response without `json`, so that its body is shown only once.
fn without_json(told: &Value) -> Value {
    let mut shown = told.clone();
    if let Some(response) = shown.as_object_mut() {
        response.remove("json");
    }
    shown
}

fn names(told: &Map<String, Value>) -> String {
    let names: Vec<_> = told.keys().map(String::as_str).collect();
    names.join(", ")
}

impl fmt::Display for DecisionDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            writeln!(f, "        {}", self.place)?;
        }
        writeln!(f, "          expected {}", self.expected)?;
        writeln!(f, "          got      {}", self.got)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places(expect: &Value, got: &Value) -> Vec<String> {
        let found = differences(expect, got);
        found
            .into_iter()
            .map(|difference| difference.place)
            .collect()
    }

    #[test]
    fn what_is_left_out_is_not_compared_and_a_word_alone_is_enough() {
        let got = json!({"key": {"text": "a/b", "parts": ["de"], "tags": []}});
        assert_eq!(places(&json!({"key": {"text": "a/b"}}), &got), [""; 0]);
        assert_eq!(places(&json!("key"), &got), [""; 0]);
        assert_eq!(places(&json!({"absent": true}), &json!("absent")), [""; 0]);
        assert_eq!(places(&json!({"absent": true}), &json!("default")), [""]);
        assert_eq!(
            places(&json!({"key": {"text": "a/c", "parts": []}}), &got),
            ["key.text", "key.parts"]
        );
    }

    #[test]
    fn another_decision_is_one_difference() {
        let got = json!({"bypass": "signed in"});
        assert_eq!(places(&json!({"key": {"text": "a"}}), &got), [""]);
        assert_eq!(places(&json!("default"), &got), [""]);
        assert_eq!(places(&json!({"bypass": "signed out"}), &got), ["bypass"]);
    }

    #[test]
    fn headers_go_by_name_in_any_case_and_null_is_none() {
        let got = json!({"status": 200, "headers": {"x-count": "3"}});
        assert_eq!(
            places(&json!({"headers": {"X-Count": 3, "etag": null}}), &got),
            [""; 0]
        );
        assert_eq!(
            places(&json!({"headers": {"x-count": null}}), &got),
            ["headers.x-count"]
        );
    }

    #[test]
    fn json_is_compared_as_a_whole() {
        let got = json!({"status": 200, "body": "{}", "json": {"a": 1, "b": 2}});
        assert_eq!(places(&json!({"json": {"a": 1}}), &got), ["json"]);
        assert_eq!(places(&json!({"json": {"b": 2, "a": 1}}), &got), [""; 0]);
    }

    #[test]
    fn a_misspelt_field_names_those_that_there_are() {
        let got = json!({"key": {"text": "a", "parts": [], "tags": []}});
        let found = differences(&json!({"key": {"txt": "a"}}), &got);
        assert!(found[0].got.contains("text, parts, tags"), "{}", found[0]);
    }
}
