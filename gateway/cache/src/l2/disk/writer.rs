//! The one thread that writes: all commands that have arrived go into one transaction.
//!
//! A transaction is made durable when it contains a purge or a `sync`, or when the last durable one
//! is `sync_interval` old. Other transactions are visible to readers at once; a crash may lose
//! them, but only as a whole. Tombstones are kept only in memory: after a restart there are no
//! writes of the former process that they could keep out.
//!
//! When a transaction fails (on a full disk, for example), all waiting and new commands are
//! answered with the reason. The database is opened again, and is written to once there is room.
//! Removals that it lost or could not take ([`UnsyncedRemovals`]) are written first.

mod recovery;

pub(super) use recovery::unusable;

use crate::l2::store::LogNumber;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Durability, WriteTransaction};
use tokio::sync::{Notify, oneshot, watch};

use super::access::{DatabaseAccess, TimedDatabase};
use super::clock::millis;
use super::file::DatabaseFile;
use super::outage::{DiskOutage, DiskRetryDelay, ReadsDuringOutage};
use super::owed::UnsyncedRemovals;
use super::tables;
use crate::key::PurgeHash;
use crate::l2::store::LogOrder;
use crate::l2::store::{LoggedPurge, StoreError, StoreKey};

/// An operation that is to be written, and who waits for it.
pub(super) struct DiskWriteCommand {
    pub(super) work: DiskWriteOperation,
    pub(super) done: DiskWriteReply,
}

pub(super) type DiskWriteReply = oneshot::Sender<Result<DiskWriteEffect, StoreError>>;

/// An operation on the database.
pub(super) enum DiskWriteOperation {
    Put {
        key: StoreKey,
        record: Bytes,
        /// How long the record lives, counted from `since`.
        life: Duration,
        since: Instant,
        born: LogOrder,
        /// The numbers by which it can be invalidated.
        numbers: Vec<PurgeHash>,
    },
    /// Notes an invalidation, if there is a note for the number.
    Invalidate {
        number: PurgeHash,
        at: LogOrder,
    },
    Delete {
        key: StoreKey,
        at: LogOrder,
    },
    Append {
        purge: LoggedPurge,
        last: LogNumber,
    },
    Sync,
    /// To make everything durable, close the file and write nothing any more.
    Close,
}

/// The effect of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DiskWriteEffect {
    Took,
    /// Something later was there, or there was no note.
    None,
}

/// The largest number of commands in one transaction.
const BATCH: usize = 256;
/// How many further notes a transaction checks for expiry.
const NOTES: usize = 8;
/// The number of tombstones, and how long they keep out what is older: longer than any load takes.
const TOMBSTONES: usize = 10_000;
const TOMBSTONE_LIFE: Duration = Duration::from_secs(600);
/// How long to wait for commands when nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// What a writer needs from outside.
pub(super) struct DiskWriterSettings {
    pub(super) access: Arc<DatabaseAccess>,
    pub(super) commands: Receiver<DiskWriteCommand>,
    pub(super) appended: Arc<Notify>,
    /// The reason why nothing is written; None when writes work again.
    pub(super) trouble: watch::Sender<Option<StoreError>>,
    pub(super) max_bytes: u64,
    pub(super) sync_interval: Duration,
}

pub(super) struct DiskWriter {
    setting: DiskWriterSettings,
    file: DatabaseFile,
    tombstones: HashMap<StoreKey, (LogOrder, Instant)>,
    /// The note whose expiry is checked next.
    next_note: PurgeHash,
    synced: Instant,
    /// Whether something was written since the last durable transaction.
    unsynced: bool,
    owed: UnsyncedRemovals,
    outage: Option<DiskOutage>,
    pauses: DiskRetryDelay,
}

/// Whether a transaction survives a crash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CommitDurability {
    Durably,
    UntilSync,
}

