//! Invalidations by requests, on their way to the store: they take effect here at once and are
//! noted there as soon as possible.
//!
//! A store keeps a note for each number (of a URL or a group) if it has a record with that number,
//! or if a load looked for one a short time ago. Whoever reads a record compares it with the notes
//! of its numbers. An invalidation changes an existing note and creates none, so that requests for
//! things that nobody has stored leave nothing behind. There are two steps. The first notes our own
//! place in the order, which hides what this node could know of. If there was a note, the log gives
//! out a number, and the second step notes that number: it hides whatever any node loaded before,
//! and nothing that is loaded by a node that knows the number. Numbers are requested at most a few
//! times a second, however many invalidations come.
//!
//! Invariant: what waits is hidden here. When too many wait, everything that is stored is doubted
//! instead: then it is validated, and nothing is lost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::sync::Notify;

use super::L2;
use super::guard::StoreCall;
use super::store::LogPlace;
use crate::key::PurgeHash;

/// The largest number of invalidations that are not done.
const WAITING: usize = 65_536;
/// The number of invalidations that are noted at the same time.
const BATCH: usize = 32;
/// The pause between two requests for a number of the log.
const PACE: Duration = Duration::from_millis(200);
/// The pauses between two attempts, growing.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Called with the invalidations that were noted and concerned something in the store.
pub(crate) type OnNoted = Box<dyn Fn(&[PurgeHash]) + Send + Sync>;

/// The invalidations that are not done yet.
pub(super) struct StoreInvalidations {
    pending: Mutex<InvalidationQueue>,
    wake: Notify,
    settle: Notify,
    waiting: IntGauge,
    doubts: IntCounter,
}

#[derive(Default)]
struct InvalidationQueue {
    /// Every number that is not done, and how often its invalidation was requested.
    asked: HashMap<PurgeHash, u64>,
    /// The numbers that wait for the first step.
    queue: VecDeque<PurgeHash>,
    /// The numbers that wait for the second step, and how often each had been requested at the
    /// first step.
    noted: Vec<(PurgeHash, u64)>,
}

/// Whether there was room in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InvalidationEnqueueResult {
    Waits,
    /// Too many wait.
    Full,
}

impl StoreInvalidations {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let waiting = IntGauge::new(
            "lamina_l2_invalidations_waiting",
            "URLs and groups that unsafe requests made invalid and that are not yet noted in the \
             second tier.",
        )?;
        let doubts = IntCounter::new(
            "lamina_l2_invalidations_doubted_total",
            "Times that too many invalidations waited for the second tier, so that what is stored is validated.",
        )?;
        registry.register(Box::new(waiting.clone()))?;
        registry.register(Box::new(doubts.clone()))?;
        Ok(Self {
            pending: Mutex::default(),
            wake: Notify::new(),
            settle: Notify::new(),
            waiting,
            doubts,
        })
    }

    /// Takes in numbers. From now on what the store has with these numbers is hidden here.
    pub(super) fn ask(&self, numbers: &[PurgeHash]) -> InvalidationEnqueueResult {
        let mut pending = self.pending.lock();
        for number in numbers {
            if pending.asked.len() >= WAITING && !pending.asked.contains_key(number) {
                self.doubts.inc();
                return InvalidationEnqueueResult::Full;
            }
            *pending.asked.entry(*number).or_default() += 1;
            pending.queue.push_back(*number);
        }
        self.waiting.set(pending.asked.len() as i64);
        drop(pending);
        self.wake.notify_one();
        InvalidationEnqueueResult::Waits
    }

    /// Whether an invalidation that is not done reaches something with one of these numbers.
    pub(super) fn hide(&self, numbers: &[PurgeHash]) -> bool {
        if numbers.is_empty() {
            return false;
        }
        let asked = &self.pending.lock().asked;
        numbers.iter().any(|number| asked.contains_key(number))
    }

    fn batch(&self) -> Vec<(PurgeHash, u64)> {
        let mut pending = self.pending.lock();
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH {
            let Some(number) = pending.queue.pop_front() else {
                break;
            };
            let times = pending.asked.get(&number).copied();
            if let Some(times) = times.filter(|_| !batch.iter().any(|(n, _)| *n == number)) {
                batch.push((number, times));
            }
        }
        batch
    }

    /// Ends an invalidation, unless it was requested again in the meantime.
    fn done(&self, number: PurgeHash, times: u64) {
        let mut pending = self.pending.lock();
        if pending.asked.get(&number) == Some(&times) {
            pending.asked.remove(&number);
        }
        self.waiting.set(pending.asked.len() as i64);
    }
}

