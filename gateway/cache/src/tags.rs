//! Tags (surrogate keys): the names by which a purge by tag selects entries.
//!
//! They come from the response fields in which applications state them ([`FIELDS`]), from the route
//! and from plugins. These fields are for the gateway alone, so clients do not get them.
//!
//! Groups (RFC 9875) are tags that belong to one origin and that unsafe requests purge. The
//! client's caches use them too, so that field is passed on.

use http::{HeaderMap, HeaderName};

use crate::http::cache_groups;
use crate::key::{CacheKeyField, KeyBuf, PurgeHash, hash64};

/// What separates two tags.
#[derive(Clone, Copy)]
enum TagSeparator {
    Spaces,
    Commas,
    /// Both are in use under this name, and no tag of the applications that use it contains either.
    SpacesAndCommas,
}

/// The fields that name tags: Fastly's, Cloudflare's, Akamai's, and those that applications
/// send to Varnish (vmod xkey and Shopware; Magento; Symfony and TYPO3; API Platform; Drupal).
const FIELDS: [(HeaderName, TagSeparator); 8] = [
    (
        HeaderName::from_static("surrogate-key"),
        TagSeparator::Spaces,
    ),
    (HeaderName::from_static("cache-tag"), TagSeparator::Commas),
    (
        HeaderName::from_static("edge-cache-tag"),
        TagSeparator::Commas,
    ),
    (
        HeaderName::from_static("xkey"),
        TagSeparator::SpacesAndCommas,
    ),
    (
        HeaderName::from_static("x-magento-tags"),
        TagSeparator::Commas,
    ),
    (
        HeaderName::from_static("x-cache-tags"),
        TagSeparator::SpacesAndCommas,
    ),
    (
        HeaderName::from_static("cache-tags"),
        TagSeparator::SpacesAndCommas,
    ),
    (
        HeaderName::from_static("purge-cache-tags"),
        TagSeparator::SpacesAndCommas,
    ),
];

/// The largest number of tags of one entry; more are dropped and counted.
pub const MAX_TAGS: usize = 1_024;
/// The largest size of one tag in bytes; a longer tag is dropped and counted.
pub const MAX_TAG_BYTES: usize = 1_024;

/// An entry's tags.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Tags {
    pub hashes: Vec<PurgeHash>,
    /// The number of tags that were dropped because they were too long or too many.
    pub dropped: usize,
}

impl Tags {
    /// Adds one tag.
    pub fn add(&mut self, tag: &str) {
        if tag.is_empty() {
            return;
        }
        if tag.len() > MAX_TAG_BYTES || self.hashes.len() >= MAX_TAGS {
            self.dropped += 1;
            return;
        }
        self.hashes.push(hash64(tag.as_bytes()));
    }

    /// Removes the tag fields from a response and adds the tags that they name.
    pub fn take_from(&mut self, headers: &mut HeaderMap) {
        for (name, between) in FIELDS {
            for line in headers.get_all(&name) {
                // Names are UTF-8. An invalid one must not affect the other names of the line.
                let line = String::from_utf8_lossy(line.as_bytes());
                let parts = |c: char| match between {
                    TagSeparator::Spaces => c.is_ascii_whitespace(),
                    TagSeparator::Commas => c == ',',
                    TagSeparator::SpacesAndCommas => c == ',' || c.is_ascii_whitespace(),
                };
                line.split(parts).for_each(|tag| self.add(tag.trim()));
            }
            headers.remove(name);
        }
    }
}

/// The hash of a group. Groups of different origins are separate (RFC 9875 §2.1).
pub fn group(scheme: &str, host: &str, name: &str) -> PurgeHash {
    let mut all = KeyBuf::default();
    all.push(CacheKeyField::Scheme, scheme.as_bytes());
    all.push(CacheKeyField::Host, host.as_bytes());
    all.push(CacheKeyField::Text, name.as_bytes());
    hash64(all.as_bytes())
}

/// The groups that a field of a response from `scheme://host` names.
pub fn groups(
    headers: &HeaderMap,
    field: &HeaderName,
    scheme: &str,
    host: &str,
) -> Box<[PurgeHash]> {
    let names = cache_groups::named(headers, field);
    names.iter().map(|name| group(scheme, host, name)).collect()
}

/// Removes the tag fields from a response that is not stored.
pub fn strip(headers: &mut HeaderMap) {
    for (name, _) in FIELDS {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_count_and_none_goes_on() {
        let mut headers = HeaderMap::new();
        headers.append("surrogate-key", "a  b".parse().unwrap());
        headers.append("surrogate-key", "c".parse().unwrap());
        headers.append("cache-tag", "d e, f,".parse().unwrap());
        headers.append("edge-cache-tag", "g".parse().unwrap());
        headers.append("xkey", "h i, j".parse().unwrap());
        headers.append("x-magento-tags", "cat_p_5,k".parse().unwrap());
        headers.append("x-cache-tags", "l, m".parse().unwrap());
        headers.append("cache-tags", "/foo,/bar".parse().unwrap());
        headers.append("purge-cache-tags", "n o".parse().unwrap());
        let mut tags = Tags::default();
        tags.take_from(&mut headers);
        let names = "a|b|c|d e|f|g|h|i|j|cat_p_5|k|l|m|/foo|/bar|n|o";
        let want: Vec<_> = names.split('|').map(|t| hash64(t.as_bytes())).collect();
        assert_eq!((tags.hashes, tags.dropped), (want, 0));
        assert!(headers.is_empty());
    }

    /// Guards against a purge by `a` that misses an entry with the tags `é` and `a`.
    #[test]
    fn names_beyond_ascii_count_and_hide_none() {
        for (line, names) in [
            ("é, a".as_bytes(), &["é", "a"][..]),
            (b"\xff, a", &["\u{fffd}", "a"]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("cache-tag", http::HeaderValue::from_bytes(line).unwrap());
            let mut tags = Tags::default();
            tags.take_from(&mut headers);
            let want: Vec<_> = names.iter().map(|name| hash64(name.as_bytes())).collect();
            assert_eq!(tags.hashes, want, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let mut tags = Tags::default();
        tags.add(&"x".repeat(MAX_TAG_BYTES + 1));
        (0..MAX_TAGS + 3).for_each(|i| tags.add(&i.to_string()));
        assert_eq!((tags.hashes.len(), tags.dropped), (MAX_TAGS, 4));
    }
}
