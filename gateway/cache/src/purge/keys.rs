//! The numbers under which a ledger keeps its records.
//!
//! Every number is computed with secrets of this process, so that nobody can search for two
//! selectors that share one. If two do, a purge reaches too much, never too little. Prefixes are
//! found by a hash that is continued from byte to byte of a URL: one pass over the URL gives the
//! numbers of all its prefixes.

use std::hash::{BuildHasher, RandomState};

use super::urls::UrlAnchor;
use crate::key::PurgeHash;

/// The kind of thing that an exact record names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ExactSelectorKind {
    Key,
    Url,
    Tag,
    Group,
    Route,
}

/// Whether a text stands for itself alone or for everything that begins with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UrlMatchExtent {
    Whole,
    Beginning,
}

/// What a record is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PurgeRecordClass {
    Exact(ExactSelectorKind),
    Text(UrlAnchor, UrlMatchExtent),
}

/// The number of classes.
pub(super) const CLASSES: usize = 9;

impl PurgeRecordClass {
    /// Its index among all classes.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Exact(facet) => facet as usize,
            Self::Text(anchor, extent) => 5 + 2 * (anchor as usize) + extent as usize,
        }
    }
}

/// The secrets of this process.
pub(super) struct PurgeHashKeys {
    classes: [u64; CLASSES],
    base: u64,
}

/// A prime; the hashes of texts are polynomials modulo it.
const MODULUS: u64 = (1 << 61) - 1;

/// The hash of a text so far.
#[derive(Clone, Copy, Default)]
pub(super) struct PrefixHash(u64);

impl PurgeHashKeys {
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        Self {
            classes: std::array::from_fn(|class| random.hash_one(class)),
            base: random.hash_one("base") % (MODULUS - 256) + 256,
        }
    }

    /// The number of an exact record.
    pub(super) fn exact(&self, facet: ExactSelectorKind, hash: PurgeHash) -> u64 {
        self.mixed(PurgeRecordClass::Exact(facet), hash)
    }

    /// The number of the text whose hash is `walk`.
    pub(super) fn text(&self, anchor: UrlAnchor, extent: UrlMatchExtent, walk: PrefixHash) -> u64 {
        self.mixed(PurgeRecordClass::Text(anchor, extent), walk.0)
    }

    /// The hash of a whole text.
    pub(super) fn walk(&self, text: &str) -> PrefixHash {
        let bytes = text.bytes();
        bytes.fold(PrefixHash::default(), |walk, byte| self.step(walk, byte))
    }

    /// Continues the hash by one byte.
    pub(super) fn step(&self, PrefixHash(hash): PrefixHash, byte: u8) -> PrefixHash {
        let product = u128::from(hash) * u128::from(self.base) + u128::from(byte) + 1;
        let folded = (product as u64 & MODULUS) + (product >> 61) as u64;
        PrefixHash(if folded >= MODULUS {
            folded - MODULUS
        } else {
            folded
        })
    }

    /// The result is never 0, which stands for no record.
    fn mixed(&self, class: PurgeRecordClass, hash: u64) -> u64 {
        let product =
            u128::from(hash ^ self.classes[class.index()]) * u128::from(self.classes[0] | 1);
        ((product >> 64) as u64 ^ product as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_walk_tells_the_numbers_of_all_beginnings(text in "[ab/]{0,12}", other in "[ab/]{0,12}") {
            let keys = PurgeHashKeys::random();
            let number = |walk| keys.text(UrlAnchor::Host, UrlMatchExtent::Beginning, walk);
            let mut walk = PrefixHash::default();
            let mut found = number(walk) == number(keys.walk(&other));
            for byte in text.bytes() {
                walk = keys.step(walk, byte);
                found |= number(walk) == number(keys.walk(&other));
            }
            prop_assert_eq!(found, text.starts_with(&other));
        }
    }

    #[test]
    fn each_class_has_a_place_of_its_own() {
        let facets = [
            ExactSelectorKind::Key,
            ExactSelectorKind::Url,
            ExactSelectorKind::Tag,
            ExactSelectorKind::Group,
            ExactSelectorKind::Route,
        ];
        let exact = facets.map(PurgeRecordClass::Exact);
        let texts = UrlAnchor::ALL.into_iter().flat_map(|anchor| {
            [UrlMatchExtent::Whole, UrlMatchExtent::Beginning]
                .map(|extent| PurgeRecordClass::Text(anchor, extent))
        });
        let places: Vec<_> = exact
            .into_iter()
            .chain(texts)
            .map(PurgeRecordClass::index)
            .collect();
        assert_eq!(places, (0..CLASSES).collect::<Vec<_>>());
    }
}
