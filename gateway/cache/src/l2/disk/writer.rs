//! The one thread that writes: what came meanwhile goes into one transaction.
//!
//! A transaction is made durable when it holds a purge or a `sync`, or when the last
//! durable one is `sync_interval` old; others are seen by readers at once and may be lost
//! in a crash, whole. Tombstones live here alone: after a restart nothing of this
//! process's writes is left that they could keep out.
//!
//! When a transaction fails (a full disk, say), all that waits and all that comes is answered
//! with the reason; the database is opened again, and written to once there is room. What it
//! lost or could not take of removals ([`Owed`]) is the first thing that goes in.

mod recovery;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Durability, WriteTransaction};
use tokio::sync::{Notify, oneshot, watch};

use super::access::{Access, TimedDatabase};
use super::clock::millis;
use super::file::DatabaseFile;
use super::outage::{Outage, Pauses, Reads};
use super::owed::Owed;
use super::tables;
use crate::key::Hash64;
use crate::l2::store::{Purge, StoreError, StoreKey};
use crate::purge::Order;

/// Something to be written, and who waits for it.
pub(super) struct Command {
    pub(super) work: Work,
    pub(super) done: Done,
}

pub(super) type Done = oneshot::Sender<Result<Effect, StoreError>>;

/// What is to be written.
pub(super) enum Work {
    Put {
        key: StoreKey,
        record: Bytes,
        /// From `since` on.
        life: Duration,
        since: Instant,
        born: Order,
        /// What invalidations of it go by.
        numbers: Vec<Hash64>,
    },
    /// Notes an invalidation, where there is a note.
    Invalidate {
        number: Hash64,
        at: Order,
    },
    Delete {
        key: StoreKey,
        at: Order,
    },
    Append {
        purge: Purge,
        last: u64,
    },
    Sync,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Took,
    /// Something later was there, or there was no note.
    None,
}

/// Commands of one transaction at most.
const BATCH: usize = 256;
/// Notes that a transaction looks at besides, whether they have expired.
const NOTES: usize = 8;
/// Tombstones and how long they keep out what is older: longer than any load takes.
const TOMBSTONES: usize = 10_000;
const TOMBSTONE_LIFE: Duration = Duration::from_secs(600);
/// How long to wait for commands where nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// What a writer works with.
pub(super) struct Setting {
    pub(super) access: Arc<Access>,
    pub(super) commands: Receiver<Command>,
    pub(super) appended: Arc<Notify>,
    /// Told why nothing is written, and when that is over.
    pub(super) trouble: watch::Sender<Option<StoreError>>,
    pub(super) max_bytes: u64,
    pub(super) sync_interval: Duration,
}

pub(super) struct Writer {
    setting: Setting,
    file: DatabaseFile,
    tombstones: HashMap<StoreKey, (Order, Instant)>,
    /// The note that is looked at next, whether it has expired.
    next_note: Hash64,
    synced: Instant,
    /// Something was written since the last durable transaction.
    unsynced: bool,
    owed: Owed,
    outage: Option<Outage>,
    pauses: Pauses,
}

/// Whether a transaction survives a crash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasts {
    Durably,
    UntilSync,
}

impl Writer {
    pub(super) fn new(file: DatabaseFile, setting: Setting, outage: Option<StoreError>) -> Self {
        let mut pauses = Pauses::default();
        Self {
            setting,
            file,
            tombstones: HashMap::new(),
            next_note: 0,
            synced: Instant::now(),
            unsynced: false,
            owed: Owed::default(),
            outage: outage.map(|why| Outage::new(why, Reads::Stop, &mut pauses)),
            pauses,
        }
    }

    /// Writes until nobody can send any more, and makes all durable then.
    pub(super) fn run(mut self) {
        loop {
            let first = match self.setting.commands.recv_timeout(self.wait()) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let more = self.setting.commands.try_iter().take(BATCH);
            let batch: Vec<Command> = first.into_iter().chain(more).collect();
            match &self.outage {
                None => self.write(batch),
                Some(_) => self.refuse(batch),
            }
        }
        if self.unsynced && self.outage.is_none() {
            self.write(Vec::new());
        }
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

    fn write(&mut self, batch: Vec<Command>) {
        let (works, dones): (Vec<Work>, Vec<Done>) = batch
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
        if works.iter().any(|work| matches!(work, Work::Append { .. })) {
            self.setting.appended.notify_waiters();
        }
    }

    fn lasts(&self, works: &[Work]) -> Lasts {
        let must = |work: &Work| matches!(work, Work::Append { .. } | Work::Sync);
        let is_due = works.is_empty()
            || self.synced.elapsed() >= self.setting.sync_interval
            || self.owed.is_full()
            || works.iter().any(must);
        match is_due {
            true => Lasts::Durably,
            false => Lasts::UntilSync,
        }
    }

    fn written(&mut self, works: &[Work], lasts: Lasts) {
        match lasts {
            Lasts::Durably => {
                self.owed.clear();
                self.synced = Instant::now();
                self.unsynced = false;
            }
            Lasts::UntilSync => {
                self.owed.add(works);
                self.unsynced = true;
            }
        }
    }

    fn transaction(&mut self, works: &[Work], lasts: Lasts) -> Result<Vec<Effect>, StoreError> {
        let access = Arc::clone(&self.setting.access);
        // redb panics on some damage.
        let write = || access.with(|timed| self.write_to(timed, works, lasts));
        catch_unwind(AssertUnwindSafe(write))
            .unwrap_or_else(|_| Err(StoreError::Corrupt("a page can't be written".into())))
    }

    fn write_to(
        &mut self,
        timed: &TimedDatabase,
        works: &[Work],
        lasts: Lasts,
    ) -> Result<Vec<Effect>, redb::Error> {
        let mut write = timed.database.begin_write()?;
        match lasts {
            Lasts::Durably => tables::keep_time(&write, timed.clock.kept())?,
            Lasts::UntilSync => write.set_durability(Durability::None)?,
        }
        let now = timed.clock.now();
        // More than the batch can bring, so that none stays for ever.
        let tidied = 2 * works.len() + NOTES;
        let effects: Result<Vec<Effect>, redb::Error> = works
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
        work: &Work,
    ) -> Result<Effect, redb::Error> {
        match work {
            Work::Put {
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
            Work::Invalidate { number, at } => match tables::invalidate(write, *number, *at)? {
                true => Ok(Effect::Took),
                false => Ok(Effect::None),
            },
            Work::Delete { key, at } => {
                self.bury(*key, *at);
                tables::delete(write, &key.id)?;
                Ok(Effect::Took)
            }
            Work::Append { purge, last } => {
                tables::append(write, purge, *last)?;
                Ok(Effect::Took)
            }
            Work::Sync => Ok(Effect::Took),
        }
    }

    fn put(
        &self,
        write: &WriteTransaction,
        key: &StoreKey,
        expires: u64,
        born: Order,
        record: &[u8],
    ) -> Result<Effect, redb::Error> {
        let buried = self.tombstones.get(key).is_some_and(|(at, _)| *at > born);
        let newer = tables::born(write, &key.id)?.is_some_and(|there| there > born);
        if buried || newer {
            return Ok(Effect::None);
        }
        tables::put(write, &key.id, expires, born, record)?;
        Ok(Effect::Took)
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

fn answer(answers: impl Iterator<Item = (Done, Result<Effect, StoreError>)>) {
    for (done, answer) in answers {
        // Nobody may wait any more.
        let _ = done.send(answer);
    }
}
