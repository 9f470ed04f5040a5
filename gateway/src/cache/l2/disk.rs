//! The second tier on this machine's disk: one redb file, for one node.
//!
//! Inside: `tables` (what a transaction does), `writer` (the one thread that writes),
//! `open` (a file that is damaged or not ours is set aside). Reads are snapshots and wait
//! for no writer.
//!
//! Invariant: a crash at any moment leaves the state after some durable transaction, with
//! every purge that was answered in it.

pub mod config;
mod open;
mod tables;
mod writer;

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::{Notify, oneshot};

use super::store::{
    Acquired, Found, Lease, Log, LogPlace, Purge, Put, Refusal, Store, StoreError, StoreKey,
    Written,
};
use crate::cache::key::Hash64;
use crate::cache::purge::Order;
use writer::{Command, Done};

pub use open::{OpenError, open};

/// The store.
pub struct Disk {
    database: Arc<Database>,
    /// std's sender is for one thread at a time.
    commands: Mutex<Sender<Command>>,
    appended: Arc<Notify>,
}

impl Disk {
    async fn send<T>(&self, command: impl FnOnce(Done<T>) -> Command) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send(command(done))
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Runs a read where it may block, and survives what a damaged page does.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        tokio::task::spawn_blocking(move || read(&database))
            .await
            .map_err(|_| StoreError::Corrupt("a page can't be read".into()))?
            .map_err(|error| failed(&error))
    }
}

impl Store for Disk {
    fn kind(&self) -> &'static str {
        "disk"
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn get<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
    ) -> BoxFuture<'a, Result<Option<Found>, StoreError>> {
        let key = *key;
        let read = move |database: &Database| found(&database.begin_read()?, &key, max);
        async move { self.read(read).await? }.boxed()
    }

    fn get_noted<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
        number: Hash64,
    ) -> BoxFuture<'a, Result<(Option<Found>, Order), StoreError>> {
        let key = *key;
        let read = move |database: &Database| {
            let read = database.begin_read()?;
            let invalidated = tables::invalidated(&read, &[number])?;
            Ok(found(&read, &key, max)?.map(|found| (found, invalidated)))
        };
        async move { self.read(read).await? }.boxed()
    }

    fn invalidate<'a>(
        &'a self,
        number: Hash64,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let at = at.order;
        self.send(move |done| Command::Invalidate { number, at, done })
            .boxed()
    }

    fn invalidated<'a>(
        &'a self,
        numbers: &'a [Hash64],
    ) -> BoxFuture<'a, Result<Order, StoreError>> {
        let numbers = numbers.to_vec();
        let read =
            move |database: &Database| tables::invalidated(&database.begin_read()?, &numbers);
        self.read(read).boxed()
    }

    fn put<'a>(&'a self, put: Put<'a>) -> BoxFuture<'a, Result<Written, StoreError>> {
        self.put_noted(put, &[])
    }

    fn put_noted<'a>(
        &'a self,
        put: Put<'a>,
        numbers: &'a [Hash64],
    ) -> BoxFuture<'a, Result<Written, StoreError>> {
        let expires = millis(SystemTime::now() + put.life);
        self.send(move |done| Command::Put {
            key: *put.key,
            record: put.record,
            expires,
            born: put.born.order,
            numbers: numbers.to_vec(),
            done,
        })
        .boxed()
    }

    fn delete<'a>(
        &'a self,
        key: &'a StoreKey,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (key, at) = (*key, at.order);
        self.send(move |done| Command::Delete { key, at, done })
            .boxed()
    }

    fn append<'a>(&'a self, purge: &'a Purge, last: u64) -> BoxFuture<'a, Result<Log, StoreError>> {
        let purge = purge.clone();
        async move {
            self.send(|done| Command::Append { purge, last, done })
                .await?;
            self.read_log(last).await
        }
        .boxed()
    }

    fn read_log(&self, after: u64) -> BoxFuture<'_, Result<Log, StoreError>> {
        self.read(move |database| tables::log(&database.begin_read()?, after))
            .boxed()
    }

    fn watch_log(&self, after: u64, patience: Duration) -> BoxFuture<'_, Result<Log, StoreError>> {
        async move {
            let appended = self.appended.notified();
            let log = self.read_log(after).await?;
            if !log.purges.is_empty() {
                return Ok(log);
            }
            // Either way the log is read again.
            let _ = tokio::time::timeout(patience, appended).await;
            self.read_log(after).await
        }
        .boxed()
    }

    /// There is no other node.
    fn acquire<'a>(
        &'a self,
        _lease: &'a Lease,
        _ttl: Duration,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        async { Ok(Acquired::Owned) }.boxed()
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
        self.send(|done| Command::Sync { done }).boxed()
    }
}

fn found(
    read: &ReadTransaction,
    key: &StoreKey,
    max: usize,
) -> Result<Result<Option<Found>, StoreError>, redb::Error> {
    let now = millis(SystemTime::now());
    let found = tables::get(read, &key.id, |row| {
        let size = row.record.len();
        if size > max {
            return Err(StoreError::TooLarge { size, limit: max });
        }
        let left = Duration::from_millis(row.expires.saturating_sub(now));
        let record = Bytes::copy_from_slice(row.record);
        Ok((!left.is_zero()).then_some(Found { record, left }))
    });
    Ok(found?.unwrap_or(Ok(None)))
}

/// Milliseconds of the Unix epoch.
fn millis(at: SystemTime) -> u64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn failed(error: &redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => StoreError::Refused(Refusal::Other, error.to_string()),
        other => StoreError::Corrupt(other.to_string()),
    }
}

fn gone() -> StoreError {
    StoreError::Down("the thread that writes has ended; its last words are in the log".into())
}

#[cfg(test)]
mod tests;
