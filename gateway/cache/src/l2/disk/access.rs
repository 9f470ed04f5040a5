//! The database as readers and the writer share it: open, or closed for a reason.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use redb::Database;

use super::clock::DiskClock;
use super::failed;
use crate::l2::store::StoreError;

/// An open database and its clock.
pub(super) struct TimedDatabase {
    pub(super) database: Database,
    pub(super) clock: DiskClock,
}

/// The access that readers and the writer share.
pub(super) struct DatabaseAccess {
    state: RwLock<DatabaseState>,
    /// The first fault of the disk since the database was opened. redb returns it only once, and
    /// later says only that there was one.
    fault: Mutex<Option<StoreError>>,
    /// This is true from the start until the file was opened here for the first time, if the process
    /// whose place this one takes has it open.
    awaits_predecessor: AtomicBool,
}

enum DatabaseState {
    Open(TimedDatabase),
    Shut(StoreError),
}

impl DatabaseAccess {
    pub(super) fn open(database: TimedDatabase) -> Self {
        Self::of(DatabaseState::Open(database))
    }

    pub(super) fn shut(why: StoreError) -> Self {
        Self::of(DatabaseState::Shut(why))
    }

    /// The process whose place this one takes has the file.
    pub(super) fn held_by_predecessor(why: StoreError) -> Self {
        let access = Self::shut(why);
        access.awaits_predecessor.store(true, Ordering::Release);
        access
    }

    pub(super) fn awaits_predecessor(&self) -> bool {
        self.awaits_predecessor.load(Ordering::Acquire)
    }

    fn of(state: DatabaseState) -> Self {
        Self {
            state: RwLock::new(state),
            fault: Mutex::default(),
            awaits_predecessor: AtomicBool::new(false),
        }
    }

    /// Calls `what` with the database.
    ///
    /// # Errors
    /// When it is closed, or when the disk or the file fails.
    pub(super) fn with<T>(
        &self,
        what: impl FnOnce(&TimedDatabase) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        match &*self.state.read() {
            DatabaseState::Open(database) => what(database).map_err(|error| self.named(&error)),
            DatabaseState::Shut(why) => Err(why.clone()),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(&*self.state.read(), DatabaseState::Open(_))
    }

    /// Waits until nobody reads, and closes the file.
    pub(super) fn close(&self, why: StoreError) {
        let before = std::mem::replace(&mut *self.state.write(), DatabaseState::Shut(why));
        // Closing writes to the disk; nobody waits for that.
        drop(before);
    }

    pub(super) fn reopen(&self, database: TimedDatabase) {
        *self.fault.lock() = None;
        *self.state.write() = DatabaseState::Open(database);
        self.awaits_predecessor.store(false, Ordering::Release);
    }

    fn named(&self, error: &redb::Error) -> StoreError {
        let mut fault = self.fault.lock();
        match error {
            redb::Error::Io(_) => fault.get_or_insert_with(|| failed(error)).clone(),
            redb::Error::PreviousIo => fault.clone().unwrap_or_else(|| failed(error)),
            _ => failed(error),
        }
    }
}
