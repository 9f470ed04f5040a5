//! The second tier: what outlives L1, and what nodes share.
//!
//! Inside: `store` (the trait), `redis` (what nodes share), `disk` (for one node); `find` and
//! `put` (what requests come with), `convert` (entries and records); `guard` (deadline,
//! breaker, gate), `writer` (write-behind), `removals`, `invalidations`, `feed` (the purge log of the store), `standing` (whether that works),
//! `lease` (one load a key among nodes); `index`, `list` and `clear` (where the store keeps
//! an index: noting, listing, freeing what purges hide). What a record is, [`super::record`] knows.
//!
//! Invariant: whatever happens here, the request goes on: a failure, a damaged or foreign
//! record, and what can't be judged for want of the purge log, are misses. Nothing is
//! read or written before the log was read, and nothing of another log's generation is
//! believed.

mod clear;
pub mod config;
pub(super) mod convert;
pub mod disk;
mod feed;
mod find;
mod guard;
mod index;
mod invalidations;
mod lease;
mod list;
mod put;
pub mod redis;
mod removals;
mod standing;
pub mod store;
mod window;
mod writer;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::oneshot;

use crate::event::CacheEventCounters;
use crate::purge::{PurgeInitiator, PurgeKind, PurgeLog, PurgeOrder, Selector};
use crate::record::{self, RecordLimits, Seal};
use clear::PurgedRecordCleanup;
use feed::PurgeLogSync;
use guard::StoreGuard;
use index::RecordIndexer;
use invalidations::{OnNoted, StoreInvalidations};
use removals::PendingRemovals;
use store::LogPlace;
use store::Store;
use writer::WriteBehindBuffer;

pub use find::{L2Entry, L2Lookup};
pub use lease::{HeldLease, LeaseHolder};
pub use list::{RecordListingCursor, RecordListingError, RecordListingItem, RecordListingPage};
pub use standing::{EVICTS, StoreHealth};

/// The tier.
pub struct L2 {
    guard: StoreGuard,
    writer: WriteBehindBuffer,
    removals: PendingRemovals,
    invalidations: StoreInvalidations,
    on_noted: OnceLock<OnNoted>,
    feed: PurgeLogSync,
    index: RecordIndexer,
    clearing: Arc<PurgedRecordCleanup>,
    /// Held by the listing that is under way.
    listing: tokio::sync::Mutex<()>,
    codec: record::RecordOptions,
    max_life: Duration,
    lease: config::LeaseRules,
    hooks: Arc<CacheEventCounters>,
}

/// Writes under way at once.
const WRITERS: usize = 4;

impl L2 {
    /// The tier over `store`. Call [`run`](Self::run) to set it to work.
    ///
    /// # Errors
    /// When the registry has a second tier already.
    pub fn new(
        store: Arc<dyn Store>,
        config: &config::L2Config,
        seal: Seal,
        max_object_bytes: usize,
        log: Arc<PurgeLog>,
        hooks: Arc<CacheEventCounters>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let codec = record::RecordOptions {
            compression: convert::compression(config.compress),
            limits: RecordLimits::for_objects(max_object_bytes),
            seal,
        };
        let index = RecordIndexer::new(&*store, registry)?;
        let clearing = Arc::new(PurgedRecordCleanup::new(index.shards() > 0, registry)?);
        Ok(Self {
            guard: StoreGuard::new(store, config, Arc::clone(&hooks), registry)?,
            writer: WriteBehindBuffer::new(config.write_queue.as_usize(), registry)?,
            removals: PendingRemovals::new(registry)?,
            invalidations: StoreInvalidations::new(registry)?,
            on_noted: OnceLock::new(),
            feed: PurgeLogSync::new(log, Arc::clone(&clearing), Arc::clone(&hooks), registry)?,
            index,
            clearing,
            listing: tokio::sync::Mutex::default(),
            codec,
            max_life: config.max_life.into(),
            lease: config.lease,
            hooks,
        })
    }

