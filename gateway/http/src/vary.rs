//! `Vary`: which request fields selected a response, and their values in a comparable form
//! (RFC 9110 §12.5.5, RFC 9111 §4.1).
//!
//! Values are compared after the normalisation that §4.1 allows for any field: lines are joined,
//! members are trimmed, runs of white space become one space, and quoted text is unchanged. The
//! `Accept-*` fields, whose grammar is known, also become lower case and lose the space around
//! `;`. Their order is kept: some origins treat it as a preference.

use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::forward;
use super::list::{self, QuoteSyntax};

/// What a response's `Vary` requires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Vary {
    /// The response is the same for every request.
    #[default]
    None,
    /// `*`, a member that is not a field name, or a field that tells the origin about the client
    /// what no key holds ([`forward::DIFFERENCES`]): no later request matches.
    Any,
    /// These fields must match. In lower case, sorted, without duplicates, never empty.
    Fields(Vec<HeaderName>),
}

impl Vary {
    /// Parses all lines of `Vary`. Allocates only when it names fields.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut fields = Vec::new();
        for member in list::field(headers, &header::VARY) {
            match HeaderName::from_bytes(member) {
                // `*` is a token, so it would pass as a name.
                Ok(name) if member != b"*" && !forward::differs_by_client(&name) => {
                    fields.push(name);
                }
                _ => return Self::Any,
            }
        }
        if fields.is_empty() {
            return Self::None;
        }
        fields.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        fields.dedup();
        Self::Fields(fields)
    }
}

/// Adds fields to `Vary`, which are a list as in the field itself: those that are not there, or none
/// if everything is.
pub fn add(headers: &mut HeaderMap, fields: &'static str) {
    if let Entry::Vacant(place) = headers.entry(header::VARY) {
        place.insert(HeaderValue::from_static(fields));
        return;
    }
    for field in fields.split(", ") {
        let names = |member: &[u8]| member == b"*" || member.eq_ignore_ascii_case(field.as_bytes());
        if !list::field(headers, &header::VARY).any(names) {
            headers.append(header::VARY, HeaderValue::from_static(field));
        }
    }
}

/// Appends the values of `fields` in `request`, so that two requests match if and only if the
/// bytes are equal.
///
/// For each field it appends its name and either `;` (absent) or `:`, the length (four octets,
/// little-endian) and the normalised value. An absent field differs from an empty one; a name
/// cannot contain `;` or `:`.
pub fn selecting_values(fields: &[HeaderName], request: &HeaderMap, out: &mut Vec<u8>) {
    for name in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        if !request.contains_key(name) {
            out.push(b';');
            continue;
        }
        out.push(b':');
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let value_at = out.len();
        let known = is_known_grammar(name);
        for member in list::field(request, name) {
            if out.len() > value_at {
                out.push(b',');
            }
            append_normalised(member, known, out);
        }
        // Header blocks are limited to far less than 4 GiB.
        let length = u32::try_from(out.len() - value_at).unwrap_or(u32::MAX);
        out[length_at..value_at].copy_from_slice(&length.to_le_bytes());
    }
}

/// Fields whose members are case-insensitive, with white space allowed around `;`
/// (RFC 9110 §12.5.2, §12.5.3, §12.5.4).
fn is_known_grammar(name: &HeaderName) -> bool {
    [
        header::ACCEPT_LANGUAGE,
        header::ACCEPT_ENCODING,
        header::ACCEPT_CHARSET,
    ]
    .contains(name)
}

