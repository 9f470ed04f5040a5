//! Where invalidations by requests are noted: without a record, and with no more memory than what
//! is held needs.
//!
//! What one request makes invalid is named by a number, which stands for a URL or for a group of
//! responses. All entries and loads with the same number share one cell for it, which exists as
//! long as one of them holds it. An invalidation stamps the cell, if there is one, and hides
//! exactly what was loaded before it.
//!
//! Something may get its cell only after its load began, because a group is known only with the
//! response's head. So each invalidation is also noted in a fixed number of buckets, and a new cell
//! begins with its bucket's stamp. This hides such a load too, and occasionally a load whose bucket
//! was stamped for another number while it ran. Stored entries are not affected by that.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::PurgeOrder;
use super::table::{Stamp, StampBuckets, StampCell};
use crate::entry::PurgeAttributes;
use crate::key::PurgeHash;

/// The cells of everything that is held.
pub(super) struct InvalidationStamps {
    shards: Box<[Mutex<StampShard>]>,
    /// Created with the first invalidation.
    buckets: OnceLock<StampBuckets>,
    size: usize,
}

#[derive(Default)]
struct StampShard {
    cells: HashMap<PurgeHash, Weak<StampCell>, foldhash::fast::RandomState>,
    /// At this size the shard is searched for cells that nobody holds any more.
    crowded: usize,
}

/// The cells of one entry or load. They are stamped as long as this value lives.
#[derive(Clone, Default)]
pub struct InvalidationWatch {
    cells: Box<[Arc<StampCell>]>,
}

/// Whether something on this node holds what was invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalPresence {
    Held,
    /// Nothing on this node holds it.
    Absent,
}

/// A power of two, larger than the number of cores of any machine.
const SHARDS: usize = 64;
/// The size at which a shard is searched for the first time.
const SMALLEST: usize = 64;

impl InvalidationStamps {
    pub(super) fn new(size: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            buckets: OnceLock::new(),
            size,
        }
    }

    /// The cells of something with these marks. A load must take them before it reads its place in
    /// the order.
    pub(super) fn watch(&self, marks: &PurgeAttributes) -> InvalidationWatch {
        let numbers = std::iter::once(marks.identity).chain(marks.groups.iter().copied());
        InvalidationWatch {
            cells: numbers.map(|number| self.cell(number)).collect(),
        }
    }

    /// Stamps what has this number. The order must not be shown before this returns.
    pub(super) fn stamp(&self, number: PurgeHash, order: PurgeOrder) -> LocalPresence {
        let stamp = Stamp {
            hard: order,
            soft: PurgeOrder::BEFORE_ALL,
        };
        // The bucket comes first: a cell that is created from now on begins with this stamp.
        let buckets = self.buckets.get_or_init(|| StampBuckets::new(self.size));
        buckets.raise(number, stamp);
        let shard = self.shard(number).lock();
        match shard.cells.get(&number).and_then(Weak::upgrade) {
            Some(cell) => {
                cell.raise(stamp);
                LocalPresence::Held
            }
            None => LocalPresence::Absent,
        }
    }

    /// The newest invalidation of something with these marks.
    pub(super) fn newest(&self, marks: &PurgeAttributes) -> PurgeOrder {
        let Some(buckets) = self.buckets.get() else {
            return PurgeOrder::BEFORE_ALL;
        };
        let numbers = std::iter::once(marks.identity).chain(marks.groups.iter().copied());
        let stamps = numbers.map(|number| {
            let shard = self.shard(number).lock();
            match shard.cells.get(&number).and_then(Weak::upgrade) {
                Some(cell) => cell.read().hard,
                None => buckets.get(number).hard,
            }
        });
        stamps.max().unwrap_or_default()
    }

    fn cell(&self, number: PurgeHash) -> Arc<StampCell> {
        let mut shard = self.shard(number).lock();
        if let Some(cell) = shard.cells.get(&number).and_then(Weak::upgrade) {
            return cell;
        }
        let cell = Arc::new(StampCell::default());
        if let Some(buckets) = self.buckets.get() {
            cell.raise(buckets.get(number));
        }
        shard.make_room();
        shard.cells.insert(number, Arc::downgrade(&cell));
        cell
    }

    fn shard(&self, number: PurgeHash) -> &Mutex<StampShard> {
        &self.shards[(number >> 32) as usize & (SHARDS - 1)]
    }

    #[cfg(test)]
    pub(super) fn cells(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().cells.len())
            .sum()
    }
}

impl StampShard {
    /// Removes cells that nobody holds, each time the number of cells has doubled.
    fn make_room(&mut self) {
        if self.cells.len() < self.crowded.max(SMALLEST) {
            return;
        }
        self.cells.retain(|_, cell| cell.strong_count() > 0);
        self.cells.shrink_to(2 * self.cells.len());
        self.crowded = 2 * self.cells.len();
    }
}

impl InvalidationWatch {
    /// The newest invalidation of these cells.
    pub fn newest(&self) -> PurgeOrder {
        let stamps = self.cells.iter().map(|cell| cell.read().hard);
        stamps.max().unwrap_or_default()
    }
}
