//! The second tier on this machine's disk: one redb file, for one node.
//!
//! Inside: `config`, `description`, `tables` (what a transaction does), `writer` (the one thread that writes), `open` and
//! `file` (opening the database, or beginning a new one), `aside` (files that were damaged or not
//! ours), `access` (shared access, also while the database is closed), `clock` (the time of the
//! tier), `outage`, `owed` and `trust` (a disk that accepts no writes). Reads are snapshots and
//! wait for no writer.
//!
//! Invariant: a crash at any moment leaves the state after some durable transaction, with every
//! purge that was answered in it; otherwise the file is not trusted at the next start.

mod access;
mod aside;
mod clock;
pub mod config;
mod description;
mod file;
mod open;
mod outage;
mod owed;
mod tables;
mod trust;
mod writer;

use crate::l2::store::LogNumber;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redb::{ReadTransaction, ReadableDatabase};
use tokio::sync::{Notify, oneshot, watch};

use super::store::{
    FoundRecord, Lease, LeaseAcquisition, LogPlace, LoggedPurge, PurgeLogRange, Store, StoreError,
    StoreKey, StorePut, StorePutOutcome, StoreRefusal,
};
use crate::key::PurgeHash;
use crate::l2::store::LogOrder;
use access::{DatabaseAccess, TimedDatabase};
use writer::{DiskWriteCommand, DiskWriteEffect, DiskWriteOperation};

pub use open::{DiskStoreOpenError, open};

/// The store on this machine's disk.
pub struct DiskStore {
    access: Arc<DatabaseAccess>,
    /// std's sender can be used by one thread at a time.
    commands: Mutex<Sender<DiskWriteCommand>>,
    appended: Arc<Notify>,
    /// Why nothing is written; None while writes work.
    writes: watch::Receiver<Option<StoreError>>,
}

impl DiskStore {
    async fn write(&self, work: DiskWriteOperation) -> Result<DiskWriteEffect, StoreError> {
        self.send(work)?.await.map_err(|_| gone())?
    }

    fn send(
        &self,
        work: DiskWriteOperation,
    ) -> Result<oneshot::Receiver<Result<DiskWriteEffect, StoreError>>, StoreError> {
        let (done, answer) = oneshot::channel();
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send(DiskWriteCommand { work, done })
            .map_err(|_| gone())?;
        Ok(answer)
    }

    /// Runs a read on a thread that may block, and survives a panic at a damaged page.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&TimedDatabase) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let access = Arc::clone(&self.access);
        let answer = tokio::task::spawn_blocking(move || access.with(read))
            .await
            .map_err(|_| StoreError::Corrupt("a page can't be read".into()))?;
        if matches!(answer, Err(StoreError::Refused(..))) && self.access.is_open() {
            // redb reads nothing more after a fault of the disk. A write lets the writer notice
            // that and open the file again. Nobody waits for it.
            drop(self.send(DiskWriteOperation::Sync));
        }
        answer
    }
}

impl Store for DiskStore {
    fn kind(&self) -> &'static str {
        "disk"
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn awaits_predecessor(&self) -> bool {
        self.access.awaits_predecessor()
    }

