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

use super::Order;
use super::table::{Buckets, Cell, Stamp};
use crate::entry::Marks;
use crate::key::Hash64;

/// The cells of what is held.
pub(super) struct Stamps {
    shards: Box<[Mutex<Shard>]>,
    /// Made with the first invalidation.
    buckets: OnceLock<Buckets>,
    size: usize,
}

#[derive(Default)]
struct Shard {
    cells: HashMap<Hash64, Weak<Cell>, foldhash::fast::RandomState>,
    /// From this size on it is looked for cells that nobody holds any more.
    crowded: usize,
}

/// The cells of one thing that is held. They are stamped while this lives.
#[derive(Clone, Default)]
pub struct Watch {
    cells: Box<[Arc<Cell>]>,
}

/// Whether somebody holds what was invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    Held,
    /// Nobody on this node does.
    Absent,
}

/// A power of two; more than any machine's cores.
const SHARDS: usize = 64;
/// The size at which a shard is looked through for the first time.
const SMALLEST: usize = 64;

impl Stamps {
    pub(super) fn new(size: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            buckets: OnceLock::new(),
            size,
        }
    }

    /// The cells of what has these marks. Hold them before the place in the order is read
    /// that a load begins at.
    pub(super) fn watch(&self, marks: &Marks) -> Watch {
        let numbers = std::iter::once(marks.identity).chain(marks.groups.iter().copied());
        Watch {
            cells: numbers.map(|number| self.cell(number)).collect(),
        }
    }

    /// Stamps what bears this number. The order must not be shown before this returns.
    pub(super) fn stamp(&self, number: Hash64, order: Order) -> Presence {
        let stamp = Stamp {
            hard: order,
            soft: 0,
        };
        // First the bucket: a cell that is made from now on begins with this stamp.
        let buckets = self.buckets.get_or_init(|| Buckets::new(self.size));
        buckets.raise(number, stamp);
        let shard = self.shard(number).lock();
        match shard.cells.get(&number).and_then(Weak::upgrade) {
            Some(cell) => {
                cell.raise(stamp);
                Presence::Held
            }
            None => Presence::Absent,
        }
    }

    /// The newest invalidation of what has these marks.
    pub(super) fn newest(&self, marks: &Marks) -> Order {
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

    fn cell(&self, number: Hash64) -> Arc<Cell> {
        let mut shard = self.shard(number).lock();
        if let Some(cell) = shard.cells.get(&number).and_then(Weak::upgrade) {
            return cell;
        }
        let cell = Arc::new(Cell::default());
        if let Some(buckets) = self.buckets.get() {
            cell.raise(buckets.get(number));
        }
        shard.make_room();
        shard.cells.insert(number, Arc::downgrade(&cell));
        cell
    }

    fn shard(&self, number: Hash64) -> &Mutex<Shard> {
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

impl Shard {
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

impl Watch {
    /// The newest invalidation.
    pub fn newest(&self) -> Order {
        let stamps = self.cells.iter().map(|cell| cell.read().hard);
        stamps.max().unwrap_or(0)
    }
}
