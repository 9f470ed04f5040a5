//! The second tier: records that outlive L1 and, in a shared store, serve all nodes.
//!
//! Inside: `store` (the trait), `redis` (shared by nodes), `disk` (for one node), `description` (what
//! the rest of the program asks of a configured store, and the table of both); `find` and `put`
//! (what requests use), `convert` (entries and records); `guard` (deadline, breaker, limit of
//! calls), `writer` (write-behind), `removals`, `invalidations`, `feed` with `window` and `pauses` (the purge
//! log of the store), `standing` (whether the store works), `lease` (one load for each key among
//! nodes); `index`, `list` and `clear` (where the store keeps an index: noting records, listing
//! them, freeing what purges hide). The form of a record is in [`super::record`].
//!
//! Invariant: whatever happens here, the request continues. A failure, a damaged or foreign record,
//! and a record that can't be judged because the purge log is not known, are misses. Nothing is
//! read or written before the log was read, and nothing of another generation of the log is
//! trusted.

mod clear;
pub mod config;
pub(super) mod convert;
pub mod description;
pub mod disk;
mod feed;
mod find;
mod guard;
mod index;
mod invalidations;
mod lease;
mod list;
mod pauses;
mod put;
pub mod redis;
mod removals;
mod standing;
pub mod store;
mod window;
mod writer;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
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
use store::Store;
use store::{LogNumber, LogOrder, LogPlace, PurgeLogRange};
use writer::WriteBehindBuffer;

pub use find::{L2Entry, L2Lookup};
pub use lease::{HeldLease, LeaseHolder};
pub use list::{RecordListingCursor, RecordListingError, RecordListingItem, RecordListingPage};
pub use standing::{EVICTS, StoreHealth};

/// The second tier.
pub struct L2 {
    guard: StoreGuard,
    writer: WriteBehindBuffer,
    removals: PendingRemovals,
    invalidations: StoreInvalidations,
    on_noted: OnceLock<OnNoted>,
    feed: PurgeLogSync,
    index: RecordIndexer,
    clearing: Arc<PurgedRecordCleanup>,
    /// Held by the listing that is running.
    listing: tokio::sync::Mutex<()>,
    codec: ArcSwap<record::RecordOptions>,
    max_life: Duration,
    lease: ArcSwap<config::LeaseRules>,
    hooks: Arc<CacheEventCounters>,
}

/// The number of writes that run at the same time.
const WRITERS: usize = 4;

