//! Targeted cache control: exactly the valid dictionaries count, however they are spelled.
//!
//! Input: lines of `CDN-Cache-Control`.

use http::{HeaderMap, HeaderName, HeaderValue};
use lamina_http::cache_control::targeted;
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use fuzz_harness::input;

const FIELD: HeaderName = HeaderName::from_static("cdn-cache-control");

pub fn check(data: &[u8]) {
    let headers = input::values(&FIELD, data);
    let directives = targeted(&headers, &[FIELD]);
    let lines: Vec<_> = headers.values().map(HeaderValue::as_bytes).collect();
    let parsed = Parser::new(&lines.join(&b", "[..])).parse::<Dictionary>();
    let Some(dictionary) = parsed.ok().filter(|dictionary| !dictionary.is_empty()) else {
        return assert_eq!(directives, None, "what does not parse is not there");
    };
    let seconds = |name: &str| dictionary.get(name).map(integer);
    for name in [
        "max-age",
        "s-maxage",
        "stale-while-revalidate",
        "stale-if-error",
    ] {
        if seconds(name).is_some_and(|value| value.is_none_or(|number| number < 0)) {
            return assert_eq!(directives, None, "one wrong type makes all of it invalid");
        }
    }
    let Some(directives) = directives else { return };
    let stated = seconds("max-age")
        .flatten()
        .map(|number| number.min(1 << 31));
    assert_eq!(directives.max_age.map(i64::from), stated);
    let no_store = dictionary.get("no-store").is_some_and(is_true);
    assert_eq!(directives.no_store, no_store);
    let canonical = sfv::FieldType::serialize(&dictionary).expect("a dictionary with members");
    let canonical = HeaderValue::from_str(&canonical).expect("visible ASCII");
    let again = targeted(&HeaderMap::from_iter([(FIELD, canonical)]), &[FIELD]);
    assert_eq!(again, Some(directives), "spelling means nothing");
}

fn integer(entry: &ListEntry) -> Option<i64> {
    match entry {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::Integer(number) => Some(number.into()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    }
}

fn is_true(entry: &ListEntry) -> bool {
    matches!(entry, ListEntry::Item(item) if item.bare_item == BareItem::Boolean(true))
}
