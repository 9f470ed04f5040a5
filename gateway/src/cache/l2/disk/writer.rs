//! The one thread that writes: what came meanwhile goes into one transaction.
//!
//! A transaction is made durable when it holds a purge or a `sync`, or when the last
//! durable one is `sync_interval` old; others are seen by readers at once and may be lost
//! in a crash, whole. Tombstones live here alone: after a restart nothing of this
//! process's writes is left that they could keep out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use redb::{Database, Durability, WriteTransaction};
use tokio::sync::{Notify, oneshot};

use super::tables;
use crate::cache::key::Hash64;
use crate::cache::l2::store::{Purge, StoreError, StoreKey, Written};
use crate::cache::purge::Order;

/// Something to be written, and who waits for it.
pub(super) enum Command {
    Put {
        key: StoreKey,
        record: Bytes,
        expires: u64,
        born: Order,
        /// What invalidations of it go by.
        numbers: Vec<Hash64>,
        done: Done<Written>,
    },
    /// Notes an invalidation; whether there was a note.
    Invalidate {
        number: Hash64,
        at: Order,
        done: Done<bool>,
    },
    Delete {
        key: StoreKey,
        at: Order,
        done: Done<()>,
    },
    Append {
        purge: Purge,
        last: u64,
        done: Done<()>,
    },
    Sync {
        done: Done<()>,
    },
}

pub(super) type Done<T> = oneshot::Sender<Result<T, StoreError>>;

/// What is told once the transaction is through.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Commands of one transaction at most.
const BATCH: usize = 256;
/// Notes that a transaction looks at besides, whether they have expired.
const NOTES: usize = 8;
/// Tombstones and how long they keep out what is older: longer than any load takes.
const TOMBSTONES: usize = 10_000;
const TOMBSTONE_LIFE: Duration = Duration::from_secs(600);

pub(super) struct Writer {
    pub(super) database: Arc<Database>,
    pub(super) commands: Receiver<Command>,
    pub(super) appended: Arc<Notify>,
    pub(super) max_bytes: u64,
    pub(super) sync_interval: Duration,
    pub(super) tombstones: HashMap<StoreKey, (Order, Instant)>,
    /// The note that is looked at next, whether it has expired.
    pub(super) next_note: Hash64,
    pub(super) synced: Instant,
    /// Something was written since the last durable transaction.
    pub(super) unsynced: bool,
}

impl Writer {
    /// Writes until nobody can send any more, and makes all durable then.
    pub(super) fn run(mut self) {
        loop {
            let wait = match self.unsynced {
                true => self.sync_interval.saturating_sub(self.synced.elapsed()),
                false => Duration::from_secs(3_600),
            };
            let first = match self.commands.recv_timeout(wait) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let more = self.commands.try_iter().take(BATCH);
            let batch: Vec<Command> = first.into_iter().chain(more).collect();
            self.write(batch);
        }
        if self.unsynced {
            self.write(Vec::new());
        }
    }

    fn write(&mut self, batch: Vec<Command>) {
        let durable = batch.is_empty()
            || self.synced.elapsed() >= self.sync_interval
            || batch
                .iter()
                .any(|command| matches!(command, Command::Append { .. } | Command::Sync { .. }));
        let appends = batch.iter().any(|c| matches!(c, Command::Append { .. }));
        let mut replies = Vec::with_capacity(batch.len());
        let outcome = self.transaction(batch, durable, &mut replies);
        if outcome.is_ok() {
            self.unsynced = !durable;
            if durable {
                self.synced = Instant::now();
            }
        }
        let outcome = outcome.map_err(|error| super::failed(&error));
        for reply in replies {
            reply(outcome.clone());
        }
        if appends {
            self.appended.notify_waiters();
        }
    }

    fn transaction(
        &mut self,
        batch: Vec<Command>,
        durable: bool,
        replies: &mut Vec<Reply>,
    ) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        if !durable {
            write.set_durability(Durability::None)?;
        }
        let mut outcome = Ok(());
        // More than the batch can bring, so that none stays for ever.
        let tidied = 2 * batch.len() + NOTES;
        for command in batch {
            // After a failure the rest is only answered: the transaction is given up.
            let applied = self.apply(&write, command, replies);
            outcome = outcome.and(applied);
        }
        outcome?;
        tables::evict(&write, self.max_bytes)?;
        let now = super::millis(SystemTime::now());
        self.next_note = tables::tidy_notes(&write, self.next_note, tidied, now)?;
        write.commit()?;
        Ok(())
    }

    fn apply(
        &mut self,
        write: &WriteTransaction,
        command: Command,
        replies: &mut Vec<Reply>,
    ) -> Result<(), redb::Error> {
        match command {
            Command::Put {
                key,
                record,
                expires,
                born,
                numbers,
                done,
            } => {
                for number in numbers {
                    tables::keep_note(write, number, expires)?;
                }
                let put = self.put(write, key, expires, born, &record);
                let written = *put.as_ref().unwrap_or(&Written::Overtaken);
                replies.push(Box::new(move |outcome| {
                    // Nobody may wait any more; the same below.
                    let _ = done.send(outcome.map(|()| written));
                }));
                put.map(drop)
            }
            Command::Invalidate { number, at, done } => {
                let noted = tables::invalidate(write, number, at);
                let answer = *noted.as_ref().unwrap_or(&false);
                replies.push(Box::new(move |outcome| {
                    drop(done.send(outcome.map(|()| answer)));
                }));
                noted.map(drop)
            }
            Command::Delete { key, at, done } => {
                self.bury(key, at);
                replies.push(Box::new(move |outcome| drop(done.send(outcome))));
                tables::delete(write, &key.id)
            }
            Command::Append { purge, last, done } => {
                replies.push(Box::new(move |outcome| drop(done.send(outcome))));
                tables::append(write, &purge, last).map(drop)
            }
            Command::Sync { done } => {
                replies.push(Box::new(move |outcome| drop(done.send(outcome))));
                Ok(())
            }
        }
    }

    fn put(
        &self,
        write: &WriteTransaction,
        key: StoreKey,
        expires: u64,
        born: Order,
        record: &[u8],
    ) -> Result<Written, redb::Error> {
        let buried = self.tombstones.get(&key).is_some_and(|(at, _)| *at > born);
        let newer = tables::born(write, &key.id)?.is_some_and(|there| there > born);
        if buried || newer {
            return Ok(Written::Overtaken);
        }
        tables::put(write, &key.id, expires, born, record)?;
        Ok(Written::Stored)
    }

    fn bury(&mut self, key: StoreKey, at: Order) {
        if self.tombstones.len() >= TOMBSTONES {
            self.tombstones
                .retain(|_, (_, since)| since.elapsed() < TOMBSTONE_LIFE);
        }
        let (held, since) = self.tombstones.entry(key).or_insert((at, Instant::now()));
        *held = at.max(*held);
        *since = Instant::now();
    }
}