fn append_normalised(member: &[u8], known: bool, out: &mut Vec<u8>) {
    let mut at = 0;
    let mut space = false;
    // False behind a quote that never closes, see `list`.
    let mut quotes = true;
    while let Some(&octet) = member.get(at) {
        at += 1;
        if matches!(octet, b' ' | b'\t') {
            space = true;
            continue;
        }
        let around_semicolon = octet == b';' || out.last() == Some(&b';');
        if std::mem::take(&mut space) && !(known && around_semicolon) {
            out.push(b' ');
        }
        out.push(if known {
            octet.to_ascii_lowercase()
        } else {
            octet
        });
        if octet == b'"' && quotes {
            let close = list::closing_quote(member, at - 1, QuoteSyntax::Escaped);
            let quoted = close.map_or(&[][..], |close| &member[at..=close]);
            out.extend_from_slice(quoted);
            at += quoted.len();
            quotes = close.is_some();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vary(lines: &[&'static str]) -> Vary {
        Vary::parse(
            &lines
                .iter()
                .map(|line| (header::VARY, HeaderValue::from_static(line)))
                .collect(),
        )
    }

    #[test]
    fn a_field_is_added_once() {
        for (before, after) in [
            (&[][..], &["Accept-Encoding"][..]),
            (&["origin"], &["origin", "Accept-Encoding"]),
            (&["origin, ACCEPT-encoding"], &["origin, ACCEPT-encoding"]),
            (&["*"], &["*"]),
        ] {
            let line = |line: &&'static str| (header::VARY, HeaderValue::from_static(line));
            let mut headers: HeaderMap = before.iter().map(line).collect();
            add(&mut headers, "Accept-Encoding");
            let lines: Vec<_> = headers.get_all(header::VARY).into_iter().collect();
            assert_eq!(lines, after, "{before:?}");
        }
    }

    #[test]
    fn of_several_fields_those_that_are_missing_are_added() {
        for (before, after) in [
            (&[][..], &["Origin, Accept-Encoding"][..]),
            (&["origin"], &["origin", "Accept-Encoding"]),
            (&["accept-encoding"], &["accept-encoding", "Origin"]),
            (&["cookie"], &["cookie", "Origin", "Accept-Encoding"]),
            (&["*"], &["*"]),
        ] {
            let line = |line: &&'static str| (header::VARY, HeaderValue::from_static(line));
            let mut headers: HeaderMap = before.iter().map(line).collect();
            add(&mut headers, "Origin, Accept-Encoding");
            let lines: Vec<_> = headers.get_all(header::VARY).into_iter().collect();
            assert_eq!(lines, after, "{before:?}");
        }
    }

    fn fields(names: &[&'static str]) -> Vec<HeaderName> {
        names
            .iter()
            .map(|name| HeaderName::from_static(name))
            .collect()
    }

    fn selected(name: &'static str, lines: &[&str]) -> Vec<u8> {
        let name = HeaderName::from_static(name);
        let lines = lines
            .iter()
            .map(|line| (name.clone(), HeaderValue::from_str(line).unwrap()));
        let mut out = Vec::new();
        selecting_values(std::slice::from_ref(&name), &lines.collect(), &mut out);
        out
    }

    #[test]
    fn vary_is_read_over_lines_without_regard_to_case_or_order() {
        assert_eq!(vary(&[]), Vary::None);
        assert_eq!(vary(&["", " , "]), Vary::None);
        assert_eq!(
            vary(&["Foo, accept-language", "FOO,Bar"]),
            Vary::Fields(fields(&["accept-language", "bar", "foo"]))
        );
    }

    #[test]
    fn a_star_anywhere_matches_nothing() {
        for lines in [
            &["*"][..],
            &["*, *"],
            &["*", "*"],
            &[", *"],
            &["", "*"],
            &["*, Foo"],
            &["Foo, *"],
            &["Foo", "*"],
        ] {
            assert_eq!(vary(lines), Vary::Any, "{lines:?}: RFC 9111 §4.1");
        }
        assert_eq!(vary(&["Foo Bar"]), Vary::Any);
        for line in ["X-Forwarded-For", "accept, forwarded", "TE"] {
            assert_eq!(vary(&[line]), Vary::Any, "{line}: no key holds it");
        }
    }

    #[test]
    fn equal_lists_give_equal_values() {
        for (one, other) in [
            (&["1, 2"][..], &["1,2"][..]),
            (&["1, 2"], &["1", "2"]),
            (&["1 ,\t2"], &["", "1", ",2"]),
            (&["a  b"], &[" a\tb "]),
        ] {
            assert_eq!(
                selected("foo", one),
                selected("foo", other),
                "{one:?} {other:?}: RFC 9111 §4.1"
            );
        }
        assert_eq!(
            selected("accept-language", &["en-GB; q=0.5, DE"]),
            selected("accept-language", &["en-gb;q=0.5,de"])
        );
    }

    #[test]
    fn different_values_differ() {
        for (one, other) in [
            (&[][..], &[""][..]),
            (&["1,2"], &["2,1"]),
            (&["a b"], &["ab"]),
            (&["\"a  b\""], &["\"a b\""]),
            (&["\"a, b\""], &["\"a,b\""]),
            (&["A"], &["a"]),
            (&["x; y"], &["x;y"]),
        ] {
            assert_ne!(
                selected("foo", one),
                selected("foo", other),
                "{one:?} {other:?}"
            );
        }
        assert_ne!(
            selected("accept-language", &["en, de"]),
            selected("accept-language", &["de, en"])
        );
    }

    /// Guards against searching the rest of the value again for each quote.
    #[test]
    fn a_value_of_broken_quotes_is_normalised_in_linear_time() {
        let value = format!("\"{}", r#"\""#.repeat(500_000));
        assert_eq!(
            selected("foo", &[&value]).len(),
            "foo:".len() + 4 + value.len()
        );
    }

    proptest! {
        #[test]
        fn values_cannot_run_into_each_other(
            one in proptest::array::uniform2(proptest::option::of("[ab,;: ]{0,6}")),
            other in proptest::array::uniform2(proptest::option::of("[ab,;: ]{0,6}")),
        ) {
            let names = fields(&["x", "x-y"]);
            let all = |values: &[Option<String>; 2]| {
                let mut headers = HeaderMap::new();
                for (name, value) in names.iter().zip(values) {
                    if let Some(value) = value { headers.insert(name, HeaderValue::from_str(value).unwrap()); }
                }
                let each: Vec<_> = names.iter().map(|name| { let mut out = Vec::new(); selecting_values(std::slice::from_ref(name), &headers, &mut out); out }).collect();
                let mut out = Vec::new();
                selecting_values(&names, &headers, &mut out);
                (each, out)
            };
            let (one, other) = (all(&one), all(&other));
            prop_assert_eq!(one.0 == other.0, one.1 == other.1);
        }

        #[test]
        fn normalising_twice_changes_nothing(value in "[a-zA-Z,;=\" \t\\\\]{0,30}", known in any::<bool>()) {
            let name = if known { "accept-language" } else { "foo" };
            let once = selected(name, &[&value]);
            let text = std::str::from_utf8(&once[name.len() + 5..]).unwrap();
            prop_assert_eq!(selected(name, &[text]), once);
        }

        #[test]
        fn any_bytes_parse(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(header::VARY, value)]);
                Vary::parse(&headers);
                selecting_values(&[header::VARY], &headers, &mut Vec::new());
            }
        }
    }
}
