//! Targeted cache control (RFC 9213): a field for our class of caches replaces the general ones.
//!
//! Such a field is a structured dictionary, parsed by `sfv`. A field that is empty, does not
//! parse, or gives a known directive a value of the wrong type is ignored as a whole, as if it
//! were absent; then the next target is tried. Keys are case-sensitive here and parameters have
//! no meaning (§2.1).

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::ResponseDirectives;
use super::directive::Argument;

/// The type that a directive's value has in a dictionary (RFC 9213 §2.1).
enum DirectiveValueKind {
    Flag,
    Seconds,
    Fields,
}

/// Directives of the first of `targets` (in their order, as in `CDN-Cache-Control`) that is valid
/// and not empty. `Some` replaces both `Cache-Control` and `Expires` (RFC 9213 §2.2).
pub fn targeted(headers: &HeaderMap, targets: &[HeaderName]) -> Option<ResponseDirectives> {
    targets.iter().find_map(|target| parse(headers, target))
}

fn parse(headers: &HeaderMap, target: &HeaderName) -> Option<ResponseDirectives> {
    let mut lines = headers.get_all(target).iter();
    let first = lines.next()?.as_bytes().to_vec();
    // Several lines are one field value, joined by a comma (RFC 9651 §4.2).
    let joined = lines.fold(first, |all, line| [&all, line.as_bytes()].join(&b", "[..]));
    let dictionary: Dictionary = Parser::new(&joined).parse().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut directives = ResponseDirectives {
        targeted: true,
        ..Default::default()
    };
    for (key, entry) in &dictionary {
        let Some(kind) = kind(key.as_str()) else {
            continue;
        };
        let ListEntry::Item(item) = entry else {
            return None;
        };
        if item.bare_item == BareItem::Boolean(false)
            && !matches!(kind, DirectiveValueKind::Seconds)
        {
            continue;
        }
        directives.apply(key.as_str(), &kind.argument(&item.bare_item)?);
    }
    Some(directives)
}

fn kind(directive: &str) -> Option<DirectiveValueKind> {
    match directive {
        "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error" => {
            Some(DirectiveValueKind::Seconds)
        }
        "no-cache" | "private" => Some(DirectiveValueKind::Fields),
        "no-store" | "public" | "must-revalidate" | "proxy-revalidate" | "must-understand"
        | "immutable" | "no-transform" => Some(DirectiveValueKind::Flag),
        _ => None,
    }
}

impl DirectiveValueKind {
    /// The value as an argument of the general syntax; `None` if its type is wrong.
    fn argument(&self, value: &BareItem) -> Option<Argument<'static>> {
        match (self, value) {
            (Self::Flag | Self::Fields, BareItem::Boolean(true)) => Some(Argument::None),
            (Self::Seconds, BareItem::Integer(seconds)) => {
                let seconds = u64::try_from(*seconds).ok()?;
                Some(Argument::Text(seconds.to_string().into_bytes().into()))
            }
            (Self::Fields, BareItem::String(names)) => Some(text(names.as_str())),
            (Self::Fields, BareItem::Token(name)) => Some(text(name.as_str())),
            _ => None,
        }
    }
}

fn text(text: &str) -> Argument<'static> {
    Argument::Text(text.as_bytes().to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache_control::{FieldForm, MAX_DELTA_SECONDS};
    use http::HeaderValue;
    use proptest::prelude::*;

    const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");
    const OURS: HeaderName = HeaderName::from_static("lamina-cache-control");

    fn read(lines: &[&'static str]) -> Option<ResponseDirectives> {
        let headers = lines
            .iter()
            .map(|line| (CDN, HeaderValue::from_static(line)))
            .collect();
        targeted(&headers, &[OURS, CDN])
    }

    #[test]
    fn a_valid_field_gives_its_directives() {
        let directives = read(&[
            "max-age=60;ignored=1, foo=(a b), must-revalidate",
            "stale-if-error=99999999999",
        ])
        .unwrap();
        assert_eq!(
            (directives.max_age, directives.must_revalidate),
            (Some(60), true)
        );
        assert_eq!(directives.stale_if_error, Some(MAX_DELTA_SECONDS));
    }

    #[test]
    fn field_forms_are_strings_or_a_token() {
        let fields = |name| FieldForm::Fields(vec![HeaderName::from_static(name)]);
        assert_eq!(
            read(&["no-cache=\"Set-Cookie\""]).unwrap().no_cache,
            fields("set-cookie")
        );
        assert_eq!(read(&["private=x-user"]).unwrap().private, fields("x-user"));
        assert_eq!(read(&["private"]).unwrap().private, FieldForm::Whole);
        assert_eq!(
            read(&["private=?0, max-age=1"]).unwrap().private,
            FieldForm::Absent
        );
    }

    #[test]
    fn a_field_that_is_empty_unparsable_or_of_a_wrong_type_is_ignored_as_a_whole() {
        for line in [
            "",
            "max-age=10, &&&",
            "max-age=\"10\"",
            "max-age",
            "max-age=1.5",
            "max-age=-1",
            "max-age=?0",
            "no-store=1",
            "MaX-aGe=10",
            "max-age =10",
            "no-cache=(a)",
            "max-age=10,",
        ] {
            assert_eq!(read(&[line]), None, "{line}: RFC 9213 §2.1");
        }
    }

    #[test]
    fn the_first_valid_target_is_taken() {
        let mut headers = HeaderMap::new();
        headers.insert(CDN, HeaderValue::from_static("max-age=1"));
        headers.insert(OURS, HeaderValue::from_static("max-age=2"));
        assert_eq!(targeted(&headers, &[OURS, CDN]).unwrap().max_age, Some(2));
        headers.insert(OURS, HeaderValue::from_static("max-age=\"2\""));
        assert_eq!(targeted(&headers, &[OURS, CDN]).unwrap().max_age, Some(1));
        assert_eq!(targeted(&headers, &[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_ignored(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                targeted(&HeaderMap::from_iter([(CDN, value)]), &[CDN]);
            }
        }
    }
}
