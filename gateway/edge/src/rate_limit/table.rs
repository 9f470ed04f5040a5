//! A number for each key, in memory of a fixed size.
//!
//! Keys are hashed into sets of [`WAYS`] places each. A key that has no place takes one of its set:
//! the one with the lowest number. Numbers are moments that move into the future with each request,
//! so that is a key which has not asked for long, or one that loses the least by being forgotten; a
//! client that has used up its allowance is not made forgotten by others that come once.
//!
//! Nobody waits, and nothing is allocated after the table is made. A key that comes for the first
//! time on two threads at once may get two places, of which the first is used from then on. No key
//! finds the number of another one: see [`LimitedKeySet::claim`].

use std::sync::atomic::{AtomicU64, Ordering};

/// The places of a set.
const WAYS: usize = 16;

/// There are so many places for each key that is to be remembered: keys are not spread evenly over
/// the sets.
const SPARE: usize = 2;

/// How often a place is looked for that others take at the same time. A thread that holds a place
/// does so for two stores, so even with many threads the last attempt is hardly ever reached.
const ATTEMPTS: usize = 64;

/// The owner of a place that just gets another one.
const CHANGING: u64 = u64::MAX;

/// Numbers by the hashes of their keys.
pub struct KeyTable {
    sets: Box<[LimitedKeySet]>,
}

/// Some places, of which a key may have any.
#[derive(Default)]
#[repr(align(64))]
struct LimitedKeySet {
    /// The hashes; 0 is nobody's, and [`CHANGING`] is that of a place which just gets another owner.
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

    /// Changes the number of a key to what `change` makes of it, from nothing if the key is not
    /// remembered. Where `change` makes nothing of it all stays as it is, and no place is taken. So
    /// a key that is new takes its place together with its number. `change` may be called several
    /// times; the last call is the one that counts. What it has made is lost if others take the
    /// place each time, which takes more threads than there are attempts.
    pub fn update(&self, hash: u64, mut change: impl FnMut(Option<u64>) -> Option<u64>) {
        let owner = owner_of(hash);
        let set = &self.sets[self.set_of(hash)];
        let mut lost = 0;
        while lost < ATTEMPTS {
            let Some(way) = set.way_of(owner) else {
                let Some(first) = change(None) else { return };
                if set.claim(owner, first) {
                    return;
                }
                lost += 1;
                continue;
            };
            let number = &set.numbers[way];
            let before = number.load(Ordering::Acquire);
            // As long as the owner is this key, what was read is its own; and it is changed only
            // while it still stands there.
            if set.owners[way].load(Ordering::Acquire) != owner {
                lost += 1;
                continue;
            }
            let Some(next) = change(Some(before)) else {
                return;
            };
            let changed =
                number.compare_exchange(before, next, Ordering::AcqRel, Ordering::Acquire);
            if changed.is_ok() {
                return;
            }
        }
    }

    /// The number of a key that is remembered.
    pub fn known(&self, hash: u64) -> Option<u64> {
        let set = &self.sets[self.set_of(hash)];
        let owner = owner_of(hash);
        let way = set.way_of(owner)?;
        let number = set.numbers[way].load(Ordering::Acquire);
        // Another key may have got the place meanwhile: then the number is that one's.
        (set.owners[way].load(Ordering::Acquire) == owner).then_some(number)
    }

    /// How many keys are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let owners = self.sets.iter().flat_map(|set| &set.owners);
        owners
            .filter(|owner| owner.load(Ordering::Relaxed) != 0)
            .count()
    }

    fn set_of(&self, hash: u64) -> usize {
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

    /// Takes the place with the lowest number. False if others are quicker. While the number changes
    /// the place is nobody's: neither who had it nor who gets it finds the number of the other.
    fn claim(&self, owner: u64, first: u64) -> bool {
        let Some((way, before)) = self.lowest() else {
            return false;
        };
        let place = &self.owners[way];
        let taken = place.compare_exchange(before, CHANGING, Ordering::AcqRel, Ordering::Acquire);
        if taken.is_err() {
            return false;
        }
        self.numbers[way].store(first, Ordering::Release);
        place.store(owner, Ordering::Release);
        true
    }

    /// The first place with the lowest number, and whose it is.
    fn lowest(&self) -> Option<(usize, u64)> {
        let places = self.owners.iter().zip(&self.numbers).enumerate();
        let places = places.map(|(way, (owner, number))| {
            let owner = owner.load(Ordering::Acquire);
            (way, owner, number.load(Ordering::Acquire))
        });
        let steady = places.filter(|(_, owner, _)| *owner != CHANGING);
        let lowest = steady.min_by_key(|(_, _, number)| *number);
        lowest.map(|(way, owner, _)| (way, owner))
    }
}

/// The owner that a key with this hash is.
fn owner_of(hash: u64) -> u64 {
    hash.clamp(1, CHANGING - 1)
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
            table.update(hash(key), |_| Some(key + 1));
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
            table.update(hash(key), |_| Some(100 + key));
        }
        table.update(hash(0), |_| Some(500));
        table.update(hash(99), |number| {
            assert_eq!(number, None, "it begins with nothing of the former owner's");
            Some(600)
        });
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
            table.update(attacker, |number| terms.take(number.unwrap_or(0), now).ok());
        }
        for key in 0..1_000_000 {
            table.update(hash(key), |number| {
                terms.take(number.unwrap_or(0), now).ok()
            });
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
            table.update(hash(key), |number| {
                Some(
                    terms
                        .take(number.unwrap_or(0), now)
                        .expect("each key is new"),
                )
            });
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
                        table.update(hash(n), |number| number.or(Some(1)));
                        let mut is_admitted = false;
                        table.update(hash(7), |number| {
                            let taken = terms.take(number.unwrap_or(0), 1);
                            is_admitted = taken.is_ok();
                            taken.ok()
                        });
                        admitted.fetch_add(is_admitted.into(), Ordering::Relaxed);
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
    fn a_key_of_which_nothing_is_made_takes_no_place() {
        let table = KeyTable::new(8);
        table.update(hash(1), |number| {
            assert_eq!(number, None);
            None
        });
        assert_eq!((table.len(), table.known(hash(1))), (0, None));
        table.update(hash(1), |_| Some(7));
        table.update(hash(1), |number| number.map(|number| number + 1));
        table.update(hash(1), |_| None);
        assert_eq!(table.known(hash(1)), Some(8));
    }

    /// Keys that fall into one full set drive each other out. None gets what was for another one:
    /// the number that a key finds is one that was given to it.
    #[test]
    fn no_key_gets_the_number_of_another_one() {
        let table = KeyTable::new(8);
        assert_eq!(table.sets.len(), 1);
        std::thread::scope(|scope| {
            for thread in 1..=4_u64 {
                let table = &table;
                scope.spawn(move || {
                    for n in 0..20_000_u64 {
                        // Forty keys for each thread, and sixteen places for all. The upper bits are
                        // the moment, the lower ones whose number it is.
                        let key = (thread << 8) | (n % 40);
                        let mine = (n << 16) | key;
                        table.update(hash(key), |number| {
                            if let Some(number) = number {
                                assert_eq!(number & 0xFFFF, key, "{number:x}");
                            }
                            Some(mine)
                        });
                    }
                });
            }
        });
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
                        table.update(hash(thread << 32 | n), |number| {
                            assert_eq!(number, None, "{thread} {n}");
                            Some(first)
                        });
                    }
                });
            }
        });
    }
}
