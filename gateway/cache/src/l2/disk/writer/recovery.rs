//! What the writer does when the disk fails, and when it works again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::{DiskWriteCommand, DiskWriteOperation, DiskWriter, answer};
use crate::l2::disk::access::TimedDatabase;
use crate::l2::disk::file::DatabaseFileError;
use crate::l2::disk::outage::{DiskOutage, ReadsDuringOutage};
use crate::l2::disk::{failed, io_failed, tables};
use crate::l2::store::StoreError;

impl DiskWriter {
    /// Handles a failed transaction.
    pub(super) fn fail(&mut self, why: StoreError, works: &[DiskWriteOperation]) {
        // What no durable transaction contained is lost, and what it had removed exists again.
        let reads = match (self.owed.is_empty(), &why) {
            (true, StoreError::Refused(..)) => ReadsDuringOutage::GoOn,
            _ => ReadsDuringOutage::Stop,
        };
        self.owe(works);
        self.unsynced = false;
        self.stop(why, reads);
    }

    /// Stops writing: the database is opened again for reading, and writing is tried later.
    fn stop(&mut self, why: StoreError, reads: ReadsDuringOutage) {
        self.setting.access.close(why.clone());
        if reads == ReadsDuringOutage::GoOn {
            match self.file.reopen() {
                Ok(database) => self.setting.access.reopen(database),
                Err(error) => tracing::debug!(
                    error,
                    "the second tier's file can't be read until its disk works again"
                ),
            }
        }
        self.setting.trouble.send_replace(Some(why.clone()));
        self.outage = Some(DiskOutage::new(why, reads, &mut self.pauses));
    }

    /// Remembers what could not be written and must not be forgotten. Call this before anybody is
    /// answered.
    fn owe<'a>(&mut self, works: impl IntoIterator<Item = &'a DiskWriteOperation>) {
        self.owed.add(works);
        if !self.owed.is_empty() {
            self.file.trust.withdraw();
        }
    }

    /// Answers with the reason why nothing is written, and checks whether it still applies.
    pub(super) fn refuse(&mut self, batch: Vec<DiskWriteCommand>) {
        self.owe(batch.iter().map(|command| &command.work));
        let Some(outage) = &mut self.outage else {
            return;
        };
        let why = outage.why.clone();
        answer(
            batch
                .into_iter()
                .map(|command| (command.done, Err(why.clone()))),
        );
        if !outage.until_next().is_zero() {
            return;
        }
        // While it is open, it is we who have it.
        if !self.setting.access.is_open() && self.file.is_in_use() {
            return outage.look_soon();
        }
        match self.file.probe() {
            Ok(()) => self.recover(),
            Err(_) => outage.look_again(),
        }
    }

    /// Continues when the disk accepts writes again.
    fn recover(&mut self) {
        let Some(outage) = self.outage.take() else {
            return;
        };
        self.setting.access.close(outage.why);
        match self.reopened() {
            Ok(database) => {
                self.owed.clear();
                self.synced = Instant::now();
                self.pauses.works(self.synced);
                self.setting.access.reopen(database);
                self.setting.trouble.send_replace(None);
                self.setting.appended.notify_waiters();
            }
            Err(why) => self.stop(why, outage.reads),
        }
    }

    /// Opens the database and writes everything that it lacked.
    fn reopened(&mut self) -> Result<TimedDatabase, StoreError> {
        let timed = self.file.open().map_err(unusable)?;
        let settled = || {
            let write = timed.database.begin_write()?;
            tables::keep_time(&write, timed.clock.kept())?;
            tables::count_outage(&write)?;
            self.owed.settle(&write)?;
            write.commit()?;
            Ok(())
        };
        let settled = catch_unwind(AssertUnwindSafe(settled));
        let damaged = || StoreError::Corrupt("a page can't be written".into());
        let settled: Result<(), redb::Error> = settled.map_err(|_| damaged())?;
        settled.map_err(|error| failed(&error))?;
        self.file.trust.grant().map_err(|error| io_failed(&error))?;
        Ok(timed)
    }
}

pub(in crate::l2::disk) fn unusable(why: DatabaseFileError) -> StoreError {
    match why {
        DatabaseFileError::Full(error) | DatabaseFileError::File(error) => io_failed(&error),
        DatabaseFileError::Database(error) => failed(&error),
        DatabaseFileError::InUse => StoreError::Down("another process uses the file".into()),
    }
}
