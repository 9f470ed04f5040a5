//! Removals that the database may lack after a crash or a failure of the disk, because no durable
//! transaction contains them yet.
//!
//! They are applied when the database has been opened again. At most [`MOST`] are kept; beyond
//! that, one purge of everything replaces them.

use std::collections::{HashMap, HashSet};

use redb::WriteTransaction;

use super::tables;
use super::writer::DiskWriteOperation;
use crate::key::PurgeHash;
use crate::l2::store::LoggedPurge;
use crate::l2::store::{LogNumber, LogOrder};
use crate::purge::Selector;

/// The largest number of removals that are remembered.
const MOST: usize = 10_000;

/// The removals that no durable transaction contains yet.
#[derive(Default)]
pub(super) struct UnsyncedRemovals {
    purges: HashSet<LoggedPurge>,
    keys: HashSet<[u8; 16]>,
    notes: HashMap<PurgeHash, LogOrder>,
}

impl UnsyncedRemovals {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a durable transaction is needed now. Otherwise the next removal turns all of them
    /// into one purge of everything.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= MOST
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn add<'a>(&mut self, works: impl IntoIterator<Item = &'a DiskWriteOperation>) {
        for work in works {
            match work {
                DiskWriteOperation::Append { purge, .. } => drop(self.purges.insert(purge.clone())),
                DiskWriteOperation::Delete { key, .. } => drop(self.keys.insert(key.id)),
                DiskWriteOperation::Invalidate { number, at } => {
                    let held = self.notes.entry(*number).or_default();
                    *held = (*held).max(*at);
                }
                DiskWriteOperation::Put { .. }
                | DiskWriteOperation::Sync
                | DiskWriteOperation::Close => {}
            }
            if self.len() > MOST {
                self.clear();
                self.purges.insert(everything());
            }
        }
    }

    /// Puts all of them into a transaction.
    pub(super) fn settle(&self, write: &WriteTransaction) -> Result<(), redb::Error> {
        for key in &self.keys {
            tables::delete(write, key)?;
        }
        for (number, at) in &self.notes {
            tables::invalidate(write, *number, *at)?;
        }
        for purge in &self.purges {
            tables::append(write, purge, LogNumber::ZERO)?;
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.purges.len() + self.keys.len() + self.notes.len()
    }
}

fn everything() -> LoggedPurge {
    LoggedPurge {
        selector: Selector::All.to_string(),
        soft: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(n: usize) -> DiskWriteOperation {
        let purge = LoggedPurge {
            selector: format!("tag:{n}"),
            soft: false,
        };
        DiskWriteOperation::Append {
            purge,
            last: LogNumber::ZERO,
        }
    }

    #[test]
    fn more_than_can_be_remembered_becomes_one_purge_of_everything() {
        let mut owed = UnsyncedRemovals::default();
        owed.add(&[purge(0), purge(0), DiskWriteOperation::Sync]);
        assert_eq!(owed.len(), 1, "an attempt that is repeated is one removal");
        let many: Vec<DiskWriteOperation> = (0..MOST).map(purge).collect();
        owed.add(&many);
        assert!(
            owed.is_full()
                && owed.purges.contains(&LoggedPurge {
                    selector: "tag:1".into(),
                    soft: false,
                })
        );
        owed.add(&[purge(MOST)]);
        assert_eq!(owed.purges, HashSet::from([everything()]));
    }
}
