//! Synchronizes the store's purge log and our own: every purge of this node is appended to it, and
//! every purge in it is applied here.
//!
//! A purge first takes effect here at once, by a local step. It is appended in the background,
//! retried until it is in the log, and then applied once more with the number that it got there;
//! this may reach a little more, but never less. Numbers come in order and without holes
//! ([`PurgeLogRange`]). If some are missing, everything that was born before is hidden.
//!
//! No number of the store is trusted by itself: our own order grows with the purges that are really
//! there, one after another ([`PurgeLogWindow`]). A number that no purges lead to means that purges
//! are missing, however high it is. So whoever can write to the store can't push our order to its
//! end.
//!
//! Invariant: a purge that was taken in is not forgotten before it is appended. When too many
//! purges wait, one purge of everything replaces them all. Purges that requests of clients caused
//! wait separately; when too many of them wait, a doubt replaces them, so what is stored is
//! validated and not lost. Invariant: a purge that waits for its number comes after every number
//! that is known here, because it will get a later one. So it hides whatever the store has,
//! wherever that was born ([`PurgeLogSync::hides`]). A record that was born at a number that was
//! not applied yet can't be judged.

mod append;
mod follow;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::Notify;

use super::clear::PurgedRecordCleanup;
use super::standing::{StoreHealth, StoreHealthTracker};
use super::store::{LogFault, LogNumber, LogOrder, LogPlace};
use super::window::PurgeLogWindow;
use crate::entry::PurgeAttributes;
use crate::event::{CacheEventCounters, L2LookupOutcome};
use crate::purge::{PurgeLog, PurgeOrder};

use append::AppendQueue;
use follow::LastWarning;

/// What was known of the log's generations when the store was asked for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogQuestion(u64);

/// What became of an answer of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum LogAnswerOutcome {
    Applied,
    /// It is about another generation than the one that was read since the store was asked, so it may
    /// be about an earlier one.
    Outdated,
}

/// Both directions of the synchronization.
pub(super) struct PurgeLogSync {
    log: Arc<PurgeLog>,
    /// Informed of each purge of this node that got its number.
    clearing: Arc<PurgedRecordCleanup>,
    hooks: Arc<CacheEventCounters>,
    queue: Mutex<AppendQueue>,
    wake: Notify,
    /// Notified when purges were appended or the log was read for the first time.
    news: Notify,
    /// Held while a range of the log is applied.
    applying: Mutex<LastWarning>,
    /// How far the log was applied; None while it was not read. It is changed only when all purges
    /// up to its end are in our own log.
    window: RwLock<Option<PurgeLogWindow>>,
    /// How often a window took the place of another one.
    replaced_windows: AtomicU64,
    /// The number for which a further number was already requested because few local steps were
    /// left.
    asked_at: AtomicU64,
    depth: IntGauge,
    number: IntGauge,
    gaps: IntCounter,
    faults: IntCounterVec,
    pub(super) standing: StoreHealthTracker,
}

impl PurgeLogSync {
    pub(super) fn new(
        log: Arc<PurgeLog>,
        clearing: Arc<PurgedRecordCleanup>,
        hooks: Arc<CacheEventCounters>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let depth = IntGauge::new(
            "lamina_l2_purges_waiting",
            "Purges that already apply on this node and wait to be appended to the second tier's \
             log.",
        )?;
        let number = IntGauge::new(
            "lamina_l2_purge_log_number",
            "The newest purge of the second tier's log that was applied here.",
        )?;
        let gaps = IntCounter::new(
            "lamina_l2_purge_log_gaps_total",
            "Times that purges may have been missed, so that everything older was hidden.",
        )?;
        let faults = IntCounterVec::new(
            Opts::new(
                "lamina_l2_purge_log_faults_total",
                "Times that the second tier's purge log, or a purge in it, was not trusted.",
            ),
            &["reason"],
        )?;
        for fault in LogFault::ALL {
            faults.with_label_values(&[fault.as_str()]);
        }
        registry.register(Box::new(faults.clone()))?;
        registry.register(Box::new(depth.clone()))?;
        registry.register(Box::new(number.clone()))?;
        registry.register(Box::new(gaps.clone()))?;
        Ok(Self {
            log,
            clearing,
            hooks,
            queue: Mutex::default(),
            wake: Notify::new(),
            news: Notify::new(),
            applying: Mutex::default(),
            window: RwLock::default(),
            replaced_windows: AtomicU64::new(0),
            asked_at: AtomicU64::new(u64::MAX),
            depth,
            number,
            gaps,
            faults,
            standing: StoreHealthTracker::new(registry)?,
        })
    }

