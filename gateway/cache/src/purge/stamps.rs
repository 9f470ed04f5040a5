//! Where automatic invalidations are noted: no record, and no more than what is held.
//!
//! What one request makes invalid is named by a number: that of a URL, or of a group of
//! responses. Everything that is held here or on its way (entries, loads) shares one cell for
//! each of its numbers, which exists as long as somebody holds it. An invalidation stamps the
//! cell, if there is one, and hides exactly what was loaded before it.
//!
//! For what gets its cell only later than its load began (a group is known with the
//! response's head alone) each invalidation is noted in a fixed number of buckets as well. A
//! new cell begins with its bucket's stamp: so such a load is hidden too, and now and then one
//! whose bucket another number stamped while it ran. What is stored loses nothing by that.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::PurgeOrder;
use super::table::{Stamp, StampBuckets, StampCell};
use crate::entry::PurgeAttributes;
use crate::key::PurgeHash;

/// The cells of what is held.
pub(super) struct InvalidationStamps {
    shards: Box<[Mutex<StampShard>]>,
    /// Made with the first invalidation.
    buckets: OnceLock<StampBuckets>,
    size: usize,
}

#[derive(Default)]
struct StampShard {
    cells: HashMap<PurgeHash, Weak<StampCell>, foldhash::fast::RandomState>,
    /// From this size on it is looked for cells that nobody holds any more.
    crowded: usize,
}

/// The cells of one thing that is held. They are stamped while this lives.
#[derive(Clone, Default)]
pub struct InvalidationWatch {
    cells: Box<[Arc<StampCell>]>,
}

/// Whether somebody holds what was invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalPresence {
    Held,
    /// Nobody on this node does.
    Absent,
}

/// A power of two; more than any machine's cores.
const SHARDS: usize = 64;
/// The size at which a shard is looked through for the first time.
const SMALLEST: usize = 64;

impl InvalidationStamps {
    pub(super) fn new(size: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            buckets: OnceLock::new(),
            size,
        }
    }

    /// The cells of what has these marks. Hold them before the place in the order is read
    /// that a load begins at.
    pub(super) fn watch(&self, marks: &PurgeAttributes) -> InvalidationWatch {
        let numbers = std::iter::once(marks.identity).chain(marks.groups.iter().copied());
        InvalidationWatch {
            cells: numbers.map(|number| self.cell(number)).collect(),
        }
    }

    /// Stamps what bears this number. The order must not be shown before this returns.
    pub(super) fn stamp(&self, number: PurgeHash, order: PurgeOrder) -> LocalPresence {
        let stamp = Stamp {
            hard: order,
            soft: 0,
        };
        // First the bucket: a cell that is made from now on begins with this stamp.
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

    /// The newest invalidation of what has these marks.
    pub(super) fn newest(&self, marks: &PurgeAttributes) -> PurgeOrder {
        let Some(buckets) = self.buckets.get() else {
            return 0;
        };
        let numbers = std::iter::once(marks.identity).chain(marks.groups.iter().copied());
        let stamps = numbers.map(|number| {
            let shard = self.shard(number).lock();
            match shard.cells.get(&number).and_then(Weak::upgrade) {
                Some(cell) => cell.read().hard,
                None => buckets.get(number).hard,
            }
        });
        stamps.max().unwrap_or(0)
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
    /// Lets go of cells that nobody holds, each time that their number has doubled.
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
    /// The newest invalidation.
    pub fn newest(&self) -> PurgeOrder {
        let stamps = self.cells.iter().map(|cell| cell.read().hard);
        stamps.max().unwrap_or(0)
    }
}