impl DiskWriter {
    pub(super) fn new(
        file: DatabaseFile,
        setting: DiskWriterSettings,
        outage: Option<StoreError>,
    ) -> Self {
        let mut pauses = DiskRetryDelay::default();
        let mut outage =
            outage.map(|why| DiskOutage::new(why, ReadsDuringOutage::Stop, &mut pauses));
        if setting.access.awaits_predecessor() {
            outage.iter_mut().for_each(DiskOutage::look_soon);
        }
        Self {
            setting,
            file,
            tombstones: HashMap::new(),
            next_note: 0,
            synced: Instant::now(),
            unsynced: false,
            owed: UnsyncedRemovals::default(),
            outage,
            pauses,
        }
    }

    /// Writes until nobody can send commands any more, and then makes everything durable.
    pub(super) fn run(mut self) {
        loop {
            let first = match self.setting.commands.recv_timeout(self.wait()) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let more = self.setting.commands.try_iter().take(BATCH);
            let all = first.into_iter().chain(more);
            let is_end =
                |command: &DiskWriteCommand| matches!(command.work, DiskWriteOperation::Close);
            let (ends, batch): (Vec<_>, Vec<_>) = all.partition(is_end);
            match &self.outage {
                // Without commands it makes durable what is there.
                None => self.write(batch),
                Some(_) => self.refuse(batch),
            }
            if !ends.is_empty() {
                return self.close(ends);
            }
        }
        if self.unsynced && self.outage.is_none() {
            self.write(Vec::new());
        }
    }

    /// Leaves the file to the next process.
    fn close(mut self, ends: Vec<DiskWriteCommand>) {
        if self.unsynced && self.outage.is_none() {
            self.write(Vec::new());
        }
        let next = "the process that has taken over has the file";
        self.setting.access.close(StoreError::Down(next.to_owned()));
        let closed = ends
            .into_iter()
            .map(|end| (end.done, Ok(DiskWriteEffect::Took)));
        answer(closed);
    }

    fn wait(&self) -> Duration {
        match &self.outage {
            Some(outage) => outage.until_next(),
            None if self.unsynced => self
                .setting
                .sync_interval
                .saturating_sub(self.synced.elapsed()),
            None => IDLE,
        }
    }

    fn write(&mut self, batch: Vec<DiskWriteCommand>) {
        let (works, dones): (Vec<DiskWriteOperation>, Vec<DiskWriteReply>) = batch
            .into_iter()
            .map(|command| (command.work, command.done))
            .unzip();
        let lasts = self.lasts(&works);
        let outcome = self.transaction(&works, lasts);
        match &outcome {
            Ok(_) => self.written(&works, lasts),
            Err(why) => self.fail(why.clone(), &works),
        }
        match outcome {
            Ok(effects) => answer(dones.into_iter().zip(effects.into_iter().map(Ok))),
            Err(why) => answer(dones.into_iter().map(|done| (done, Err(why.clone())))),
        }
        if works
            .iter()
            .any(|work| matches!(work, DiskWriteOperation::Append { .. }))
        {
            self.setting.appended.notify_waiters();
        }
    }

    fn lasts(&self, works: &[DiskWriteOperation]) -> CommitDurability {
        let must = |work: &DiskWriteOperation| {
            matches!(
                work,
                DiskWriteOperation::Append { .. } | DiskWriteOperation::Sync
            )
        };
        let is_due = works.is_empty()
            || self.synced.elapsed() >= self.setting.sync_interval
            || self.owed.is_full()
            || works.iter().any(must);
        match is_due {
            true => CommitDurability::Durably,
            false => CommitDurability::UntilSync,
        }
    }

    fn written(&mut self, works: &[DiskWriteOperation], lasts: CommitDurability) {
        match lasts {
            CommitDurability::Durably => {
                self.owed.clear();
                self.synced = Instant::now();
                self.unsynced = false;
            }
            CommitDurability::UntilSync => {
                self.owed.add(works);
                self.unsynced = true;
            }
        }
    }

