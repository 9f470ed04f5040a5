//! Tags (surrogate keys): the names by which a purge by tag selects entries.
//!
//! They come from the response fields in which applications state them ([`TagFields`]), from the route
//! and from plugins. These fields are for the gateway alone, so clients do not get them.
//!
//! Groups (RFC 9875) are tags that belong to one origin and that unsafe requests purge. The
//! client's caches use them too, so that field is passed on.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{TagFieldConfig, TagSplit};
use crate::http::cache_groups;
use crate::key::{CacheKeyField, KeyBuf, PurgeHash, hash64};

/// A field that names tags.
#[derive(Clone, Debug)]
struct TagField {
    name: HeaderName,
    /// Where both spaces and commas are in use under a name, no tag of the applications that use it
    /// contains either.
    split: TagSplit,
    source: TagFieldSource,
    kept: bool,
}

/// Who says how a field is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TagFieldSource {
    /// It is one of the [`USUAL`] ones.
    Usual,
    Configuration,
}

/// The fields of responses that name tags, and what becomes of them.
#[derive(Clone, Debug)]
pub struct TagFields(Arc<[TagField]>);

/// The usual fields: Fastly's, Cloudflare's, Akamai's, and those that applications send to Varnish
/// (vmod xkey and Shopware; Magento; Symfony and TYPO3; API Platform; Drupal and Acquia's module).
const USUAL: [(&str, TagSplit); 9] = [
    ("surrogate-key", TagSplit::Spaces),
    ("cache-tag", TagSplit::Commas),
    ("edge-cache-tag", TagSplit::Commas),
    ("xkey", TagSplit::SpacesAndCommas),
    ("x-magento-tags", TagSplit::Commas),
    (X_CACHE_TAGS, TagSplit::SpacesAndCommas),
    ("cache-tags", TagSplit::SpacesAndCommas),
    ("purge-cache-tags", TagSplit::SpacesAndCommas),
    ("x-acquia-purge-tags", TagSplit::SpacesAndCommas),
];

const X_CACHE_TAGS: &str = "x-cache-tags";

/// The largest number of tags of one entry. What names more is not stored.
pub const MAX_TAGS: usize = 1_024;
/// The largest size of one tag in bytes. What names a longer one is not stored.
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

    /// Adds the tags of one line of a field.
    fn add_line(&mut self, line: &str, split: TagSplit) {
        let between = |c: char| match split {
            TagSplit::Spaces => c.is_ascii_whitespace(),
            TagSplit::Commas => c == ',',
            TagSplit::SpacesAndCommas => c == ',' || c.is_ascii_whitespace(),
            TagSplit::Semicolons => c == ';',
        };
        for tag in line.split(between).map(str::trim) {
            match numbered(tag).filter(|_| split == TagSplit::Semicolons) {
                Some((table, numbers)) => {
                    let numbers = numbers.split(',').filter(|number| !number.is_empty());
                    numbers.for_each(|number| self.add(&format!("{table}_{number}")));
                }
                None => self.add(tag),
            }
            // API Platform's purger for Souin writes `one, two` into a field that Fastly reads with
            // spaces.
            if let (TagSplit::Spaces, Some(word)) = (split, tag.strip_suffix(',')) {
                self.add(word);
            }
        }
    }
}

/// `pages{,1,2,}`, which nxvarnish writes for `pages_1` and `pages_2`.
fn numbered(tag: &str) -> Option<(&str, &str)> {
    let (table, numbers) = tag.split_once("{,")?;
    Some((table, numbers.strip_suffix(",}")?))
}

impl TagField {
    /// How one line is read. TYPO3's nxvarnish writes `;one;two;` into a field that others fill with
    /// commas.
    fn split_of(&self, line: &str) -> TagSplit {
        let is_nxvarnish = self.source == TagFieldSource::Usual
            && self.name == X_CACHE_TAGS
            && line.starts_with(';');
        match is_nxvarnish {
            true => TagSplit::Semicolons,
            false => self.split,
        }
    }
}

impl TagFields {
    /// The usual fields, with those of a configuration beside them or in their place.
    pub fn new(configured: Option<&[TagFieldConfig]>) -> Self {
        static SHARED: LazyLock<TagFields> = LazyLock::new(|| TagFields::with(&[]));
        match configured {
            None | Some([]) => SHARED.clone(),
            Some(fields) => Self::with(fields),
        }
    }

