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

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{Notify, oneshot};

use super::clear::PurgedRecordCleanup;
use super::guard::{StoreCall, StoreCallError, StoreGuard};
use super::pauses::StoreRetryPauses;
use super::standing::{EVICTS, StoreChannel, StoreHealth, StoreHealthTracker};
use super::store::{
    LogFault, LogNumber, LogOrder, LogPlace, LoggedPurge, PurgeLogEntry, PurgeLogRange, StoreError,
    nothing,
};
use super::window::{LogWindowAdvance, PurgeLogWindow};
use crate::entry::PurgeAttributes;
use crate::event::{CacheEvent, CacheEventCounters, L2LookupOutcome};
use crate::purge::{
    DoubtDuration, PurgeInitiator, PurgeKind, PurgeLog, PurgeOrder, PurgeStatement, Selector,
};

/// The largest number of different purges that wait to be appended, for each author.
const WAITING: usize = 10_000;
/// The number of purges that are appended at the same time.
const BATCH: usize = 32;
/// How long one read of the log waits for news. A log that began anew wakes nobody who waits for a
/// number of the old one, so a new log is noticed after this time. Each read also touches the log,
/// so that a store which evicts keys finds an older one.
const PATIENCE: Duration = Duration::from_millis(5000);
/// The pauses between two checks whether the store evicts, after a success and after a failure.
const EVICTIONS: Duration = Duration::from_secs(60);
const EVICTIONS_AGAIN: Duration = Duration::from_secs(1);
/// How much longer than its patience a read of the log may take.
const WATCH_MARGIN: Duration = Duration::from_secs(2);

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
    /// The number for which a further number was already requested because few local steps were
    /// left.
    asked_at: AtomicU64,
    depth: IntGauge,
    number: IntGauge,
    gaps: IntCounter,
    faults: IntCounterVec,
    pub(super) standing: StoreHealthTracker,
}

/// When a warning was last logged that the purge log is not trusted.
#[derive(Default)]
struct LastWarning(Option<Instant>);

/// The time between two warnings about the log. Somebody who writes to the store may cause a
/// thousand faults a second: each is counted, but only some are logged.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Those who wait for a purge's number.
type PurgeNumberWaiters = Vec<oneshot::Sender<LogNumber>>;

/// Purges that are not in the store's log yet. Their order among each other has no meaning, because
/// each gets its number when it is appended.
struct AppendQueue {
    waiting: HashMap<LoggedPurge, PurgeNumberWaiters>,
    /// Purges that requests of clients caused.
    by_requests: HashMap<LoggedPurge, PurgeNumberWaiters>,
    under_way: usize,
    /// All purges that waited since the queue was last empty. This log has an order of its own.
    pending: PurgeLog,
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

    /// Takes in a purge, which is in force here when this returns. The receiver gets its number
    /// later. Nobody can append the purge before it is recorded here: otherwise it would be
    /// recorded after its own number and would reach what others have loaded since.
    pub(super) fn push(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
    ) -> (PurgeOrder, oneshot::Receiver<LogNumber>) {
        let (done, receiver) = oneshot::channel();
        let purge = LoggedPurge {
            selector: PurgeStatement::Purged(author, selector.clone()).to_string(),
            soft: kind == PurgeKind::Soft,
        };
        let mut queue = self.queue.lock();
        // This comes first, so that what is applied in between does not come before it.
        queue.pending.record_by(author, selector, PurgeKind::Hard);
        let order = self.log.record_by(author, selector, kind);
        match author {
            PurgeInitiator::Operator => self.wait_for(&mut queue, purge, vec![done]),
            PurgeInitiator::Request => self.wait_for_request(&mut queue, purge, vec![done]),
        }
        drop(queue);
        self.wake.notify_one();
        (order, receiver)
    }

    /// The current place in the order of purges. What begins now notes it.
    pub(super) fn order(&self) -> PurgeOrder {
        self.log.order()
    }

