//! The names of everything we keep in Redis.
//!
//! Decision: what one script touches has the same hash tag, and so the same slot of a Cluster.
//! Braces in the prefix would prevent that, so they are not allowed. Names are exact and never
//! patterns, so no character of the prefix has a special meaning.

use std::fmt::Write;

use crate::key::PurgeHash;
use crate::l2::store::StoreKey;

/// The names with one prefix.
#[derive(Clone, Debug)]
pub(super) struct RedisKeyNames {
    prefix: String,
}

impl RedisKeyNames {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// The record itself and nothing else: other readers use GET on it.
    pub(super) fn record(&self, key: &StoreKey) -> String {
        self.of(key, 'r')
    }

    /// The place in the order of purges at which the load of the record began.
    pub(super) fn born(&self, key: &StoreKey) -> String {
        self.of(key, 'b')
    }

    pub(super) fn tombstone(&self, key: &StoreKey) -> String {
        self.of(key, 't')
    }

    pub(super) fn lease(&self, key: &StoreKey) -> String {
        self.of(key, 'l')
    }

    /// The note of invalidations of a URL or group.
    pub(super) fn note(&self, number: PurgeHash) -> String {
        format!("{}{{{number:016x}}}i", self.prefix)
    }

    /// The stream of purges.
    pub(super) fn log(&self) -> String {
        format!("{}{{log}}", self.prefix)
    }

    /// The head of the log: generation, counter, floor.
    pub(super) fn log_head(&self) -> String {
        format!("{}{{log}}h", self.prefix)
    }

    /// A shard of the index: store keys by their expiry. Both names of a shard have the same slot;
    /// the shards are spread over the slots.
    pub(super) fn index(&self, shard: u16) -> String {
        format!("{}index:{{{shard}}}", self.prefix)
    }

    /// Births and URLs of a shard's store keys.
    pub(super) fn index_texts(&self, shard: u16) -> String {
        format!("{}index:{{{shard}}}u", self.prefix)
    }

    /// A pattern of all names, as ACL rules have it.
    pub(super) fn all(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// A name in the slot of one of these names, for a probe.
    pub(super) fn probe(&self, beside: &str) -> String {
        format!("{beside}w")
    }

    /// The channel for the keys of released leases.
    pub(super) fn freed(&self) -> String {
        format!("{}freed", self.prefix)
    }

    /// In braces the id that `lamina explain` shows for the key; after them the variant's own name.
    fn of(&self, key: &StoreKey, kind: char) -> String {
        let mut name = String::with_capacity(self.prefix.len() + 51);
        // Writing to a String can't fail.
        let _ = write!(name, "{}{{{}}}", self.prefix, key.home);
        for byte in key.id {
            let _ = write!(name, "{byte:02x}");
        }
        name.push(kind);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyId;

    #[test]
    fn the_names_of_a_key_and_its_variants_share_one_hash_tag() {
        let names = RedisKeyNames::new("lamina:".to_owned());
        let key = StoreKey {
            id: [0xab; 16],
            home: KeyId(0x1f),
        };
        let name = "lamina:{000000000000001f}abababababababababababababababab";
        assert_eq!(names.record(&key), format!("{name}r"));
        assert_eq!(names.lease(&key), format!("{name}l"));
        assert_eq!(names.note(0x1f), "lamina:{000000000000001f}i");
        assert_eq!(names.log(), "lamina:{log}");
        assert_eq!(names.log_head(), "lamina:{log}h");
        assert_eq!(names.index(7), "lamina:index:{7}");
        assert_eq!(names.index_texts(7), "lamina:index:{7}u");
    }
}