    fn with(configured: &[TagFieldConfig]) -> Self {
        // `config` has already checked the names.
        let own = configured.iter().filter_map(|field| {
            Some(TagField {
                name: field.header.to_ascii_lowercase().parse().ok()?,
                split: field.split,
                source: TagFieldSource::Configuration,
                kept: field.keep,
            })
        });
        let own: Vec<TagField> = own.collect();
        let usual = USUAL.iter().map(|(name, split)| TagField {
            name: HeaderName::from_static(name),
            split: *split,
            source: TagFieldSource::Usual,
            kept: false,
        });
        let usual = usual.filter(|usual| own.iter().all(|field| field.name != usual.name));
        let usual: Vec<TagField> = usual.collect();
        Self(usual.into_iter().chain(own).collect())
    }

    /// How many of the tags that a response names and of `others` are more or longer than an entry
    /// keeps, which has this many from its request.
    pub fn excess(&self, headers: &HeaderMap, others: &[String], of_request: usize) -> usize {
        let lines = || self.0.iter().flat_map(|field| field.lines(headers));
        let octets: usize = lines().map(|line| line.len()).sum();
        let others_octets: usize = others.iter().map(String::len).sum();
        // So few bytes name no long tag, and not many.
        if octets.max(others_octets) <= MAX_TAG_BYTES
            && octets + others.len() + of_request <= MAX_TAGS
        {
            return 0;
        }
        let mut tags = Tags {
            hashes: vec![PurgeHash::default(); of_request],
            dropped: 0,
        };
        for field in self.0.iter() {
            field
                .lines(headers)
                .for_each(|line| field.read(line, &mut tags));
        }
        others.iter().for_each(|tag| tags.add(tag));
        tags.dropped
    }

    /// The tags that a response names. Its fields are removed, unless clients get them.
    pub fn take(&self, headers: &mut HeaderMap, tags: &mut Tags) {
        for field in &*self.0 {
            if !field.is_in(headers) {
                continue;
            }
            field.lines(headers).for_each(|line| field.read(line, tags));
            if !field.kept {
                headers.remove(&field.name);
            }
        }
    }

    /// Removes the fields from a response, unless clients get them.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for field in self.0.iter().filter(|field| !field.kept) {
            if field.is_in(headers) {
                headers.remove(&field.name);
            }
        }
    }
}

impl TagField {
    /// Its lines, which are no text where an application has written something else.
    fn lines<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let lines = self.is_in(headers).then(|| headers.get_all(&self.name));
        let lines = lines.into_iter().flatten();
        lines.map(HeaderValue::as_bytes)
    }

    /// Adds the tags of a line. Names are UTF-8. An invalid one must not affect the other names of the
    /// line.
    fn read(&self, line: &[u8], tags: &mut Tags) {
        let line: Cow<'_, str> = String::from_utf8_lossy(line);
        tags.add_line(&line, self.split_of(&line));
    }

    /// Most responses have one of these fields, or none: going through the names costs less than
    /// a look-up by hash for each of them.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.keys().any(|name| *name == self.name)
    }
}

impl Default for TagFields {
    fn default() -> Self {
        Self::new(None)
    }
}

