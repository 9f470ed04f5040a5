//! What is written to the second tier and removed from it: at once under a lease, otherwise in the
//! background.
//!
//! Invariant: no clock restarts on the way. A record that waited to be written is older by that
//! time, and lives shorter by the same time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;

use super::guard::{StoreCall, StoreCallError};
use super::lease::HeldLease;
use super::store::{Lease, LogPlace, StoreKey, StorePut, StorePutOutcome};
use super::writer::OngoingWrite;
use super::{L2, convert};
use crate::entry::{Entry, PurgeAttributes};
use crate::event::{CacheEvent, L2WriteOutcome};
use crate::key::{EntryKey, KeyId, PurgeHash};
use crate::purge::{InvalidationWatch, PurgeKind, PurgeOrder, Selector};
use crate::record::{ClockReading, StoreRecord};

/// A record that is to be written to the store.
pub(super) struct RecordWrite {
    pub(super) key: StoreKey,
    pub(super) whole_key: Arc<[u8]>,
    record: StoreRecord,
    /// How long the record lives, counted from `since`.
    life: Duration,
    pub(super) born: LogPlace,
    since: Instant,
    /// The numbers by which it can be invalidated.
    numbers: Box<[PurgeHash]>,
    /// Where these invalidations are noted, and the place in the order from which they count.
    watch: InvalidationWatch,
    known_since: PurgeOrder,
}

impl L2 {
    /// Queues an entry to be written in the background. `lists` are the key's field lists.
    pub fn put(
        &self,
        primary: &EntryKey,
        lists: &[Vec<HeaderName>],
        entry: &Entry,
        lifetime: Duration,
    ) {
        let writes = self.writes(primary, lists, entry, lifetime);
        writes.into_iter().for_each(|write| self.writer.push(write));
    }

    /// Writes an entry that was loaded under a lease, and then releases the lease.
    pub async fn publish(
        &self,
        primary: &EntryKey,
        lists: &[Vec<HeaderName>],
        entry: &Entry,
        lifetime: Duration,
        held: HeldLease,
    ) {
        for write in self.writes(primary, lists, entry, lifetime) {
            // A write that waits for this key is older.
            self.writer.cancel(&write.key);
            if let Some(busy) = self.writer.begin(&write) {
                self.write(&Arc::new(write), Some(held.lease()), busy).await;
            }
        }
    }

    /// The writes for an entry. Empty: the store would have no use for it, or its log is not known.
    pub(super) fn writes(
        &self,
        primary: &EntryKey,
        lists: &[Vec<HeaderName>],
        entry: &Entry,
        lifetime: Duration,
    ) -> Vec<RecordWrite> {
        if self.guard.store.awaits_predecessor() {
            return Vec::new();
        }
        let Some(born) = self.feed.place_of(entry.born) else {
            return Vec::new();
        };
        let Some(stored) = convert::stored(entry, lifetime, born, self.max_life) else {
            return Vec::new();
        };
        let home = KeyId::of(primary.as_bytes());
        let write = |key: &EntryKey, life, record| RecordWrite {
            key: StoreKey::with_home(home, key.as_bytes()),
            whole_key: key.shared(),
            record,
            life,
            born,
            since: Instant::now(),
            numbers: numbers(&entry.marks),
            watch: entry.watch.get().cloned().unwrap_or_default(),
            known_since: entry.known_since,
        };
        let mut writes = vec![write(&entry.key, stored.life, StoreRecord::Entry(stored))];
        if entry.key != *primary {
            // Other variants, which may live longer, are also found by this list.
            let varies = StoreRecord::Varies(lists.to_vec());
            writes.push(write(primary, self.max_life, varies));
        }
        writes
    }

    pub(super) async fn write_behind(&self) {
        loop {
            let (write, busy) = self.writer.next().await;
            self.write(&write, None, busy).await;
        }
    }

    async fn write(
        &self,
        write: &Arc<RecordWrite>,
        lease: Option<&Lease>,
        _busy: OngoingWrite<'_>,
    ) {
        let wrote = match convert::encode(write, &self.codec()).await {
            _ if write.is_overtaken() => L2WriteOutcome::Overtaken,
            Some((record, life)) => {
                let put = StorePut {
                    key: &write.key,
                    record,
                    life,
                    born: write.born,
                    lease: lease.filter(|lease| lease.key.home == write.key.home),
                };
                self.put_now(put, &write.numbers).await
            }
            None => L2WriteOutcome::TooLarge,
        };
        if wrote == L2WriteOutcome::Stored {
            self.index.stored(write);
            if write.is_overtaken() {
                // The invalidation may have reached the store before it had a note for this record.
                self.invalidate(&write.numbers);
            }
        }
        self.hooks.emit(CacheEvent::Wrote(wrote));
    }