impl L2 {
    /// Notes in the store, in the background, that what has these numbers was invalidated. It is
    /// hidden here at once.
    pub fn invalidate(&self, numbers: &[PurgeHash]) {
        if self.invalidations.ask(numbers) == InvalidationEnqueueResult::Full {
            self.feed.doubt_everything();
        }
        self.feed.ask_before_steps_end();
    }

    /// Sets the function that is called with noted invalidations that concerned something in the
    /// store. It can be called once.
    pub(crate) fn on_noted(&self, told: OnNoted) {
        let _ = self.on_noted.set(told);
    }

    /// Runs the first step. It never returns.
    pub(super) async fn invalidate_behind(&self) {
        let mut pause = RETRY;
        loop {
            let batch = self.invalidations.batch();
            if batch.is_empty() {
                self.invalidations.wake.notified().await;
                continue;
            }
            // Nothing is read from the store before its log was read.
            let at = self.feed.after_all_known().await;
            let notes = batch.iter().map(|(number, _)| self.note(*number, at));
            let noted = join_all(notes).await;
            let well = noted.iter().all(Option::is_some);
            for ((number, times), noted) in batch.into_iter().zip(noted) {
                self.first_step_ended(number, times, noted);
            }
            if well {
                pause = RETRY;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }

    fn first_step_ended(&self, number: PurgeHash, times: u64, noted: Option<bool>) {
        match noted {
            Some(false) => self.invalidations.done(number, times),
            Some(true) => {
                let mut pending = self.invalidations.pending.lock();
                pending.noted.push((number, times));
                self.invalidations.settle.notify_one();
            }
            None => self.invalidations.pending.lock().queue.push_back(number),
        }
    }

    /// Runs the second step.
    pub(super) async fn settle_behind(self: Arc<Self>) {
        loop {
            let noted = std::mem::take(&mut self.invalidations.pending.lock().noted);
            if noted.is_empty() {
                self.invalidations.settle.notified().await;
                continue;
            }
            // An error means that the feed was dropped with its tier.
            if self.feed.ask_for_number().await.is_err() {
                return;
            }
            let at = self.feed.newest().await;
            for some in noted.chunks(BATCH) {
                self.settle(some, at).await;
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn settle(&self, noted: &[(PurgeHash, u64)], at: LogPlace) {
        let notes = noted.iter().map(|(number, _)| self.note(*number, at));
        let settled = join_all(notes).await;
        let mut told = Vec::with_capacity(noted.len());
        for ((number, times), settled) in noted.iter().zip(settled) {
            match settled {
                Some(_) => {
                    self.invalidations.done(*number, *times);
                    told.push(*number);
                }
                None => self.invalidations.pending.lock().queue.push_back(*number),
            }
        }
        self.invalidations.wake.notify_one();
        if let Some(tell) = self.on_noted.get().filter(|_| !told.is_empty()) {
            tell(&told);
        }
    }

    /// Whether there was a note to change. None: the store did not answer.
    async fn note(&self, number: PurgeHash, at: LogPlace) -> Option<bool> {
        let noted = self
            .guard
            .call(StoreCall::Delete, |store| store.invalidate(number, at));
        noted.await.ok()
    }
}
