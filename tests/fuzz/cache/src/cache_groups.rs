//! Cache groups: the strings of a valid list, whatever stands beside them.
//!
//! Input: lines of `Cache-Groups`.

use http::{HeaderMap, HeaderValue};
use lamina_cache::tags::group;
use lamina_http::cache_groups::{CACHE_GROUPS, MAX_GROUPS, named};
use sfv::{BareItem, List, ListEntry, Parser};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let headers = input::values(&CACHE_GROUPS, data);
    let names = named(&headers, &CACHE_GROUPS);
    let lines: Vec<_> = headers.values().map(HeaderValue::as_bytes).collect();
    let Ok(list) = Parser::new(&lines.join(&b", "[..])).parse::<List>() else {
        return assert!(names.is_empty(), "what does not parse says nothing");
    };
    let strings = list.iter().filter_map(|member| match member {
        ListEntry::Item(item) => match &item.bare_item {
            BareItem::String(text) => Some(text.as_str()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    });
    assert!(
        strings
            .take(MAX_GROUPS)
            .eq(names.iter().map(String::as_str))
    );
    spelled_anew(&list, &names);
    for pair in names.windows(2).filter(|pair| pair[0] != pair[1]) {
        let marks = |host| [group("http", host, &pair[0]), group("http", host, &pair[1])];
        assert_ne!(
            marks("a")[0],
            marks("a")[1],
            "case and space count (RFC 9875 §2)"
        );
        assert_ne!(
            marks("a")[0],
            marks("b")[0],
            "groups of one origin are its own"
        );
    }
}

fn spelled_anew(list: &List, names: &[String]) {
    if let Some(text) = sfv::FieldType::serialize(list) {
        let value = HeaderValue::from_str(&text).expect("visible ASCII");
        let again = named(
            &HeaderMap::from_iter([(CACHE_GROUPS, value)]),
            &CACHE_GROUPS,
        );
        assert_eq!(again, names, "spelling means nothing");
    }
}
