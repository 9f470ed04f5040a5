//! Tags of a response: the fields that carry them end here, and no name in them is lost.
//!
//! Input: the fields of a response.

use http::HeaderMap;
use lamina_cache::key::hash64;
use lamina_cache::tags::{MAX_TAG_BYTES, MAX_TAGS, TagFields, Tags};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let given = input::fields(data);
    let (mut taken, mut stripped) = (given.clone(), given.clone());
    let mut tags = Tags::default();
    let fields = TagFields::default();
    fields.take(&mut taken, &mut tags);
    fields.strip(&mut stripped);
    assert_eq!(taken, stripped);
    for name in ["surrogate-key", "cache-tag", "edge-cache-tag"] {
        assert!(!taken.contains_key(name));
    }
    assert!(tags.hashes.len() <= MAX_TAGS);
    if tags.dropped == 0 {
        all_found(&given, "surrogate-key", b' ', &tags);
        all_found(&given, "cache-tag", b',', &tags);
        all_found(&given, "edge-cache-tag", b',', &tags);
    }
}

/// A purge by a name reaches the entry, whatever odd bytes stand beside it.
fn all_found(given: &HeaderMap, field: &str, separator: u8, tags: &Tags) {
    let lines = given.get_all(field).iter();
    for tag in lines.flat_map(|line| line.as_bytes().split(|&octet| octet == separator)) {
        let tag = tag.trim_ascii();
        let plain = tag.iter().all(u8::is_ascii_graphic) && tag.len() <= MAX_TAG_BYTES;
        if plain && !tag.is_empty() {
            assert!(tags.hashes.contains(&hash64(tag)), "{}", tag.escape_ascii());
        }
    }
}