    /// Lets everything that is stored anywhere be validated before it is shown, because more was
    /// invalidated than can be noted.
    pub(super) fn doubt_everything(&self) {
        let mut queue = self.queue.lock();
        if let Place::Vacant(place) = queue.by_requests.entry(doubt()) {
            place.insert(Vec::new());
            self.log.doubt(DoubtDuration::ForGood);
            self.depth.set(queue.depth());
            tracing::warn!(
                "too many invalidations wait for the second tier; instead, all stored entries are \
                 validated before they are served"
            );
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Asks for a new number when few local steps of the current one are left, once for each
    /// number.
    pub(super) fn ask_before_steps_end(&self) {
        let number = self.log.order().number();
        if self.log.wants_number() && self.asked_at.swap(number, Ordering::Relaxed) != number {
            drop(self.ask_for_number());
        }
    }

    /// Asks for a number of the log, by appending a purge that reaches nothing and leaves no
    /// record.
    pub(super) fn ask_for_number(&self) -> oneshot::Receiver<LogNumber> {
        let (done, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.waiting.entry(nothing()).or_default().push(done);
        self.depth.set(queue.depth());
        drop(queue);
        self.wake.notify_one();
        receiver
    }

    /// Queues a purge. If the same purge waits already, the two are one: its number comes after
    /// both.
    fn wait_for(&self, queue: &mut AppendQueue, purge: LoggedPurge, tellers: PurgeNumberWaiters) {
        let purge = match queue.waiting.contains_key(&purge) || queue.waiting.len() < WAITING {
            true => purge,
            false => {
                let all = queue.waiting.drain().flat_map(|(_, tellers)| tellers);
                let all = all.collect();
                queue.waiting.insert(everything(), all);
                everything()
            }
        };
        queue.waiting.entry(purge).or_default().extend(tellers);
        self.depth.set(queue.depth());
    }

    /// The same for a purge that a request caused.
    fn wait_for_request(
        &self,
        queue: &mut AppendQueue,
        purge: LoggedPurge,
        tellers: PurgeNumberWaiters,
    ) {
        let fits = queue.by_requests.contains_key(&purge) || queue.by_requests.len() < WAITING;
        let purge = match fits {
            true => purge,
            false => {
                let all = queue.by_requests.drain().flat_map(|(_, tellers)| tellers);
                let all = all.collect();
                self.log.doubt(DoubtDuration::ForGood);
                queue.by_requests.insert(doubt(), all);
                tracing::warn!(
                    "too many purges by `invalidate` rules wait for the second tier; instead, all \
                     stored entries are validated before they are served"
                );
                doubt()
            }
        };
        queue.by_requests.entry(purge).or_default().extend(tellers);
        self.depth.set(queue.depth());
    }

    /// Appends the waiting purges. It never returns.
    pub(super) async fn append(&self, guard: &StoreGuard) {
        let mut pauses = StoreRetryPauses::new(guard.store.connects());
        loop {
            pauses.begin();
            let batch = self.batch();
            if batch.is_empty() {
                self.wake.notified().await;
                continue;
            }
            let appends = batch
                .into_iter()
                .map(|(purge, tellers)| self.append_one(guard, purge, tellers));
            let well = join_all(appends).await.into_iter().all(|well| well);
            self.news.notify_waiters();
            match well {
                true => pauses.reset(),
                false => pauses.wait().await,
            }
        }
    }

    fn batch(&self) -> Vec<(LoggedPurge, PurgeNumberWaiters)> {
        let mut queue = self.queue.lock();
        let mut batch = taken(&mut queue.waiting, BATCH);
        let room = BATCH - batch.len();
        batch.extend(taken(&mut queue.by_requests, room));
        queue.under_way += batch.len();
        batch
    }

    /// False: the purge waits again.
    async fn append_one(
        &self,
        guard: &StoreGuard,
        purge: LoggedPurge,
        tellers: PurgeNumberWaiters,
    ) -> bool {
        let last = self.applied();
        let appended = guard
            .call(StoreCall::Log, |store| store.append(&purge, last))
            .await;
        match appended {
            Ok(log) => {
                self.standing.works(StoreChannel::Appends);
                let (newest, place) = (log.newest, log.end());
                self.apply(log);
                self.came_back(|_| {});
                self.clearing.logged(&purge, place);
                // Those who waited for the number may have left.
                for teller in tellers {
                    let _ = teller.send(newest);
                }
                true
            }
            Err(failed) => {
                self.standing.fails(StoreChannel::Appends, &failed);
                let author = match purge.selector.parse() {
                    Ok(PurgeStatement::Purged(author, _)) => author,
                    Ok(PurgeStatement::Doubt) => PurgeInitiator::Request,
                    Ok(PurgeStatement::Invalidated(_)) | Err(_) => PurgeInitiator::Operator,
                };
                self.came_back(|queue| match author {
                    PurgeInitiator::Operator => self.wait_for(queue, purge, tellers),
                    PurgeInitiator::Request => self.wait_for_request(queue, purge, tellers),
                });
                false
            }
        }
    }

    /// Ends the time in which a purge is under way. `then` is called under the same lock.
    fn came_back(&self, then: impl FnOnce(&mut AppendQueue)) {
        let mut queue = self.queue.lock();
        then(&mut queue);
        queue.under_way -= 1;
        if queue.depth() == 0 {
            queue.pending = pending();
        }
        self.depth.set(queue.depth());
    }

    /// Applies what others append. It never returns. It does not use the guard, because a read of
    /// the log waits as long as nothing happens. The first read, and the first after a failed one,
    /// do not wait: the store may have come back with an older log.
    pub(super) async fn follow(&self, guard: &StoreGuard) {
        let mut pauses = StoreRetryPauses::new(guard.store.connects());
        let mut patience = None;
        loop {
            pauses.begin();
            let after = self.applied();
            let look = match patience {
                None => guard.store.read_log(after),
                Some(patience) => guard.store.watch_log(after, patience),
            };
            let look = tokio::time::timeout(PATIENCE + WATCH_MARGIN, look).await;
            let look = look
                .unwrap_or(Err(StoreError::Timeout))
                .map_err(StoreCallError::Store);
            guard.count(StoreCall::Watch, &look);
            match look {
                Ok(log) => {
                    pauses.reset();
                    patience = Some(PATIENCE);
                    guard.answered();
                    self.standing.works(StoreChannel::Follows);
                    self.apply(log);
                }
                Err(failed) => {
                    patience = None;
                    self.standing.fails(StoreChannel::Follows, &failed);
                    pauses.wait().await;
                }
            }
        }
    }

    /// Checks regularly whether the store may evict the log. It never returns. Each read of the log
    /// keeps it from being the oldest key in the store; more can't be done from here.
    pub(super) async fn watch_evictions(&self, guard: &StoreGuard) {
        let mut known = None;
        loop {
            self.known().await;
            let policy = tokio::time::timeout(WATCH_MARGIN, guard.store.evicting()).await;
            let Ok(Ok(policy)) = policy else {
                tokio::time::sleep(EVICTIONS_AGAIN).await;
                continue;
            };
            if policy != known {
                if let Some(policy) = &policy {
                    tracing::warn!(%policy, "{}", EVICTS);
                }
                known = policy;
            }
            self.standing.evicts(known.is_some());
            tokio::time::sleep(EVICTIONS).await;
        }
    }

    /// Applies what is in the log by now. False: the store does not answer.
    pub(super) async fn catch_up(&self, guard: &StoreGuard) -> bool {
        let after = self.applied();
        match guard
            .call(StoreCall::Log, |store| store.read_log(after))
            .await
        {
            Ok(log) => {
                self.apply(log);
                true
            }
            Err(_) => false,
        }
    }

    /// Applies a range of the log that begins where an earlier read had ended.
    fn apply(&self, log: PurgeLogRange) {
        let mut last_warning = self.applying.lock();
        let known = self.window.read().clone();
        if let Some(fault) = log.fault {
            self.not_believed(fault, &log, &mut last_warning);
        }
        let (window, after) = match PurgeLogWindow::next(known.as_ref(), &log, self.log.order()) {
            LogWindowAdvance::Nothing => return,
            LogWindowAdvance::Further(window) => (
                window,
                known.as_ref().map_or(LogNumber::ZERO, |known| known.newest),
            ),
            LogWindowAdvance::Anew(window, fault) => {
                if known.is_some() {
                    self.note_gap();
                    // The next sweep frees what is hidden.
                    self.log.record(&Selector::All, PurgeKind::Hard);
                }
                if let Some(fault) = fault.filter(|_| log.fault.is_none()) {
                    self.not_believed(fault, &log, &mut last_warning);
                }
                self.log.raise_floor(window.begins_at());
                let after = window.first();
                (window, after)
            }
        };
        match window.is_used_up() {
            // Local steps are left, but no numbers: whatever is new may be about anything.
            true => {
                self.log.record(&Selector::All, PurgeKind::Hard);
            }
            false => self.take_in(&window, after, &log),
        }
        self.number
            .set(i64::try_from(window.newest.value()).unwrap_or(i64::MAX));
        *self.window.write() = Some(window);
        if known.is_none() {
            self.news.notify_waiters();
        }
    }

    /// Applies the purges after the number `after`.
    fn take_in(&self, window: &PurgeLogWindow, after: LogNumber, log: &PurgeLogRange) {
        let news = log.purges.iter().filter(|logged| logged.number > after);
        news.for_each(|logged| self.note(logged, window));
        self.log.advance(window.order_at(window.newest).number());
    }

    fn note(&self, logged: &PurgeLogEntry, window: &PurgeLogWindow) {
        let purge = &logged.purge;
        if *purge == nothing() {
            // Only its number matters, and the caller advances to that.
            return;
        }
        let kind = if purge.soft {
            PurgeKind::Soft
        } else {
            PurgeKind::Hard
        };
        let number = window.order_at(logged.number).number();
        match purge.selector.parse() {
            Ok(PurgeStatement::Purged(author, selector)) => {
                self.log.record_numbered(author, &selector, kind, number);
            }
            Ok(PurgeStatement::Doubt) => self.log.doubt_before(number),
            // Only a newer version knows it. It is unknown what it reaches, so it counts as a purge
            // of everything.
            Ok(PurgeStatement::Invalidated(_)) | Err(_) => self.log.record_numbered(
                PurgeInitiator::Operator,
                &Selector::All,
                PurgeKind::Hard,
                number,
            ),
        }
    }

    fn not_believed(&self, fault: LogFault, log: &PurgeLogRange, last: &mut LastWarning) {
        self.faults.with_label_values(&[fault.as_str()]).inc();
        let now = Instant::now();
        let soon = last
            .0
            .is_some_and(|at| now.duration_since(at) < WARN_INTERVAL);
        if !soon {
            last.0 = Some(now);
            tracing::warn!(
                newest = log.newest.value(),
                reason = fault.as_str(),
                "the second tier's purge log is not trusted: {}. Entries that a missing purge may \
                 concern are hidden until they are loaded again",
                fault.in_words()
            );
        }
    }

    fn note_gap(&self) {
        self.gaps.inc();
        self.hooks.emit(CacheEvent::Gap);
    }
}

impl Default for AppendQueue {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            by_requests: HashMap::new(),
            under_way: 0,
            pending: pending(),
        }
    }
}

impl AppendQueue {
    fn depth(&self) -> i64 {
        (self.waiting.len() + self.by_requests.len() + self.under_way) as i64
    }
}

fn taken(
    from: &mut HashMap<LoggedPurge, PurgeNumberWaiters>,
    most: usize,
) -> Vec<(LoggedPurge, PurgeNumberWaiters)> {
    let first: Vec<LoggedPurge> = from.keys().take(most).cloned().collect();
    let taken = first.iter().filter_map(|purge| from.remove_entry(purge));
    taken.collect()
}

fn pending() -> PurgeLog {
    PurgeLog::new(WAITING, Duration::ZERO)
}

fn everything() -> LoggedPurge {
    LoggedPurge {
        selector: Selector::All.to_string(),
        soft: false,
    }
}

fn doubt() -> LoggedPurge {
    LoggedPurge {
        selector: PurgeStatement::Doubt.to_string(),
        soft: false,
    }
}
