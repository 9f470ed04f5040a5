//! What a store with an index is given for a record, and what the index returns.
//!
//! An index only helps and decides nothing. Whoever reads it asks the store whether a record
//! exists, and the births in it only tell which records are not worth asking for.

use std::time::Duration;

use super::LogOrder;
use super::StoreKey;

/// A record that was written, for the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexNote {
    pub key: StoreKey,
    /// The place in the order of purges at which its load began, without the local step.
    pub born: LogOrder,
    /// How long it lives from now on.
    pub life: Duration,
    pub text: IndexedUrl,
}

/// The URL with which prefixes and patterns are compared, as far as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexedUrl {
    pub url: Box<str>,
    /// The URL was longer than the part that is kept.
    pub is_cut: bool,
}

/// What the index knows of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexMember {
    pub key: StoreKey,
    pub born: LogOrder,
    pub text: IndexedUrl,
    /// The name of the record in the store, for people.
    pub name: String,
}

/// A page of a shard.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct IndexPage {
    pub members: Vec<IndexMember>,
    /// Where the next page begins; 0 after the last page.
    pub next: u64,
}

/// The number of octets of a URL that are kept. With the member and the overhead, an entry of the
/// index takes some 1.3 KiB at most, and a batch that is sent some 80 KiB.
const MAX_TEXT: usize = 1_024;

impl IndexedUrl {
    /// Of a longer URL only the beginning is kept.
    pub fn of(url: &str) -> Self {
        let end = url.floor_char_boundary(MAX_TEXT);
        Self {
            url: url[..end].into(),
            is_cut: end < url.len(),
        }
    }
}

impl StoreKey {
    /// The shard, of `shards` in all, that notes this key: the same on every node.
    pub fn shard(&self, shards: u16) -> u16 {
        let number = u16::from_be_bytes([self.id[0], self.id[1]]);
        number % shards.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_url_is_cut_between_two_characters_and_says_so() {
        let short = IndexedUrl::of("a/é");
        assert_eq!((&*short.url, short.is_cut), ("a/é", false));
        let long = IndexedUrl::of(&"é".repeat(600).replacen('é', "a", 1));
        assert_eq!((long.url.len(), long.is_cut), (1_023, true));
    }

    #[test]
    fn keys_spread_over_the_shards() {
        let shards: std::collections::BTreeSet<_> = (0..1_000_u32)
            .map(|n| StoreKey::of(&n.to_be_bytes()).shard(16))
            .collect();
        assert_eq!(shards, (0..16).collect());
    }
}