    /// The generation of the log that was read last; None before the first read.
    pub(super) fn generation(&self) -> Option<u64> {
        let window = self.window.read();
        let usable = window.as_ref().filter(|window| !window.is_used_up());
        usable.map(|window| window.generation)
    }

    /// The newest number that was applied here; 0 before the log was read.
    pub(super) fn applied(&self) -> LogNumber {
        self.window
            .read()
            .as_ref()
            .map_or(LogNumber::ZERO, |window| window.newest)
    }

    /// To be noted before the store is asked for the log.
    pub(super) fn question(&self) -> LogQuestion {
        LogQuestion(self.replaced_windows.load(Ordering::Acquire))
    }

    /// The place in our own order that matches this place of birth in the store's log.
    ///
    /// # Errors
    /// The reason why the record can't be judged.
    pub(super) fn order_of(
        &self,
        generation: u64,
        born: LogOrder,
    ) -> Result<PurgeOrder, L2LookupOutcome> {
        let window = self.window.read();
        let window = window.as_ref().ok_or(L2LookupOutcome::Skipped)?;
        if window.generation != generation {
            return Err(L2LookupOutcome::Outdated);
        }
        window.order_of(born.number())
    }

    /// The place in our own order of the purge with this number.
    pub(super) fn order_at(&self, number: LogNumber) -> PurgeOrder {
        let window = self.window.read();
        let order = window.as_ref().map(|window| window.order_at(number));
        order.unwrap_or_default()
    }

    /// Waits until the log was read, and returns the newest place of it that was applied here.
    pub(super) async fn newest(&self) -> LogPlace {
        loop {
            self.known().await;
            if let Some(window) = &*self.window.read() {
                return LogPlace {
                    generation: window.generation,
                    order: window.newest.order(),
                };
            }
        }
    }

    /// A place in the store's log after everything that this node can know of.
    pub(super) async fn after_all_known(&self) -> LogPlace {
        let newest = self.newest().await;
        LogPlace {
            order: newest.order.right_after(),
            ..newest
        }
    }

    /// The health of the store for purges of this node and of others.
    pub(super) fn standing(&self) -> StoreHealth {
        self.standing.get(Instant::now())
    }

    /// The number of purges that are in force here and not yet in the store's log.
    pub(super) fn waiting(&self) -> usize {
        usize::try_from(self.queue.lock().depth()).unwrap_or(0)
    }

    /// The place in the store's log that matches this place in our own order. None: the log was not
    /// read yet, or has begun anew since.
    pub(super) fn place_of(&self, order: PurgeOrder) -> Option<LogPlace> {
        let window = self.window.read();
        let window = window.as_ref()?;
        let order = window.place_of(order)?;
        Some(LogPlace {
            generation: window.generation,
            order,
        })
    }

    /// Whether a purge that still waits for its number reaches something with these marks.
    pub(super) fn hides(&self, marks: &PurgeAttributes) -> bool {
        let queue = self.queue.lock();
        queue.depth() > 0 && queue.pending.hides(marks, PurgeOrder::BEFORE_ALL)
    }

    /// Waits until the log was read for the first time.
    pub(super) async fn known(&self) {
        self.until(|| self.generation().is_some()).await;
    }

    /// Waits until no purge is waiting.
    pub(super) async fn settled(&self) {
        self.until(|| {
            let queue = self.queue.lock();
            queue.depth() == 0
        })
        .await;
    }

    async fn until(&self, reached: impl Fn() -> bool) {
        loop {
            // From here on no notification is missed.
            let news = self.news.notified();
            if reached() {
                return;
            }
            news.await;
        }
    }

    /// The current place in the order of purges. What begins now notes it.
    pub(super) fn order(&self) -> PurgeOrder {
        self.log.order()
    }
}