/// The tag of all entries of a content type, without its parameters.
pub fn content_type_tag(essence: &str) -> String {
    format!("content-type:{}", essence.to_ascii_lowercase())
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
        headers.append("x-acquia-purge-tags", "p q".parse().unwrap());
        let mut tags = Tags::default();
        TagFields::default().take(&mut headers, &mut tags);
        let names = "a|b|c|d e|f|g|h|i|j|cat_p_5|k|l|m|/foo|/bar|n|o|p|q";
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
            TagFields::default().take(&mut headers, &mut tags);
            let want: Vec<_> = names.iter().map(|name| hash64(name.as_bytes())).collect();
            assert_eq!(tags.hashes, want, "{}", line.escape_ascii());
        }
    }

    fn named(line: &str, field: &str, configured: &[TagFieldConfig]) -> (Vec<PurgeHash>, bool) {
        let mut headers = HeaderMap::new();
        let name: HeaderName = field.parse().unwrap();
        headers.append(&name, line.parse().unwrap());
        let mut tags = Tags::default();
        TagFields::new(Some(configured)).take(&mut headers, &mut tags);
        (tags.hashes, headers.contains_key(&name))
    }

    fn hashes(names: &[&str]) -> Vec<PurgeHash> {
        names.iter().map(|name| hash64(name.as_bytes())).collect()
    }

    #[test]
    fn the_form_of_typo3_is_told_by_its_semicolons() {
        let line = ";site;pages{,1,23,};a,b;";
        let (tags, _) = named(line, "x-cache-tags", &[]);
        assert_eq!(tags, hashes(&["site", "pages_1", "pages_23", "a,b"]));
        let own = [TagFieldConfig {
            header: "X-Cache-Tags".to_owned(),
            split: TagSplit::Commas,
            keep: false,
        }];
        assert_eq!(
            named(";a,b", "x-cache-tags", &own).0,
            hashes(&[";a", "b"]),
            "a field of the configuration is read as written there"
        );
        let (tags, _) = named(";a b", "surrogate-key", &[]);
        assert_eq!(tags, hashes(&[";a", "b"]), "no other field is TYPO3's");
    }

    /// API Platform's purger for Souin joins them with `, `; Fastly's keys may have commas in them.
    #[test]
    fn a_comma_behind_a_word_of_surrogate_key_hides_no_tag() {
        let (tags, _) = named("/books/1, /books a,b", "surrogate-key", &[]);
        assert_eq!(tags, hashes(&["/books/1,", "/books/1", "/books", "a,b"]));
    }

    #[test]
    fn a_configured_field_counts_beside_the_usual_ones_or_in_place_of_its_name() {
        let own = [
            TagFieldConfig {
                header: "X-My-Tags".to_owned(),
                split: TagSplit::Semicolons,
                keep: true,
            },
            TagFieldConfig {
                header: "Surrogate-Key".to_owned(),
                split: TagSplit::Commas,
                keep: false,
            },
        ];
        assert_eq!(
            named("a b;c", "x-my-tags", &own),
            (hashes(&["a b", "c"]), true)
        );
        assert_eq!(
            named("a b,c", "surrogate-key", &own),
            (hashes(&["a b", "c"]), false)
        );
        assert_eq!(
            named("a b,c", "xkey", &own),
            (hashes(&["a", "b", "c"]), false)
        );
        assert_eq!(named("a", "x-my-tags", &[]), (hashes(&[]), true));
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let mut tags = Tags::default();
        tags.add(&"x".repeat(MAX_TAG_BYTES + 1));
        (0..MAX_TAGS + 3).for_each(|i| tags.add(&i.to_string()));
        assert_eq!((tags.hashes.len(), tags.dropped), (MAX_TAGS, 4));
    }

    #[test]
    fn tags_beyond_what_an_entry_keeps_are_found_before_it_is_stored() {
        let excess = |field: &str, line: String, others: &[String], of_request| {
            let mut headers = HeaderMap::new();
            let name: HeaderName = field.parse().unwrap();
            headers.append(name, line.parse().unwrap());
            TagFields::default().excess(&headers, others, of_request)
        };
        let many = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(excess("x-magento-tags", many(MAX_TAGS), &[], 0), 0);
        assert_eq!(excess("x-magento-tags", many(MAX_TAGS + 1), &[], 0), 1);
        assert_eq!(excess("x-magento-tags", many(MAX_TAGS), &[], 2), 2);
        let plugin = ["p".to_owned()];
        assert_eq!(excess("x-magento-tags", many(MAX_TAGS), &plugin, 0), 1);
        let short = "a,".repeat(MAX_TAG_BYTES / 2);
        assert_eq!(excess("cache-tag", short.clone(), &[], MAX_TAGS), 512);
        let words = "a, ".repeat(MAX_TAGS / 2 + 1);
        assert_eq!(excess("surrogate-key", words, &[], 0), 2);
        let long = "x".repeat(MAX_TAG_BYTES + 1);
        assert_eq!(excess("xkey", long.clone(), &[], 0), 1);
        assert_eq!(excess("xkey", "a".to_owned(), &[long], 0), 1);
        assert_eq!(excess("x-other", many(2 * MAX_TAGS), &[], 0), 0);
    }
}