impl L2 {
    /// Creates the tier over `store`. Call [`run`](Self::run) to start its background work.
    ///
    /// # Errors
    /// When the registry already holds the metrics of a second tier.
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
            codec: ArcSwap::from_pointee(codec),
            max_life: config.max_life.into(),
            lease: ArcSwap::from_pointee(config.lease),
            hooks,
        })
    }

    /// How records are written and read now.
    pub(super) fn codec(&self) -> Arc<record::RecordOptions> {
        self.codec.load_full()
    }

    /// Follows the parts of another configuration that may change while the tier is used: deadlines,
    /// leases, the compression of records, and the largest size of objects.
    pub fn follow(&self, config: &config::L2Config, max_object_bytes: usize) {
        self.guard.follow(config);
        self.lease.store(Arc::new(config.lease));
        let codec = record::RecordOptions {
            compression: convert::compression(config.compress),
            limits: RecordLimits::for_objects(max_object_bytes),
            ..record::RecordOptions::clone(&self.codec())
        };
        self.codec.store(Arc::new(codec));
    }

    /// Starts the background work on the calling runtime: writing records, noting them in the
    /// index, appending purges, freeing what they hide, and following the log.
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
        tokio::spawn(async move { tier.feed.standing.watch_writes(&tier.guard).await });
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

    /// Whether all nodes use this store and follow its purge log.
    pub fn is_shared(&self) -> bool {
        self.guard.store.is_shared()
    }

    /// The generation of the purge log. None: it was not read yet.
    pub fn generation(&self) -> Option<u64> {
        self.feed.generation()
    }

    /// The place in our own order that matches this place of birth in the store's log. None: not
    /// every purge before it was applied here, or it can't be determined.
    pub fn order_of(&self, generation: u64, born: LogOrder) -> Option<PurgeOrder> {
        self.feed.order_of(generation, born).ok()
    }

    /// The place in our own order of the purge with this number in the store's log.
    pub(crate) fn order_at(&self, number: LogNumber) -> PurgeOrder {
        self.feed.order_at(number)
    }

    /// The place in the store's log that matches this place in our own order.
    pub(crate) fn place_of(&self, order: PurgeOrder) -> Option<LogPlace> {
        self.feed.place_of(order)
    }

    /// Reads what is new in the purge log. False: the store does not answer.
    pub async fn catch_up(&self) -> bool {
        self.feed.catch_up(&self.guard).await
    }

    /// The whole purge log of a store that one process alone can have, for the process that takes the
    /// place of this one: until this one has closed the store, that one can't read it. All purges
    /// that are in force here by now are in it. None: there is no such store, or it can't be read in
    /// time.
    pub async fn log_for_successor(&self, patience: Duration) -> Option<PurgeLogRange> {
        if self.is_shared() || self.guard.store.awaits_predecessor() {
            return None;
        }
        let whole = async {
            self.feed.settled().await;
            self.guard.store.read_log(LogNumber::ZERO).await
        };
        tokio::time::timeout(patience, whole).await.ok()?.ok()
    }

    /// Returns whether the process whose place this one takes still has the store, so that it can't
    /// be read yet.
    pub fn awaits_predecessor(&self) -> bool {
        self.guard.store.awaits_predecessor()
    }

    /// Begins with the purge log as the process before has read it, if that still has the store.
    pub fn begin_with_log(&self, log: PurgeLogRange) {
        if self.guard.store.awaits_predecessor() {
            let question = self.feed.question();
            // Nothing was read before.
            let _ = self.feed.apply(log, question);
        }
    }

    /// Whether the store accepts this node's purges and returns those of others.
    pub fn reach(&self) -> StoreHealth {
        self.feed.standing()
    }

    /// The number of purges that are in force here and not yet in the store's log.
    pub fn purges_waiting(&self) -> usize {
        self.feed.waiting()
    }

    /// The kind of store.
    pub fn kind(&self) -> &'static str {
        self.guard.store.kind()
    }

    /// Waits until the purge log was read, so that the tier can be used, or until `patience` is
    /// over.
    pub async fn known(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.feed.known())
            .await
            .is_ok()
    }

    /// Finishes all pending writes and appends and makes them durable, as far as `patience` allows.
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
                tracing::warn!(%error, "the second tier could not finish its pending writes");
            }
            Err(_) => tracing::warn!("the second tier did not finish its pending writes in time"),
        }
    }

    /// Leaves to the next process what one process alone can have.
    pub async fn close(&self) {
        if let Err(error) = self.guard.store.close().await {
            tracing::warn!(%error, "the second tier could not be left to the next process");
        }
    }

    /// Records a purge in our own log and sends it to all nodes by the store's log. The receiver
    /// gets its number there.
    pub fn purge(
        &self,
        selector: &Selector,
        kind: PurgeKind,
    ) -> (PurgeOrder, oneshot::Receiver<LogNumber>) {
        self.purge_by(PurgeInitiator::Operator, selector, kind)
    }

    /// Like [`purge`](Self::purge), among the purges of this author.
    pub fn purge_by(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
    ) -> (PurgeOrder, oneshot::Receiver<LogNumber>) {
        self.feed.push(author, selector, kind)
    }

    /// Asks the store's log for a new number, which separates what was before from what comes
    /// after.
    pub fn ask_for_number(&self) -> oneshot::Receiver<LogNumber> {
        self.feed.ask_for_number()
    }
}

#[cfg(test)]
mod tests;
