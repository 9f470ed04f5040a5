//! A number for each key, in memory of a fixed size.
//!
//! Keys are hashed into sets of [`WAYS`] places each. A key that has no place takes one of its set:
//! the one with the lowest number. Numbers are moments that move into the future with each request,
//! so that is a key which has not asked for long, or one that loses the least by being forgotten; a
//! client that has used up its allowance is not made forgotten by others that come once.
//!
//! Nothing is locked, and nothing is allocated after the table is made. Where a place changes its
//! owner while another thread is at it, one request may be counted for the other key; a key that
//! comes for the first time on two threads at once may get two places, of which the first is used
//! from then on.

use std::sync::atomic::{AtomicU64, Ordering};

/// The places of a set.
const WAYS: usize = 16;

/// There are so many places for each key that is to be remembered: keys are not spread evenly over
/// the sets.
const SPARE: usize = 2;

/// How often a place is looked for that others take at the same time.
const ATTEMPTS: usize = 8;

/// Numbers by the hashes of their keys.
pub struct KeyTable {
    sets: Box<[LimitedKeySet]>,
}

/// The number of a key.
pub enum KeyNumber<'a> {
    /// Of one that was here before.
    Known(&'a AtomicU64),
    /// Of one that is new; it is the first number that was given.
    New(&'a AtomicU64),
}

impl<'a> KeyNumber<'a> {
    /// The number, whether it is new or not.
    pub fn any(self) -> &'a AtomicU64 {
        match self {
            Self::Known(number) | Self::New(number) => number,
        }
    }
}

/// Some places, of which a key may have any.
#[derive(Default)]
#[repr(align(64))]
struct LimitedKeySet {
    /// The hashes; 0 is nobody's.
    owners: [AtomicU64; WAYS],
    numbers: [AtomicU64; WAYS],
}

impl KeyTable {
    /// A table that remembers at least so many keys, apart from a few where many fall into one set.
    pub fn new(keys: usize) -> Self {
        let sets = (keys * SPARE).div_ceil(WAYS).max(1);
        Self {
            sets: (0..sets).map(|_| LimitedKeySet::default()).collect(),
        }
    }

    /// The number of a key. A key that is new gets the number `first`, which stands there before
    /// anybody else can take its place for being the lowest.
    pub fn number(&self, hash: u64, first: u64) -> KeyNumber<'_> {
        let owner = hash.max(1);
        let set = &self.sets[self.place(hash)];
        for _ in 0..ATTEMPTS {
            if let Some(way) = set.way_of(owner) {
                return KeyNumber::Known(&set.numbers[way]);
            }
            if let Some(way) = set.claim(owner, first) {
                return KeyNumber::New(&set.numbers[way]);
            }
        }
        // Others are quicker each time: it shares a place with one of them.
        KeyNumber::Known(&set.numbers[set.lowest().0])
    }

    /// The number of a key that is remembered.
    pub fn known(&self, hash: u64) -> Option<u64> {
        let set = &self.sets[self.place(hash)];
        let way = set.way_of(hash.max(1))?;
        Some(set.numbers[way].load(Ordering::Acquire))
    }

    /// How many keys are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let owners = self.sets.iter().flat_map(|set| &set.owners);
        owners
            .filter(|owner| owner.load(Ordering::Relaxed) != 0)
            .count()
    }

    fn place(&self, hash: u64) -> usize {
        let wide = u128::from(hash) * self.sets.len() as u128;
        (wide >> 64) as usize
    }
}

impl LimitedKeySet {
    fn way_of(&self, owner: u64) -> Option<usize> {
        let owners = self.owners.iter();
        owners
            .map(|known| known.load(Ordering::Acquire))
            .position(|known| known == owner)
    }

    /// Takes the place with the lowest number. None if others change it at the same time. Who changes
    /// the number first has the place.
    fn claim(&self, owner: u64, first: u64) -> Option<usize> {
        let (way, number) = self.lowest();
        let before = self.owners[way].load(Ordering::Acquire);
        self.numbers[way]
            .compare_exchange(number, first, Ordering::AcqRel, Ordering::Acquire)
            .ok()?;
        self.owners[way]
            .compare_exchange(before, owner, Ordering::AcqRel, Ordering::Acquire)
            .ok()
            .map(|_| way)
    }

