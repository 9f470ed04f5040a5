//! Cache groups (RFC 9875): the names in `Cache-Groups` and `Cache-Group-Invalidation`.
//!
//! Both are structured lists of strings. A field that does not parse counts as absent; members of
//! another type and parameters are ignored (§2, §3).

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

/// Names the groups that a response belongs to.
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// Names the groups that a response to an unsafe request invalidates.
pub const CACHE_GROUP_INVALIDATION: HeaderName =
    HeaderName::from_static("cache-group-invalidation");

/// The most groups of one field; the RFC asks for at least 32, of 32 characters each (§2).
pub const MAX_GROUPS: usize = 128;

/// The groups that field `name` lists. Their length has no limit here, since that of the head has.
pub fn named(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else {
        return Vec::new();
    };
    let first = first.as_bytes().to_vec();
    // Several lines are one field value, joined by a comma (RFC 9651 §4.2).
    let joined = lines.fold(first, |all, line| [&all, line.as_bytes()].join(&b", "[..]));
    let list: List = Parser::new(&joined).parse().unwrap_or_default();
    list.into_iter()
        .filter_map(|member| match member {
            ListEntry::Item(item) => match item.bare_item {
                BareItem::String(text) => Some(String::from(text)),
                _ => None,
            },
            ListEntry::InnerList(_) => None,
        })
        .take(MAX_GROUPS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn read(lines: &[&'static str]) -> Vec<String> {
        let headers = lines
            .iter()
            .map(|line| (CACHE_GROUPS, HeaderValue::from_static(line)));
        named(&headers.collect(), &CACHE_GROUPS)
    }

    #[test]
    fn groups_are_the_strings_of_all_lines() {
        assert_eq!(
            read(&["\"a\", \"B c\";x=1", "\"d,e\""]),
            ["a", "B c", "d,e"]
        );
        assert_eq!(read(&["\"a\", token, 1, (\"b\")"]), ["a"]);
        assert!(read(&[]).is_empty());
    }

    #[test]
    fn a_field_that_does_not_parse_says_nothing() {
        for line in ["\"a", "a b", "\"a\",", "\"a\"; \"b\""] {
            assert!(read(&[line]).is_empty(), "{line}");
        }
    }

    #[test]
    fn thirty_two_groups_of_thirty_two_characters_are_kept() {
        let all: Vec<_> = (0..32).map(|n| format!("\"{n:032}\"")).collect();
        let headers = HeaderMap::from_iter([(CACHE_GROUPS, all.join(",").parse().unwrap())]);
        let groups = named(&headers, &CACHE_GROUPS);
        assert_eq!((groups.len(), groups[31].len()), (32, 32));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                named(&HeaderMap::from_iter([(CACHE_GROUPS, value)]), &CACHE_GROUPS);
            }
        }
    }
}
