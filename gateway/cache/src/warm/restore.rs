//! Takes what is stored for hot keys into L1: from the records of the file, and from the second
//! tier.
//!
//! What a record of the file may have missed depends on who can purge while this node is away.
//! Without a second tier and other nodes, nobody can. With a second tier of this node, its purge
//! log judges the record by the place of its birth there; what other nodes may have purged is the
//! doubt that this node opens when it joins them. A log that can't be read, or is another one, can't
//! judge: such a record is in doubt for good. A second tier that nodes share notes more than its log
//! says (what requests to other nodes made invalid), so the records of the file are left aside
//! where it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use super::file::{HotKey, WarmFile};
use super::metrics::{WarmMetrics, WarmOutcome, WarmSource};
use crate::Cache;
use crate::entry::Entry;
use crate::http::vary::Vary;
use crate::key::EntryKey;
use crate::l2::{L2, L2Entry, L2Lookup, convert};
use crate::purge::{DoubtDuration, PurgeOrder};
use crate::record::{
    self, ClockReading, CorruptRecord, RecordOptions, ResponseRecord, StoreRecord,
};

/// The number of look-ups in the second tier at the same time. Requests need some as well.
const PARALLEL: usize = 16;

/// One warm-up.
pub struct WarmRestorer {
    cache: Arc<Cache>,
    codec: RecordOptions,
    deadline: Instant,
    metrics: Arc<WarmMetrics>,
    /// How many bytes L1 still takes.
    room: AtomicU64,
    /// Whether there is a doubt about everything before now.
    has_doubted: AtomicBool,
}

/// Which purges a record of the file can be compared with.
enum RecordJudgement {
    /// With all since its birth at this place in our own order.
    Since(PurgeOrder),
    /// With those of this process alone.
    InDoubt,
    /// Of no use.
    Outdated,
}

impl WarmRestorer {
    /// `codec` reads the records of the file.
    pub fn new(
        cache: &Arc<Cache>,
        codec: RecordOptions,
        deadline: Instant,
        metrics: &Arc<WarmMetrics>,
    ) -> Self {
        Self {
            cache: Arc::clone(cache),
            codec,
            deadline,
            metrics: Arc::clone(metrics),
            room: AtomicU64::new(cache.l1.max_bytes()),
            has_doubted: AtomicBool::new(false),
        }
    }

    /// Takes the records of the file into L1. Returns the keys that are still to be looked for. It
    /// reads a file and must not run on a thread that serves requests. Needs a tokio runtime.
    pub fn restore_snapshot(&self, file: &WarmFile) -> Vec<HotKey> {
        let is_shared = |tier: &&Arc<L2>| tier.is_shared() && tier.generation().is_some();
        if self.cache.second_tier().filter(is_shared).is_some() {
            return file.keys.clone();
        }
        let wanted = file.keys.iter();
        let wanted = wanted.filter_map(|key| match key.has_record() {
            false => Some(key.clone()),
            true => {
                let outcome = self.restore_record(file, key);
                self.metrics.count(WarmSource::Snapshot, outcome);
                let is_there = matches!(
                    outcome,
                    WarmOutcome::Restored | WarmOutcome::InDoubt | WarmOutcome::Purged
                );
                (!is_there).then(|| key.clone())
            }
        });
        wanted.collect()
    }

    fn restore_record(&self, file: &WarmFile, key: &HotKey) -> WarmOutcome {
        if let Some(early) = self.ends_early() {
            return early;
        }
        let Ok(Some(bytes)) = file.record(key) else {
            return WarmOutcome::Damaged;
        };
        let (limits, seal) = (&self.codec.limits, &self.codec.seal);
        let decoded = record::decode(key.key.as_bytes(), &bytes, limits, seal);
        let seen = decoded.and_then(|record| match record {
            StoreRecord::Entry(stored) => stored.seen_at(ClockReading::now(), Duration::MAX),
            StoreRecord::Varies(_) => Err(CorruptRecord::Form),
        });
        let stored = match seen {
            Ok(stored) => stored,
            Err(CorruptRecord::Ended) => return WarmOutcome::Ended,
            Err(_) => return WarmOutcome::Damaged,
        };
        let born = match self.judgement(&stored) {
            RecordJudgement::Since(born) => born,
            RecordJudgement::InDoubt => self.in_doubt(),
            RecordJudgement::Outdated => return WarmOutcome::Outdated,
        };
        let vary = Vary::parse(&stored.headers);
        self.take(key, &vary, convert::entry(key.key.clone(), stored, born))
    }

