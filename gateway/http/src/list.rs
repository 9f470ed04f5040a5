//! Comma-separated lists, `#rule` (RFC 9110 §5.6.1). Nearly every field is one.
//!
//! Commas inside quoted strings do not separate. A quote that never closes is not treated as a
//! quote: its text ends at the next comma, so that nothing behind it is hidden (a `no-store` after
//! a broken extension still counts). From there on the line is treated as having no quotes at
//! all, so that it is searched for a closing one only once: parsing is linear in the length of
//! the line, whatever it contains.

use http::{HeaderMap, HeaderName, HeaderValue};

/// How a quoted text ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum QuoteSyntax {
    /// quoted-string: the octet after a backslash is literal (RFC 9110 §5.6.4).
    Escaped,
    /// opaque-tag: a backslash is an octet like any other (RFC 9110 §8.8.3).
    Verbatim,
}

/// The members of one field line, trimmed and in order; empty ones are skipped.
pub(super) struct ListMembers<'a> {
    rest: &'a [u8],
    /// `None` behind a quote that never closes.
    quotes: Option<QuoteSyntax>,
}

pub(super) fn members(line: &[u8], quotes: QuoteSyntax) -> ListMembers<'_> {
    ListMembers {
        rest: line,
        quotes: Some(quotes),
    }
}

/// The members of a field over all its lines (RFC 9110 §5.3).
pub(super) fn field<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).into_iter().flat_map(of_line)
}

/// The members of one line of a field.
pub(super) fn of_line(line: &HeaderValue) -> ListMembers<'_> {
    members(line.as_bytes(), QuoteSyntax::Escaped)
}

/// The text without optional white space (SP, HTAB) at both ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Index of the quote that closes the quoted text beginning at `open`.
pub(super) fn closing_quote(text: &[u8], open: usize, quotes: QuoteSyntax) -> Option<usize> {
    let mut at = open + 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at),
            b'\\' if quotes == QuoteSyntax::Escaped => at += 2,
            _ => at += 1,
        }
    }
    None
}

impl<'a> Iterator for ListMembers<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = self.member_end();
            let member = trim(&self.rest[..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

impl ListMembers<'_> {
    fn member_end(&mut self) -> usize {
        let mut at = 0;
        while let Some(&octet) = self.rest.get(at) {
            match (octet, self.quotes) {
                (b',', _) => return at,
                (b'"', Some(quotes)) => match closing_quote(self.rest, at, quotes) {
                    Some(close) => at = close + 1,
                    None => self.quotes = None,
                },
                _ => at += 1,
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &str, quotes: QuoteSyntax) -> Vec<&str> {
        members(line.as_bytes(), quotes)
            .map(|m| std::str::from_utf8(m).unwrap())
            .collect()
    }

    #[test]
    fn members_are_trimmed_and_empty_ones_skipped() {
        assert_eq!(split(" , a ,\t,b c,,", QuoteSyntax::Escaped), ["a", "b c"]);
        assert!(split(" ,\t,", QuoteSyntax::Escaped).is_empty());
    }

    #[test]
    fn a_comma_in_quotes_does_not_separate() {
        assert_eq!(
            split(r#"a="x, \", y", b"#, QuoteSyntax::Escaped),
            [r#"a="x, \", y""#, "b"]
        );
        assert_eq!(
            split(r#""a\", "b""#, QuoteSyntax::Verbatim),
            [r#""a\""#, r#""b""#]
        );
    }

    #[test]
    fn a_quote_that_never_closes_hides_nothing() {
        assert_eq!(
            split(r#"ext="oops, no-store"#, QuoteSyntax::Escaped),
            [r#"ext="oops"#, "no-store"]
        );
    }

    /// Guards against searching the rest of the line again for each member.
    #[test]
    fn a_line_of_broken_quotes_is_read_in_linear_time() {
        let line = [&b"\""[..], &br#"\","#.repeat(300_000)].concat();
        assert_eq!(members(&line, QuoteSyntax::Escaped).count(), 300_000);
    }

    proptest! {
        #[test]
        fn any_bytes_split_into_trimmed_members(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            for quotes in [QuoteSyntax::Escaped, QuoteSyntax::Verbatim] {
                for member in members(&line, quotes) {
                    prop_assert!(!member.is_empty() && trim(member) == member);
                }
            }
        }
    }
}
