//! The syntax of one cache directive: `token [ "=" ( token / quoted-string ) ]` (RFC 9111 §5.2).

use std::borrow::Cow;

use http::HeaderName;

use super::MAX_DELTA_SECONDS;
use crate::list::{self, QuoteSyntax};

/// The argument of a directive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Argument<'a> {
    None,
    /// A token, or the content of a quoted string without its escapes.
    Text(Cow<'a, [u8]>),
    /// There is an argument, but it is neither a token nor a quoted string.
    Malformed,
}

/// Calls `apply` with the lower-case name and the argument of each directive in a field line.
pub(super) fn each(line: &[u8], mut apply: impl FnMut(&str, &Argument<'_>)) {
    for member in list::members(line, QuoteSyntax::Escaped) {
        let equals = memchr::memchr(b'=', member);
        let (name, value) = member.split_at(equals.unwrap_or(member.len()));
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        let name = match name.bytes().any(|octet| octet.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        };
        let trimmed = name.trim_ascii_end();
        let argument = match value {
            [] => Argument::None,
            // There is space before the `=`: it is still this directive, but its argument is not
            // trusted.
            _ if trimmed.len() < name.len() => Argument::Malformed,
            [_equals, value @ ..] => Argument::read(value),
        };
        apply(trimmed, &argument);
    }
}

impl<'a> Argument<'a> {
    fn read(value: &'a [u8]) -> Self {
        match value {
            [b'"', ..] => match list::closing_quote(value, 0, QuoteSyntax::Escaped) {
                Some(close) if close + 1 == value.len() => Self::Text(unescape(&value[1..close])),
                _ => Self::Malformed,
            },
            _ if !value.is_empty() && value.iter().all(|&octet| is_token_octet(octet)) => {
                Self::Text(value.into())
            }
            _ => Self::Malformed,
        }
    }

    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// The argument as delta-seconds, at most [`MAX_DELTA_SECONDS`]; `None` unless it is only
    /// digits.
    pub(super) fn seconds(&self) -> Option<u32> {
        let Self::Text(digits) = self else {
            return None;
        };
        delta_seconds(digits)
    }

    /// The field names that the argument lists; `None` if there are none, or one is invalid.
    pub(super) fn field_names(&self) -> Option<Vec<HeaderName>> {
        let Self::Text(text) = self else { return None };
        let names: Result<Vec<_>, _> = list::members(text, QuoteSyntax::Escaped)
            .map(HeaderName::from_bytes)
            .collect();
        names.ok().filter(|names| !names.is_empty())
    }
}

/// Delta-seconds (RFC 9111 §1.2.2): only digits; too large a number means [`MAX_DELTA_SECONDS`].
pub fn delta_seconds(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |seconds, &octet| {
        let digit = octet.is_ascii_digit().then(|| u32::from(octet - b'0'))?;
        Some(
            seconds
                .saturating_mul(10)
                .saturating_add(digit)
                .min(MAX_DELTA_SECONDS),
        )
    })
}

/// `tchar` (RFC 9110 §5.6.2).
fn is_token_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

fn unescape(quoted: &[u8]) -> Cow<'_, [u8]> {
    if !quoted.contains(&b'\\') {
        return quoted.into();
    }
    let mut plain = Vec::with_capacity(quoted.len());
    let mut octets = quoted.iter();
    while let Some(&octet) = octets.next() {
        // The octet after a backslash is literal; `closing_quote` has made sure that there is one.
        plain.extend(if octet == b'\\' {
            octets.next().copied()
        } else {
            Some(octet)
        });
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_quoted_arguments_are_undone() {
        let mut seen = Vec::new();
        each(br#"a="1\2", B , c=, d="x"y, e =1"#, |name, argument| {
            seen.push(format!("{name} {:?}", argument.seconds()))
        });
        assert_eq!(seen, ["a Some(12)", "b None", "c None", "d None", "e None"]);
    }

    #[test]
    fn delta_seconds_saturate_without_wrapping() {
        for (digits, seconds) in [
            ("0", Some(0)),
            ("2147483647", Some(2_147_483_647)),
            ("4294967297", Some(1 << 31)),
            ("1 ", None),
            ("", None),
        ] {
            assert_eq!(delta_seconds(digits.as_bytes()), seconds, "{digits}");
        }
    }
}