    fn judgement(&self, stored: &ResponseRecord) -> RecordJudgement {
        let Some(tier) = self.cache.second_tier() else {
            return match stored.generation {
                0 => RecordJudgement::Since(PurgeOrder::BEFORE_ALL),
                _ => RecordJudgement::Outdated,
            };
        };
        match tier.generation() {
            Some(generation) if generation == stored.generation => tier
                .order_of(generation, stored.born)
                .map_or(RecordJudgement::Outdated, RecordJudgement::Since),
            Some(_) | None => RecordJudgement::InDoubt,
        }
    }

    /// The place of birth of what was stored before this process, after a doubt about all of that.
    fn in_doubt(&self) -> PurgeOrder {
        if !self.has_doubted.swap(true, Ordering::Relaxed) {
            self.cache.doubt(DoubtDuration::ForGood);
            tracing::info!(
                "the purge log that could judge the snapshot is not there: what is taken from it \
                 is validated before it is served"
            );
        }
        PurgeOrder::BEFORE_ALL
    }

    /// Takes what the second tier has into L1, the hottest first. Returns the keys that are not in
    /// L1, or are in doubt there.
    pub async fn restore_from_second_tier(&self, keys: Vec<HotKey>) -> Vec<HotKey> {
        let Some(tier) = self.cache.second_tier() else {
            return keys;
        };
        let patience = self.deadline.saturating_duration_since(Instant::now());
        if keys.is_empty() || !tier.known(patience).await {
            self.metrics
                .count_all(WarmSource::SecondTier, WarmOutcome::Failed, keys.len());
            return keys;
        }
        let looks = stream::iter(keys).map(|key| async move {
            let outcome = self.look(tier, &key).await;
            self.metrics.count(WarmSource::SecondTier, outcome);
            match outcome {
                WarmOutcome::Missing
                | WarmOutcome::Ended
                | WarmOutcome::InDoubt
                | WarmOutcome::Failed => Some(key),
                _ => None,
            }
        });
        let wanted = looks.buffered(PARALLEL).filter_map(std::future::ready);
        wanted.collect().await
    }

    async fn look(&self, tier: &L2, key: &HotKey) -> WarmOutcome {
        if let Some(early) = self.ends_early() {
            return early;
        }
        let primary = key.primary();
        let look = tier.find_stored(&primary, &key.key, key.identity);
        match tokio::time::timeout_at(self.deadline.into(), look).await {
            Err(_) => WarmOutcome::NotReached,
            Ok(L2Lookup::Unknown) => WarmOutcome::Failed,
            Ok(L2Lookup::Miss) => WarmOutcome::Missing,
            Ok(L2Lookup::Found(found)) => {
                let L2Entry { entry, vary } = *found;
                self.take(key, &vary, entry)
            }
        }
    }

    fn ends_early(&self) -> Option<WarmOutcome> {
        if Instant::now() >= self.deadline {
            return Some(WarmOutcome::NotReached);
        }
        (self.room.load(Ordering::Relaxed) == 0).then_some(WarmOutcome::NoRoom)
    }

    fn take(&self, key: &HotKey, vary: &Vary, entry: Entry) -> WarmOutcome {
        let entry = Arc::new(entry);
        entry.add_uses(key.uses);
        let size = entry.size() as u64;
        let primary: EntryKey = key.primary();
        if self.cache.promote(primary, vary, &entry).is_none() {
            return WarmOutcome::Purged;
        }
        let taken = self.room.load(Ordering::Relaxed).saturating_sub(size);
        self.room.store(taken, Ordering::Relaxed);
        match self.cache.is_sure(&entry) {
            true => WarmOutcome::Restored,
            false => WarmOutcome::InDoubt,
        }
    }
}
