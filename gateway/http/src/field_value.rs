//! Values of fields that are made here, of texts in configurations, tokens and plugins.

use http::HeaderValue;
use http::header::InvalidHeaderValue;

/// The value of a field with this text, without the spaces around it. They are no part of a value (RFC
/// 9110 §5.5), and a message of HTTP/2 or HTTP/3 that has them is malformed (RFC 9113 §8.2.1).
///
/// # Errors
/// If it has a line break or another control character.
pub fn of_text(text: &[u8]) -> Result<HeaderValue, InvalidHeaderValue> {
    HeaderValue::from_bytes(without_padding(text))
}

fn without_padding(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_around_a_text_are_no_part_of_the_value() {
        for (text, value) in [
            ("a", "a"),
            (" a b\t", "a b"),
            ("\t \t", ""),
            ("Bearer ", "Bearer"),
            ("", ""),
        ] {
            assert_eq!(of_text(text.as_bytes()).unwrap(), value, "{text:?}");
        }
        // A line break is no padding.
        for text in ["a\r\n", "\na", "a\rb", "a\0", " \x7f "] {
            assert!(of_text(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
