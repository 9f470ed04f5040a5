//! What requests made invalid by themselves, on its way to the store: hidden here at once,
//! noted there as soon as it can be.
//!
//! A store keeps a note for each number (of a URL, of a group) of which it has a record, or
//! for which a load looked for one a moment ago; whoever reads a record compares it with the
//! notes of its numbers. An invalidation changes a note that is there and makes none, so that
//! requests for what nobody holds leave nothing behind. Two steps: the first notes our own
//! place in the order, which hides what this node could know of. Where there was a note, the
//! log gives out a number, and the second step notes that: it hides whatever any node loaded
//! before, and nothing that is loaded by somebody who knows that number. Numbers are asked for
//! at most a few times a second, however many invalidations come.
//!
//! Invariant: what waits is hidden here. When too much waits, everything that is stored is
//! doubted instead, which loses nothing.

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

/// Numbers that are noted or wait to be.
const WAITING: usize = 65_536;
/// Numbers that are noted side by side.
const BATCH: usize = 32;
/// Between two numbers that the log is asked for.
const PACE: Duration = Duration::from_millis(200);
/// Between two attempts, growing.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Told which invalidations were noted that concerned something in the store.
pub(crate) type OnNoted = Box<dyn Fn(&[PurgeHash]) + Send + Sync>;

/// The invalidations that are not done.
pub(super) struct StoreInvalidations {
    pending: Mutex<InvalidationQueue>,
    wake: Notify,
    settle: Notify,
    waiting: IntGauge,
    doubts: IntCounter,
}

#[derive(Default)]
struct InvalidationQueue {
    /// Every number that is not done, and how often it was asked for.
    asked: HashMap<PurgeHash, u64>,
    /// For the first step.
    queue: VecDeque<PurgeHash>,
    /// For the second step, and how often they had been asked for at the first.
    noted: Vec<(PurgeHash, u64)>,
}

/// Whether there was room.
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
            "URLs and groups that unsafe requests made invalid and that the second tier is to note.",
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

    /// Takes numbers in, which hide from now on what the store has.
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

    /// Whether one that is not done reaches what bears one of these numbers.
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

    /// Done, unless it was asked for once more meanwhile.
    fn done(&self, number: PurgeHash, times: u64) {
        let mut pending = self.pending.lock();
        if pending.asked.get(&number) == Some(&times) {
            pending.asked.remove(&number);
        }
        self.waiting.set(pending.asked.len() as i64);
    }
}

impl L2 {
    /// Notes in the store that what bears these numbers was invalidated, behind the caller. It
    /// is hidden here at once.
    pub fn invalidate(&self, numbers: &[PurgeHash]) {
        if self.invalidations.ask(numbers) == InvalidationEnqueueResult::Full {
            self.feed.doubt_everything();
        }
        self.feed.ask_before_steps_end();
    }

    /// Has somebody told of what was noted and concerned something in the store; once.
    pub(crate) fn on_noted(&self, told: OnNoted) {
        let _ = self.on_noted.set(told);
    }

    /// The first step, for ever.
    pub(super) async fn invalidate_behind(&self) {
        let mut pause = RETRY;
        loop {
            let batch = self.invalidations.batch();
            if batch.is_empty() {
                self.invalidations.wake.notified().await;
                continue;
            }
            // Nothing is read from the store before its log was.
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

    /// The second step, for ever.
    pub(super) async fn settle_behind(self: Arc<Self>) {
        loop {
            let noted = std::mem::take(&mut self.invalidations.pending.lock().noted);
            if noted.is_empty() {
                self.invalidations.settle.notified().await;
                continue;
            }
            // An error is a feed that was dropped with its tier.
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

    /// Whether there was a note to change. None: the store did not tell.
    async fn note(&self, number: PurgeHash, at: LogPlace) -> Option<bool> {
        let noted = self
            .guard
            .call(StoreCall::Delete, |store| store.invalidate(number, at));
        noted.await.ok()
    }
}
