//! Notes written records in the store's index, after the write and in batches.
//!
//! Decision: the index may be in another place of the store (another slot of a Cluster), so no
//! script can touch both. A record is noted after it was stored and by another task, so neither the
//! write nor those who wait for its lease wait for the index. If a record can't be noted, this is
//! counted and nothing more is done: the record is still served, and only missing from listings
//! until its next write. Nothing else edits the index. A look-up does not, and neither does the
//! removal of one key: another node may have stored the key again by then, and removing its note
//! would hide the live record from listings. Expired members are removed by their time, those of a
//! purge by comparing births ([`super::clear`]).

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::Notify;

use super::guard::{StoreCall, StoreGuard};
use super::put::RecordWrite;
use super::store::{IndexNote, IndexedUrl, Store, StoreKey};
use crate::l2::store::LogOrder;
use crate::record::StoreRecord;

/// The largest number of records that wait to be noted, some 5 MiB with long URLs. Further records
/// are not noted.
const WAITING: usize = 4_096;
/// The number of records that are noted in one call.
const BATCH: usize = 64;

/// The records that wait to be noted.
pub(super) struct RecordIndexer {
    /// The number of shards; 0 means that there is no index.
    shards: u16,
    queue: Mutex<NoteQueue>,
    wake: Notify,
    /// Notified when a batch is done.
    ended: Notify,
    noted: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
}

/// The queues, one for each shard.
struct NoteQueue {
    shards: Vec<VecDeque<PendingIndexNote>>,
    /// The number of waiting records in all shards.
    waiting: usize,
    under_way: bool,
    /// The shard at which the next batch is searched for first.
    turn: usize,
}

struct PendingIndexNote {
    key: StoreKey,
    born: LogOrder,
    text: IndexedUrl,
    ends: Instant,
}

impl RecordIndexer {
    pub(super) fn new(store: &dyn Store, registry: &Registry) -> prometheus::Result<Self> {
        let noted = IntCounterVec::new(
            Opts::new(
                "lamina_l2_index_total",
                "Records that were written, by whether they were noted in the index.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(noted.clone()))?;
        let shards = store.index_shards();
        Ok(Self {
            shards,
            queue: Mutex::new(NoteQueue {
                shards: (0..shards).map(|_| VecDeque::new()).collect(),
                waiting: 0,
                under_way: false,
                turn: 0,
            }),
            wake: Notify::new(),
            ended: Notify::new(),
            noted: noted.with_label_values(&["noted"]),
            failed: noted.with_label_values(&["failed"]),
            dropped: noted.with_label_values(&["dropped"]),
        })
    }

    /// The number of shards; 0 means that there is no index.
    pub(super) fn shards(&self) -> u16 {
        self.shards
    }

    /// Takes in a record that was stored. Lists of variants are not noted, because they are not
    /// responses.
    pub(super) fn stored(&self, write: &RecordWrite) {
        let StoreRecord::Entry(entry) = write.record() else {
            return;
        };
        if self.shards == 0 {
            return;
        }
        let waiting = PendingIndexNote {
            key: write.key,
            born: write.born.order,
            text: IndexedUrl::of(&entry.marks.url),
            ends: Instant::now() + write.left(),
        };
        let mut queue = self.queue.lock();
        if queue.waiting >= WAITING {
            self.dropped.inc();
            return;
        }
        queue.waiting += 1;
        queue.shards[usize::from(write.key.shard(self.shards))].push_back(waiting);
        drop(queue);
        self.wake.notify_one();
    }

    /// Notes the records that were taken in. It never returns.
    pub(super) async fn note_behind(&self, guard: &StoreGuard) {
        loop {
            let Some((shard, batch)) = self.batch() else {
                self.wake.notified().await;
                continue;
            };
            let noted = guard.call(StoreCall::Note, |store| store.note(shard, &batch));
            let count = match noted.await {
                Ok(()) => &self.noted,
                Err(error) => {
                    tracing::debug!(
                        %error,
                        shard,
                        "written records could not be noted in the index"
                    );
                    &self.failed
                }
            };
            count.inc_by(batch.len() as u64);
            self.queue.lock().under_way = false;
            self.ended.notify_waiters();
        }
    }

    /// The next batch. Each batch is of one shard, and the shards take turns.
    fn batch(&self) -> Option<(u16, Vec<IndexNote>)> {
        let mut queue = self.queue.lock();
        let shards = queue.shards.len();
        let mut places = (0..shards).map(|i| (queue.turn + i) % shards);
        let place = places.find(|place| !queue.shards[*place].is_empty())?;
        let shard = &mut queue.shards[place];
        let count = shard.len().min(BATCH);
        let now = Instant::now();
        let batch = shard.drain(..count).map(|waiting| waiting.noted(now));
        let batch = batch.collect();
        queue.turn = place + 1;
        queue.waiting -= count;
        queue.under_way = true;
        Some((u16::try_from(place).ok()?, batch))
    }

    /// Waits until no record waits to be noted.
    pub(super) async fn settled(&self) {
        loop {
            // From here on no notification is missed.
            let ended = self.ended.notified();
            {
                let queue = self.queue.lock();
                if queue.waiting == 0 && !queue.under_way {
                    return;
                }
            }
            ended.await;
        }
    }
}

impl PendingIndexNote {
    fn noted(self, now: Instant) -> IndexNote {
        IndexNote {
            key: self.key,
            born: self.born,
            life: self.ends.saturating_duration_since(now),
            text: self.text,
        }
    }
}