    /// The first place with the lowest number, and the number.
    fn lowest(&self) -> (usize, u64) {
        let numbers = self
            .numbers
            .iter()
            .map(|number| number.load(Ordering::Acquire));
        let lowest = numbers.enumerate().min_by_key(|(_, number)| *number);
        lowest.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::bucket::BucketTerms;

    /// Spreads numbers as a hash does.
    fn hash(n: u64) -> u64 {
        let mut x = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    #[test]
    fn each_key_has_a_number_of_its_own() {
        let table = KeyTable::new(10_000);
        for key in 0..10_000 {
            table
                .number(hash(key), 0)
                .any()
                .store(key + 1, Ordering::Relaxed);
        }
        let kept = (0..10_000).filter(|key| table.known(hash(*key)) == Some(key + 1));
        let kept = kept.count();
        assert!(kept > 9_900, "{kept} of 10000 are remembered");
        assert_eq!(table.known(hash(10_001)), None);
    }

    #[test]
    fn the_lowest_goes_when_there_is_no_room() {
        let table = KeyTable::new(8);
        assert_eq!(table.sets.len(), 1);
        for key in 0..16 {
            table
                .number(hash(key), 0)
                .any()
                .store(100 + key, Ordering::Relaxed);
        }
        table.number(hash(0), 0).any().store(500, Ordering::Relaxed);
        let new = table.number(hash(99), 0).any();
        assert_eq!(
            new.load(Ordering::Relaxed),
            0,
            "it begins with nothing of the former owner's"
        );
        new.store(600, Ordering::Relaxed);
        assert_eq!(table.known(hash(1)), None, "it had the lowest number");
        assert_eq!(table.known(hash(0)), Some(500));
        assert_eq!(table.known(hash(99)), Some(600));
        assert_eq!(table.len(), 16);
    }

    #[test]
    fn a_flood_of_keys_takes_no_memory_and_does_not_free_who_is_at_its_limit() {
        let terms = BucketTerms {
            interval: 10_000_000,
            burst: 100,
        };
        let table = KeyTable::new(1_000);
        let attacker = hash(u64::MAX);
        let now = 1;
        for _ in 0..100 {
            let number = table.number(attacker, 0).any();
            let next = terms.take(number.load(Ordering::Relaxed), now).unwrap();
            number.store(next, Ordering::Relaxed);
        }
        for key in 0..1_000_000 {
            let number = table.number(hash(key), 0).any();
            let next = terms.take(number.load(Ordering::Relaxed), now).unwrap();
            number.store(next, Ordering::Relaxed);
        }
        assert!(table.len() <= 1_000 * SPARE + WAYS);
        let known = table.known(attacker).expect("it is remembered");
        assert!(terms.take(known, now).is_err(), "and still at its limit");
    }

    /// The bytes of this process that are resident.
    fn resident() -> u64 {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4_096
    }

    #[test]
    #[ignore = "ten million keys take half a minute in a debug build"]
    fn ten_million_keys_take_no_memory() {
        let before = resident();
        let table = KeyTable::new(100_000);
        let made = resident() - before;
        let terms = BucketTerms {
            interval: 10_000_000,
            burst: 200,
        };
        let began = std::time::Instant::now();
        for key in 0..10_000_000 {
            let now = 1 + key * 1_000;
            let number = table.number(hash(key), 0).any();
            let take = |full_at| terms.take(full_at, now).ok();
            let taken = number.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
            taken.expect("each key is new");
        }
        let (grown, took) = (resident() - before, began.elapsed());
        println!("the table: {made} bytes; with ten million keys: {grown}; {took:?}");
        assert!(grown < 20 << 20);
    }

    #[test]
    fn threads_that_count_one_key_lose_no_request() {
        let table = KeyTable::new(100);
        let terms = BucketTerms {
            interval: 1_000_000_000,
            burst: 500,
        };
        let admitted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..1_000 {
                        table.number(hash(n), 0);
                        let number = table.number(hash(7), 0).any();
                        let take = |full_at| terms.take(full_at, 1).ok();
                        let taken = number.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
                        if taken.is_ok() {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let admitted = admitted.into_inner();
        // 100 keys are remembered, and a thousand come: the key keeps its place, as its number is the
        // highest.
        assert!((500..=504).contains(&admitted), "{admitted}");
    }

    #[test]
    fn of_new_keys_at_the_same_time_each_has_its_own_first_request() {
        let table = KeyTable::new(1_000);
        let terms = BucketTerms {
            interval: 1_000_000_000,
            burst: 1,
        };
        let first = terms.take(0, 1).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let table = &table;
                scope.spawn(move || {
                    for n in 0..50_000 {
                        let number = table.number(hash(thread << 32 | n), first);
                        assert!(matches!(number, KeyNumber::New(_)), "{thread} {n}");
                    }
                });
            }
        });
    }
}