    async fn put_now(&self, put: StorePut<'_>, numbers: &[PurgeHash]) -> L2WriteOutcome {
        let put = self
            .guard
            .call(StoreCall::Put, |store| store.put_noted(put, numbers));
        match put.await {
            Ok(StorePutOutcome::Stored) => L2WriteOutcome::Stored,
            Ok(StorePutOutcome::Overtaken) => L2WriteOutcome::Overtaken,
            Ok(StorePutOutcome::NotOwner) => L2WriteOutcome::NotOwner,
            Err(StoreCallError::Store(error)) => {
                tracing::debug!(%error, "a response was not written to the second tier");
                L2WriteOutcome::Error
            }
            Err(StoreCallError::Skipped | StoreCallError::Busy) => L2WriteOutcome::Skipped,
        }
    }

    /// Removes an entry's record in the background. It is hidden here at once.
    pub fn forget(self: &Arc<Self>, entry: &Entry, at: PurgeOrder) {
        let home = KeyId(entry.marks.id);
        let name = StoreKey::with_home(home, entry.key.as_bytes());
        self.writer.cancel(&name);
        if !self.removals.begin(name) {
            // Nobody waits for the number.
            drop(self.purge(&Selector::Key(home), PurgeKind::Hard));
            return;
        }
        let tier = Arc::clone(self);
        tokio::spawn(async move {
            // A write that is under way must not come after the removal.
            tier.writer.ended(&name).await;
            // A record without a place in the present store's log is not shown from there anyway.
            let at = tier.feed.place_of(at).unwrap_or_default();
            tier.removals.carry_out(&tier.guard, name, at).await;
        });
    }
}

impl L2 {
    /// Whether the entry's record is being removed, so that no copy of it may be promoted.
    pub fn removes(&self, entry: &Entry) -> bool {
        let name = || StoreKey::with_home(KeyId(entry.marks.id), entry.key.as_bytes());
        !self.removals.is_empty() && self.removals.hides(&name())
    }
}

impl RecordWrite {
    /// The record as it is now. None: its life is over.
    pub(super) fn aged(&self) -> Option<StoreRecord> {
        let waited = self.since.elapsed();
        match &self.record {
            StoreRecord::Entry(stored) => {
                let aged = stored.clone().grown(waited, ClockReading::now());
                aged.ok().map(StoreRecord::Entry)
            }
            varies => Some(varies.clone()),
        }
    }

    /// Whether a request invalidated it after it was loaded.
    pub(super) fn is_overtaken(&self) -> bool {
        self.watch.newest() > self.known_since
    }

    /// How much longer it lives.
    pub(super) fn left(&self) -> Duration {
        self.life.saturating_sub(self.since.elapsed())
    }

    pub(super) fn record(&self) -> &StoreRecord {
        &self.record
    }

    /// Its size in bytes while it waits.
    pub(super) fn size(&self) -> usize {
        match &self.record {
            StoreRecord::Entry(stored) => stored.body.len() + 1_024,
            StoreRecord::Varies(_) => 256,
        }
    }

    #[cfg(test)]
    pub(super) fn of(key: u8, born: u64) -> Self {
        Self {
            key: StoreKey {
                id: [key; 16],
                home: KeyId(0),
            },
            whole_key: Arc::from([key].as_slice()),
            record: StoreRecord::Varies(Vec::new()),
            life: Duration::from_secs(60),
            born: LogPlace {
                generation: 0,
                order: born.into(),
            },
            since: Instant::now(),
            numbers: Box::default(),
            watch: InvalidationWatch::default(),
            known_since: born.into(),
        }
    }
}

/// The numbers by which something with these marks can be invalidated.
fn numbers(marks: &PurgeAttributes) -> Box<[PurgeHash]> {
    let numbers = std::iter::once(marks.identity).chain(marks.groups.iter().copied());
    numbers.collect()
}
