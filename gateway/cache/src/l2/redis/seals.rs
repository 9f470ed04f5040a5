//! Proves that something in Redis was written by a node that knows the secret: purges of the log,
//! the log's generation, notes of invalidations, leases.
//!
//! Each purpose has a key of its own, derived from the secret, so that a seal for one purpose is
//! never valid for another. A purge is sealed with its number and the log's generation, a lease and
//! a note with their key, so none of them can be moved to another place.

use crate::l2::store::LogNumber;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::key::PurgeHash;
use crate::l2::store::{LoggedPurge, StoreKey};
use crate::record::keyed;

/// Bytes of a seal.
pub(super) const SEAL: usize = 16;

type SealHmac = Hmac<Sha256>;

/// The numbers of the log that a purge stands for; only one if it reaches anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PurgeNumberRange {
    pub(super) generation: u64,
    pub(super) since: LogNumber,
    pub(super) number: LogNumber,
}

/// Makes and compares seals.
pub(super) struct RedisSeals {
    purges: SealHmac,
    generations: SealHmac,
    leases: SealHmac,
    notes: SealHmac,
}

impl RedisSeals {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self {
            purges: keyed(secret, "lamina purge 1"),
            generations: keyed(secret, "lamina purge log generation 1"),
            leases: keyed(secret, "lamina lease 1"),
            notes: keyed(secret, "lamina invalidation note 1"),
        }
    }

    pub(super) fn of_purge(&self, place: PurgeNumberRange, purge: &LoggedPurge) -> [u8; SEAL] {
        first(self.purge(place, purge))
    }

    pub(super) fn holds_for_purge(
        &self,
        place: PurgeNumberRange,
        purge: &LoggedPurge,
        seal: &[u8],
    ) -> bool {
        holds(self.purge(place, purge), seal)
    }

    fn purge(&self, place: PurgeNumberRange, purge: &LoggedPurge) -> SealHmac {
        let numbers = [place.generation, place.since.value(), place.number.value()];
        let numbers = numbers.map(u64::to_be_bytes).concat();
        let begun = self.purges.clone().chain_update(numbers);
        begun
            .chain_update([u8::from(purge.soft)])
            .chain_update(&purge.selector)
    }

    pub(super) fn of_generation(&self, generation: u64) -> [u8; SEAL] {
        first(self.generation(generation))
    }

    pub(super) fn holds_for_generation(&self, generation: u64, seal: &[u8]) -> bool {
        holds(self.generation(generation), seal)
    }

    fn generation(&self, generation: u64) -> SealHmac {
        let begun = self.generations.clone();
        begun.chain_update(generation.to_be_bytes())
    }

    pub(super) fn of_lease(&self, key: &StoreKey, term: &[u8]) -> [u8; SEAL] {
        first(self.lease(key, term))
    }

    pub(super) fn holds_for_lease(&self, key: &StoreKey, term: &[u8], seal: &[u8]) -> bool {
        holds(self.lease(key, term), seal)
    }

    pub(super) fn of_note(&self, number: PurgeHash, stamp: &[u8]) -> [u8; SEAL] {
        first(self.note(number, stamp))
    }

    pub(super) fn holds_for_note(&self, number: PurgeHash, stamp: &[u8], seal: &[u8]) -> bool {
        holds(self.note(number, stamp), seal)
    }

    fn note(&self, number: PurgeHash, stamp: &[u8]) -> SealHmac {
        let begun = self.notes.clone().chain_update(number.to_be_bytes());
        begun.chain_update(stamp)
    }

    fn lease(&self, key: &StoreKey, term: &[u8]) -> SealHmac {
        let begun = self.leases.clone().chain_update(key.to_bytes());
        begun.chain_update(term)
    }
}

fn first(mark: SealHmac) -> [u8; SEAL] {
    let whole = mark.finalize().into_bytes();
    std::array::from_fn(|i| whole[i])
}

/// Compares in a time that does not reveal how much of `seal` is right.
fn holds(mark: SealHmac, seal: &[u8]) -> bool {
    seal.len() == SEAL && mark.verify_truncated_left(seal).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_what_it_was_made_for_and_for_nothing_else() {
        let (seals, others) = (RedisSeals::new(b"secret"), RedisSeals::new(b"another"));
        let purge = |selector: &str, soft| LoggedPurge {
            selector: selector.to_owned(),
            soft,
        };
        let ours = purge("tag:a", false);
        let place = |generation, since: u64, number: u64| PurgeNumberRange {
            generation,
            since: since.into(),
            number: number.into(),
        };
        let here = place(1, 2, 2);
        let seal = seals.of_purge(here, &ours);
        assert!(seals.holds_for_purge(here, &ours, &seal));
        for (other_place, other) in [
            (place(2, 2, 2), purge("tag:a", false)),
            (place(1, 3, 3), purge("tag:a", false)),
            (place(1, 1, 2), purge("tag:a", false)),
            (here, purge("tag:b", false)),
            (here, purge("tag:a", true)),
        ] {
            assert!(!seals.holds_for_purge(other_place, &other, &seal));
        }
        assert!(!others.holds_for_purge(here, &ours, &seal));
        assert!(!seals.holds_for_purge(here, &ours, &seal[..8]), "cut");
        let note = seals.of_note(5, b"stamp");
        assert!(seals.holds_for_note(5, b"stamp", &note));
        assert!(!seals.holds_for_note(6, b"stamp", &note));
        let (key, other) = (StoreKey::of(b"a"), StoreKey::of(b"b"));
        let lease = seals.of_lease(&key, b"term");
        assert!(seals.holds_for_lease(&key, b"term", &lease));
        assert!(!seals.holds_for_lease(&other, b"term", &lease));
        assert!(!seals.holds_for_lease(&key, b"next", &lease));
        let generation = seals.of_generation(7);
        assert!(seals.holds_for_generation(7, &generation));
        assert!(!seals.holds_for_generation(8, &generation));
    }
}