    fn index_remedy(&self) -> &'static str {
        "only `cache.l2.redis` can list its records, with `index.enabled: true`"
    }

    fn get<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
    ) -> BoxFuture<'a, Result<Option<FoundRecord>, StoreError>> {
        let key = *key;
        let read =
            move |timed: &TimedDatabase| found(timed, &timed.database.begin_read()?, &key, max);
        async move { self.read(read).await? }.boxed()
    }

    fn get_noted<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
        number: PurgeHash,
    ) -> BoxFuture<'a, Result<(Option<FoundRecord>, LogOrder), StoreError>> {
        let key = *key;
        let read = move |timed: &TimedDatabase| {
            let read = timed.database.begin_read()?;
            let invalidated = tables::invalidated(&read, &[number])?;
            Ok(found(timed, &read, &key, max)?.map(|found| (found, invalidated)))
        };
        async move { self.read(read).await? }.boxed()
    }

    fn invalidate<'a>(
        &'a self,
        number: PurgeHash,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let at = at.order;
        let work = DiskWriteOperation::Invalidate { number, at };
        async move { Ok(self.write(work).await? == DiskWriteEffect::Took) }.boxed()
    }

    fn invalidated<'a>(
        &'a self,
        numbers: &'a [PurgeHash],
    ) -> BoxFuture<'a, Result<LogOrder, StoreError>> {
        let numbers = numbers.to_vec();
        let read = move |timed: &TimedDatabase| {
            tables::invalidated(&timed.database.begin_read()?, &numbers)
        };
        self.read(read).boxed()
    }

    fn put<'a>(&'a self, put: StorePut<'a>) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>> {
        self.put_noted(put, &[])
    }

    fn put_noted<'a>(
        &'a self,
        put: StorePut<'a>,
        numbers: &'a [PurgeHash],
    ) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>> {
        let work = DiskWriteOperation::Put {
            key: *put.key,
            record: put.record,
            life: put.life,
            since: Instant::now(),
            born: put.born.order,
            numbers: numbers.to_vec(),
        };
        async move {
            match self.write(work).await? {
                DiskWriteEffect::Took => Ok(StorePutOutcome::Stored),
                DiskWriteEffect::None => Ok(StorePutOutcome::Overtaken),
            }
        }
        .boxed()
    }

    fn delete<'a>(
        &'a self,
        key: &'a StoreKey,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (key, at) = (*key, at.order);
        async move {
            self.write(DiskWriteOperation::Delete { key, at })
                .await
                .map(drop)
        }
        .boxed()
    }

    fn append<'a>(
        &'a self,
        purge: &'a LoggedPurge,
        last: LogNumber,
    ) -> BoxFuture<'a, Result<PurgeLogRange, StoreError>> {
        let purge = purge.clone();
        async move {
            self.write(DiskWriteOperation::Append { purge, last })
                .await?;
            self.read_log(last).await
        }
        .boxed()
    }

    fn read_log(&self, after: LogNumber) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>> {
        self.read(move |timed| tables::log(&timed.database.begin_read()?, after))
            .boxed()
    }

    fn watch_log(
        &self,
        after: LogNumber,
        patience: Duration,
    ) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>> {
        async move {
            let appended = self.appended.notified();
            let log = self.read_log(after).await?;
            if !log.purges.is_empty() {
                return Ok(log);
            }
            // In both cases the log is read again.
            let _ = tokio::time::timeout(patience, appended).await;
            self.read_log(after).await
        }
        .boxed()
    }

    /// There is no other node, so every lease is granted.
    fn acquire<'a>(
        &'a self,
        _lease: &'a Lease,
        _ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseAcquisition, StoreError>> {
        async { Ok(LeaseAcquisition::Owned) }.boxed()
    }

    fn renew<'a>(
        &'a self,
        _lease: &'a Lease,
        _ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async { Ok(true) }.boxed()
    }

    fn release<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>> {
        async { Ok(true) }.boxed()
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.write(DiskWriteOperation::Sync).await.map(drop) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.write(DiskWriteOperation::Close).await.map(drop) }.boxed()
    }

    fn writes(&self) -> Option<watch::Receiver<Option<StoreError>>> {
        Some(self.writes.clone())
    }
}

fn found(
    timed: &TimedDatabase,
    read: &ReadTransaction,
    key: &StoreKey,
    max: usize,
) -> Result<Result<Option<FoundRecord>, StoreError>, redb::Error> {
    let now = timed.clock.now();
    let found = tables::get(read, &key.id, |row| {
        let size = row.record.len();
        if size > max {
            return Err(StoreError::TooLarge { size, limit: max });
        }
        let left = Duration::from_millis(row.expires.saturating_sub(now));
        let record = Bytes::copy_from_slice(row.record);
        Ok((!left.is_zero()).then_some(FoundRecord { record, left }))
    });
    Ok(found?.unwrap_or(Ok(None)))
}

fn failed(error: &redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => io_failed(error),
        redb::Error::PreviousIo => StoreError::Refused(StoreRefusal::Disk, error.to_string()),
        other => StoreError::Corrupt(other.to_string()),
    }
}

fn io_failed(error: &io::Error) -> StoreError {
    let refusal = match file::is_full(error) {
        true => StoreRefusal::DiskFull,
        false => StoreRefusal::Disk,
    };
    StoreError::Refused(refusal, error.to_string())
}

fn gone() -> StoreError {
    StoreError::Down("the thread that writes has ended; the log says why".into())
}

#[cfg(test)]
mod tests;
