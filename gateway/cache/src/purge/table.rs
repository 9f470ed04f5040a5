//! Stamps by number, which one writer raises while anybody reads them without a lock.
//!
//! [`StampTable`] is exact and grows by being replaced. [`StampBuckets`] has a fixed size; a
//! look-up in it may find a later stamp than its own, but never an earlier one.
//!
//! Invariant: a key is shown only after its stamp, and a stamp only grows.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::steps;
use super::{PurgeOrder, PurgeOrderCell};

/// The newest purges of one selector; 0 means that there is none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Stamp {
    pub(super) hard: PurgeOrder,
    pub(super) soft: PurgeOrder,
}

impl Stamp {
    pub(super) fn take(&mut self, other: Self) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
    }

    pub(super) fn newest(&self) -> PurgeOrder {
        self.hard.max(self.soft)
    }
}

/// A stamp that can be raised while others read it.
#[derive(Default)]
pub(super) struct StampCell {
    hard: PurgeOrderCell,
    soft: PurgeOrderCell,
}

impl StampCell {
    pub(super) fn raise(&self, stamp: Stamp) {
        self.hard.raise(stamp.hard);
        self.soft.raise(stamp.soft);
    }

    pub(super) fn read(&self) -> Stamp {
        Stamp {
            hard: self.hard.read(),
            soft: self.soft.read(),
        }
    }
}

/// Open addressing with linear probing; at most half full.
pub(super) struct StampTable {
    slots: Box<[StampSlot]>,
    held: AtomicUsize,
}

#[derive(Default)]
struct StampSlot {
    /// 0 is an empty slot.
    key: AtomicU64,
    cell: StampCell,
}

/// The outcome of raising a stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StampRaiseOutcome {
    Done,
    /// There is no room for another key.
    Full,
}

const SMALLEST: usize = 64;

impl StampTable {
    /// A table with room for `keys` keys and as many again.
    pub(super) fn with_room_for(keys: usize) -> Self {
        let slots = (keys * 4).next_power_of_two().max(SMALLEST);
        Self {
            slots: (0..slots).map(|_| StampSlot::default()).collect(),
            held: AtomicUsize::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, key: u64) -> Stamp {
        steps::count();
        for slot in self.probe(key) {
            match slot.key.load(Ordering::Acquire) {
                0 => break,
                known if known == key => return slot.cell.read(),
                _ => {}
            }
        }
        Stamp::default()
    }

    /// Only the one writer may call this.
    pub(super) fn raise(&self, key: u64, stamp: Stamp) -> StampRaiseOutcome {
        for slot in self.probe(key) {
            match slot.key.load(Ordering::Relaxed) {
                known if known == key => {
                    slot.cell.raise(stamp);
                    return StampRaiseOutcome::Done;
                }
                0 if self.len() * 2 >= self.slots.len() => return StampRaiseOutcome::Full,
                0 => {
                    slot.cell.raise(stamp);
                    slot.key.store(key, Ordering::Release);
                    self.held.fetch_add(1, Ordering::Relaxed);
                    return StampRaiseOutcome::Done;
                }
                _ => {}
            }
        }
        StampRaiseOutcome::Full
    }

    /// All keys and their stamps.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, Stamp)> + '_ {
        let keys = self.slots.iter().map(|slot| {
            let key = slot.key.load(Ordering::Relaxed);
            (key, slot.cell.read())
        });
        keys.filter(|(key, _)| *key != 0)
    }

    /// A table with the stamps of `from` that `keep` selects.
    pub(super) fn of(from: &Self, room: usize, mut keep: impl FnMut(u64, Stamp) -> bool) -> Self {
        let table = Self::with_room_for(room);
        for (key, stamp) in from.all().filter(|(key, stamp)| keep(*key, *stamp)) {
            table.raise(key, stamp);
        }
        table
    }

    fn probe(&self, key: u64) -> impl Iterator<Item = &StampSlot> {
        let mask = self.slots.len() - 1;
        let first = key as usize & mask;
        (0..self.slots.len()).map(move |step| &self.slots[(first + step) & mask])
    }
}

/// A fixed number of stamps. Each key raises several of them and its value is the lowest, so it
/// finds the stamp of another key only if all of its own are shared with other keys.
pub(super) struct StampBuckets {
    cells: Box<[StampCell]>,
    newest: PurgeOrderCell,
}

/// The number of stamps of one key.
const SPREAD: u32 = 3;

impl StampBuckets {
    /// `count` stamps, rounded up to a power of two.
    pub(super) fn new(count: usize) -> Self {
        let count = count.next_power_of_two();
        Self {
            cells: (0..count).map(|_| StampCell::default()).collect(),
            newest: PurgeOrderCell::default(),
        }
    }

    pub(super) fn get(&self, key: u64) -> Stamp {
        steps::count();
        let stamps = self.cells(key).map(StampCell::read);
        let lowest = stamps.reduce(|one, other| Stamp {
            hard: one.hard.min(other.hard),
            soft: one.soft.min(other.soft),
        });
        lowest.unwrap_or_default()
    }

    pub(super) fn raise(&self, key: u64, stamp: Stamp) {
        self.cells(key).for_each(|cell| cell.raise(stamp));
        self.newest.raise(stamp.newest());
    }

    /// The newest of all stamps.
    pub(super) fn newest(&self) -> PurgeOrder {
        self.newest.read()
    }

    fn cells(&self, key: u64) -> impl Iterator<Item = &StampCell> {
        let mask = self.cells.len() - 1;
        let places = (0..SPREAD).map(move |turn| key.rotate_left(turn * 21) as usize & mask);
        places.map(|place| &self.cells[place])
    }
}