    fn transaction(
        &mut self,
        works: &[DiskWriteOperation],
        lasts: CommitDurability,
    ) -> Result<Vec<DiskWriteEffect>, StoreError> {
        let access = Arc::clone(&self.setting.access);
        // redb panics on some damage.
        let write = || access.with(|timed| self.write_to(timed, works, lasts));
        catch_unwind(AssertUnwindSafe(write))
            .unwrap_or_else(|_| Err(StoreError::Corrupt("a page can't be written".into())))
    }

    fn write_to(
        &mut self,
        timed: &TimedDatabase,
        works: &[DiskWriteOperation],
        lasts: CommitDurability,
    ) -> Result<Vec<DiskWriteEffect>, redb::Error> {
        let mut write = timed.database.begin_write()?;
        match lasts {
            CommitDurability::Durably => tables::keep_time(&write, timed.clock.kept())?,
            CommitDurability::UntilSync => write.set_durability(Durability::None)?,
        }
        let now = timed.clock.now();
        // More notes than the batch can add, so that none stays for ever.
        let tidied = 2 * works.len() + NOTES;
        let effects: Result<Vec<DiskWriteEffect>, redb::Error> = works
            .iter()
            .map(|work| self.apply(&write, now, work))
            .collect();
        let effects = effects?;
        tables::evict(&write, self.setting.max_bytes)?;
        self.next_note = tables::tidy_notes(&write, self.next_note, tidied, now)?;
        write.commit()?;
        Ok(effects)
    }

    fn apply(
        &mut self,
        write: &WriteTransaction,
        now: u64,
        work: &DiskWriteOperation,
    ) -> Result<DiskWriteEffect, redb::Error> {
        match work {
            DiskWriteOperation::Put {
                key,
                record,
                life,
                since,
                born,
                numbers,
            } => {
                let left = life.saturating_sub(since.elapsed());
                let expires = now.saturating_add(millis(left));
                for number in numbers {
                    tables::keep_note(write, *number, expires)?;
                }
                self.put(write, key, expires, *born, record)
            }
            DiskWriteOperation::Invalidate { number, at } => {
                match tables::invalidate(write, *number, *at)? {
                    true => Ok(DiskWriteEffect::Took),
                    false => Ok(DiskWriteEffect::None),
                }
            }
            DiskWriteOperation::Delete { key, at } => {
                self.bury(*key, *at);
                tables::delete(write, &key.id)?;
                Ok(DiskWriteEffect::Took)
            }
            DiskWriteOperation::Append { purge, last } => {
                tables::append(write, purge, *last)?;
                Ok(DiskWriteEffect::Took)
            }
            // `run` keeps the last one back.
            DiskWriteOperation::Sync | DiskWriteOperation::Close => Ok(DiskWriteEffect::Took),
        }
    }

    fn put(
        &self,
        write: &WriteTransaction,
        key: &StoreKey,
        expires: u64,
        born: LogOrder,
        record: &[u8],
    ) -> Result<DiskWriteEffect, redb::Error> {
        let buried = self.tombstones.get(key).is_some_and(|(at, _)| *at > born);
        let newer = tables::born(write, &key.id)?.is_some_and(|there| there > born);
        if buried || newer {
            return Ok(DiskWriteEffect::None);
        }
        tables::put(write, &key.id, expires, born, record)?;
        Ok(DiskWriteEffect::Took)
    }

    fn bury(&mut self, key: StoreKey, at: LogOrder) {
        if self.tombstones.len() >= TOMBSTONES {
            self.tombstones
                .retain(|_, (_, since)| since.elapsed() < TOMBSTONE_LIFE);
        }
        let (held, since) = self.tombstones.entry(key).or_insert((at, Instant::now()));
        *held = at.max(*held);
        *since = Instant::now();
    }
}

fn answer(answers: impl Iterator<Item = (DiskWriteReply, Result<DiskWriteEffect, StoreError>)>) {
    for (done, answer) in answers {
        // The sender may not wait any more.
        let _ = done.send(answer);
    }
}
