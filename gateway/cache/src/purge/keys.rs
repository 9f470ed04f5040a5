//! The numbers under which a ledger keeps its records.
//!
//! Every number is made with secrets of this process, so that nobody can look for two
//! selectors that share one. Two that do make a purge reach too much, never too little.
//! Prefixes are found by a hash that is carried on from byte to byte of a URL: one walk
//! over the URL tells the numbers of all its beginnings.

use std::hash::{BuildHasher, RandomState};

use super::urls::Anchor;
use crate::key::Hash64;

/// By what an exact record is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Facet {
    Key,
    Url,
    Tag,
    Group,
    Route,
}

/// Whether a text stands for itself alone or for all that begins with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    Whole,
    Beginning,
}

/// What a record is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Exact(Facet),
    Text(Anchor, Extent),
}

/// How many classes there are.
pub(super) const CLASSES: usize = 9;

impl Class {
    /// Its place among all.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Exact(facet) => facet as usize,
            Self::Text(anchor, extent) => 5 + 2 * (anchor as usize) + extent as usize,
        }
    }
}

/// The secrets.
pub(super) struct Keys {
    classes: [u64; CLASSES],
    base: u64,
}

/// A prime; hashes of texts are polynomials modulo it.
const MODULUS: u64 = (1 << 61) - 1;

/// The hash of a text so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Walk(u64);

impl Keys {
    pub(super) fn random() -> Self {
        let dice = RandomState::new();
        Self {
            classes: std::array::from_fn(|class| dice.hash_one(class)),
            base: dice.hash_one("base") % (MODULUS - 256) + 256,
        }
    }

    /// The number of an exact record.
    pub(super) fn exact(&self, facet: Facet, hash: Hash64) -> u64 {
        self.mixed(Class::Exact(facet), hash)
    }

    /// The number of the text that `walk` has gone over.
    pub(super) fn text(&self, anchor: Anchor, extent: Extent, walk: Walk) -> u64 {
        self.mixed(Class::Text(anchor, extent), walk.0)
    }

    /// The hash of a whole text.
    pub(super) fn walk(&self, text: &str) -> Walk {
        let bytes = text.bytes();
        bytes.fold(Walk::default(), |walk, byte| self.step(walk, byte))
    }

    /// Goes on by one byte.
    pub(super) fn step(&self, Walk(hash): Walk, byte: u8) -> Walk {
        let product = u128::from(hash) * u128::from(self.base) + u128::from(byte) + 1;
        let folded = (product as u64 & MODULUS) + (product >> 61) as u64;
        Walk(if folded >= MODULUS {
            folded - MODULUS
        } else {
            folded
        })
    }

    /// Never 0, which stands for no record.
    fn mixed(&self, class: Class, hash: u64) -> u64 {
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
            let keys = Keys::random();
            let number = |walk| keys.text(Anchor::Host, Extent::Beginning, walk);
            let mut walk = Walk::default();
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
            Facet::Key,
            Facet::Url,
            Facet::Tag,
            Facet::Group,
            Facet::Route,
        ];
        let exact = facets.map(Class::Exact);
        let texts = Anchor::ALL.into_iter().flat_map(|anchor| {
            [Extent::Whole, Extent::Beginning].map(|extent| Class::Text(anchor, extent))
        });
        let places: Vec<_> = exact.into_iter().chain(texts).map(Class::index).collect();
        assert_eq!(places, (0..CLASSES).collect::<Vec<_>>());
    }
}
