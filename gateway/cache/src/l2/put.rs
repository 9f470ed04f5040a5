//! What goes into the second tier and out of it: at once under a lease, else behind.
//!
//! Invariant: no clock restarts on the way: what waited to be written is older by that,
//! and lives that much less long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;

use super::guard::{Call, Failed};
use super::lease::HeldLease;
use super::store::{Lease, LogPlace, Put, StoreKey, Written};
use super::writer::Busy;
use super::{L2, convert};
use crate::entry::{Entry, Marks};
use crate::event::{Event, Wrote};
use crate::key::{Hash64, Key, KeyId};
use crate::purge::{Kind, Order, Selector, Watch};
use crate::record::{Moment, Record};

/// A record on its way to the store.
pub(super) struct Write {
    pub(super) key: StoreKey,
    pub(super) whole_key: Arc<[u8]>,
    record: Record,
    /// From `since` on.
    life: Duration,
    pub(super) born: LogPlace,
    since: Instant,
    /// The numbers that invalidations of it go by.
    numbers: Box<[Hash64]>,
    /// Where they are noted, and the place in the order from which on they count.
    watch: Watch,
    known_since: Order,
}

impl L2 {
    /// Takes an entry in, to be written by and by. `lists` are the key's field lists.
    pub fn put(&self, primary: &Key, lists: &[Vec<HeaderName>], entry: &Entry, lifetime: Duration) {
        let writes = self.writes(primary, lists, entry, lifetime);
        writes.into_iter().for_each(|write| self.writer.push(write));
    }

    /// Writes an entry that was loaded under a lease, and gives the lease back.
    pub async fn publish(
        &self,
        primary: &Key,
        lists: &[Vec<HeaderName>],
        entry: &Entry,
        lifetime: Duration,
        held: HeldLease,
    ) {
        for write in self.writes(primary, lists, entry, lifetime) {
            // What waits there is older.
            self.writer.cancel(&write.key);
            if let Some(busy) = self.writer.begin(&write) {
                self.write(&Arc::new(write), Some(held.lease()), busy).await;
            }
        }
    }

    /// None: the store would have no use for it, or its log is not known.
    pub(super) fn writes(
        &self,
        primary: &Key,
        lists: &[Vec<HeaderName>],
        entry: &Entry,
        lifetime: Duration,
    ) -> Vec<Write> {
        let Some(born) = self.feed.place_of(entry.born) else {
            return Vec::new();
        };
        let Some(stored) = convert::stored(entry, lifetime, born, self.max_life) else {
            return Vec::new();
        };
        let home = KeyId::of(primary.as_bytes());
        let write = |key: &Key, life, record| Write {
            key: StoreKey::below(home, key.as_bytes()),
            whole_key: key.shared(),
            record,
            life,
            born,
            since: Instant::now(),
            numbers: numbers(&entry.marks),
            watch: entry.watch.get().cloned().unwrap_or_default(),
            known_since: entry.known_since,
        };
        let mut writes = vec![write(&entry.key, stored.life, Record::Entry(stored))];
        if entry.key != *primary {
            // Other variants, which may live longer, are found by it as well.
            let varies = Record::Varies(lists.to_vec());
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

    async fn write(&self, write: &Arc<Write>, lease: Option<&Lease>, _busy: Busy<'_>) {
        let wrote = match convert::encode(write, &self.codec).await {
            _ if write.is_overtaken() => Wrote::Overtaken,
            Some((record, life)) => {
                let put = Put {
                    key: &write.key,
                    record,
                    life,
                    born: write.born,
                    lease: lease.filter(|lease| lease.key.home == write.key.home),
                };
                self.put_now(put, &write.numbers).await
            }
            None => Wrote::TooLarge,
        };
        if wrote == Wrote::Stored {
            self.index.stored(write);
            if write.is_overtaken() {
                // The store may have been told before there was anything to note it for.
                self.invalidate(&write.numbers);
            }
        }
        self.hooks.emit(Event::Wrote(wrote));
    }

    async fn put_now(&self, put: Put<'_>, numbers: &[Hash64]) -> Wrote {
        let put = self
            .guard
            .call(Call::Put, |store| store.put_noted(put, numbers));
        match put.await {
            Ok(Written::Stored) => Wrote::Stored,
            Ok(Written::Overtaken) => Wrote::Overtaken,
            Ok(Written::NotOwner) => Wrote::NotOwner,
            Err(Failed::Store(error)) => {
                tracing::debug!(%error, "not written to the second tier");
                Wrote::Error
            }
            Err(Failed::Skipped | Failed::Busy) => Wrote::Skipped,
        }
    }

    /// Removes an entry's record, behind the caller. It is hidden here at once.
    pub fn forget(self: &Arc<Self>, entry: &Entry, at: Order) {
        let home = KeyId(entry.marks.id);
        let name = StoreKey::below(home, entry.key.as_bytes());
        self.writer.cancel(&name);
        if !self.removals.begin(name) {
            // Nobody waits for the number.
            drop(self.purge(&Selector::Key(home), Kind::Hard));
            return;
        }
        let tier = Arc::clone(self);
        tokio::spawn(async move {
            // A write that is under way must not come after the removal.
            tier.writer.ended(&name).await;
            // What has no place in the store's log of today is not shown from there anyway.
            let at = tier.feed.place_of(at).unwrap_or_default();
            tier.removals.carry_out(&tier.guard, name, at).await;
        });
    }
}

impl L2 {
    /// Whether the entry's record is being removed, so that no copy of it may come up.
    pub fn removes(&self, entry: &Entry) -> bool {
        let name = || StoreKey::below(KeyId(entry.marks.id), entry.key.as_bytes());
        !self.removals.is_empty() && self.removals.hides(&name())
    }
}

impl Write {
    /// The record as it is now. None: it has lived.
    pub(super) fn aged(&self) -> Option<Record> {
        let waited = self.since.elapsed();
        match &self.record {
            Record::Entry(stored) => {
                let aged = stored.clone().grown(waited, Moment::now());
                aged.ok().map(Record::Entry)
            }
            varies => Some(varies.clone()),
        }
    }

    /// Whether a request made it invalid since it was loaded.
    pub(super) fn is_overtaken(&self) -> bool {
        self.watch.newest() > self.known_since
    }

    /// How long it lives yet.
    pub(super) fn left(&self) -> Duration {
        self.life.saturating_sub(self.since.elapsed())
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Bytes that it keeps while it waits.
    pub(super) fn size(&self) -> usize {
        match &self.record {
            Record::Entry(stored) => stored.body.len() + 1_024,
            Record::Varies(_) => 256,
        }
    }

    #[cfg(test)]
    pub(super) fn of(key: u8, born: Order) -> Self {
        Self {
            key: StoreKey {
                id: [key; 16],
                home: KeyId(0),
            },
            whole_key: Arc::from([key].as_slice()),
            record: Record::Varies(Vec::new()),
            life: Duration::from_secs(60),
            born: LogPlace {
                generation: 0,
                order: born,
            },
            since: Instant::now(),
            numbers: Box::default(),
            watch: Watch::default(),
            known_since: born,
        }
    }
}

/// What invalidations of something with these marks go by.
fn numbers(marks: &Marks) -> Box<[Hash64]> {
    let numbers = std::iter::once(marks.identity).chain(marks.groups.iter().copied());
    numbers.collect()
}