    /// Writes behind, notes what was written, appends purges, frees what they hide and
    /// follows the log, on the runtime that calls it.
    pub fn run(self: &Arc<Self>) {
        for _ in 0..WRITERS {
            let tier = Arc::clone(self);
            tokio::spawn(async move { tier.write_behind().await });
        }
        let tier = Arc::clone(self);
        tokio::spawn(async move { tier.feed.append(&tier.guard).await });
        let tier = Arc::clone(self);
        tokio::spawn(async move { tier.feed.follow(&tier.guard).await });
        let tier = Arc::clone(self);
        tokio::spawn(async move { tier.feed.watch_evictions(&tier.guard).await });
        let tier = Arc::clone(self);
        tokio::spawn(async move { tier.feed.standing.watch_writes(&*tier.guard.store).await });
        let tier = Arc::clone(self);
        tokio::spawn(async move { tier.invalidate_behind().await });
        tokio::spawn(Arc::clone(self).settle_behind());
        if self.index.shards() > 0 {
            let tier = Arc::clone(self);
            tokio::spawn(async move { tier.index.note_behind(&tier.guard).await });
            let tier = Arc::clone(self);
            tokio::spawn(async move { tier.clear_behind().await });
        }
    }

    /// Whether all nodes use the store, and follow its purge log.
    pub fn is_shared(&self) -> bool {
        self.guard.store.is_shared()
    }

    /// The generation of the purge log; none before it was read.
    pub fn generation(&self) -> Option<u64> {
        self.feed.generation()
    }

    /// Where a record that was born at this place of the store's log stands in our own
    /// order; none: not every purge before that was applied here, or it can't be told.
    pub fn order_of(&self, generation: u64, born: PurgeOrder) -> Option<PurgeOrder> {
        self.feed.order_of(generation, born).ok()
    }

    /// Where a purge with this number of the store's log stands in our own order.
    pub(crate) fn order_at(&self, number: u64) -> PurgeOrder {
        self.feed.order_at(number)
    }

    /// Where in the store's log something stands that began at this place of our own order.
    pub(crate) fn place_of(&self, order: PurgeOrder) -> Option<LogPlace> {
        self.feed.place_of(order)
    }

    /// Reads what is new in the purge log. False: the store does not tell.
    pub async fn catch_up(&self) -> bool {
        self.feed.catch_up(&self.guard).await
    }

    /// Whether the store takes this node's purges and tells those of others.
    pub fn reach(&self) -> StoreHealth {
        self.feed.standing()
    }

    /// Purges that hold here and are not in the store's log yet.
    pub fn purges_waiting(&self) -> usize {
        self.feed.waiting()
    }

    /// The kind of store.
    pub fn kind(&self) -> &'static str {
        self.guard.store.kind()
    }

    /// Waits until the purge log was read, so that the tier can be, or until `patience` is over.
    pub async fn known(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.feed.known())
            .await
            .is_ok()
    }

    /// Brings to an end what waits to be written and appended, and makes it last, as far as
    /// `patience` allows.
    pub async fn finish(&self, patience: Duration) {
        let all = async {
            self.feed.settled().await;
            self.writer.settled().await;
            self.index.settled().await;
            self.guard.store.sync().await
        };
        match tokio::time::timeout(patience, all).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the second tier could not be brought to an end");
            }
            Err(_) => tracing::warn!("the second tier took too long to be brought to an end"),
        }
    }

    /// Notes a purge in our log, and tells all nodes. The receiver gets its number.
    pub fn purge(
        &self,
        selector: &Selector,
        kind: PurgeKind,
    ) -> (PurgeOrder, oneshot::Receiver<u64>) {
        self.purge_by(PurgeInitiator::Operator, selector, kind)
    }

    /// As [`purge`](Self::purge), among those of this author.
    pub fn purge_by(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
    ) -> (PurgeOrder, oneshot::Receiver<u64>) {
        self.feed.push(author, selector, kind)
    }

    /// Asks the log for a number, which tells before and after apart.
    pub fn ask_for_number(&self) -> oneshot::Receiver<u64> {
        self.feed.ask_for_number()
    }
}

#[cfg(test)]
mod tests;
