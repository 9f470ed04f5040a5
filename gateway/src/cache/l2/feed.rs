//! The purge log of the store and ours: every purge of ours goes into it, and every
//! purge in it is applied here.
//!
//! A purge holds here at once, by a local step; it is appended behind the caller, tried
//! again until it is in, and applied once more with the number it got there: that
//! reaches a little more and never less. Numbers come in order and without holes
//! ([`Log`]). Where some are missing, all that was born before is hidden.
//!
//! Invariant: a purge that was taken in is appended before anything is forgotten of it;
//! when the queue is full, one purge of everything takes the place of all that wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::sync::{Notify, oneshot};

use super::guard::{Call, Guard};
use super::store::{Log, Purge};
use crate::cache::purge::{Kind, PurgeLog, Selector};

/// Purges that wait to be appended at most.
const WAITING: usize = 10_000;
/// Between two attempts to append, growing.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long one look at the log waits for news.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a look at the log may take beyond its patience.
const WATCH_MARGIN: Duration = Duration::from_secs(2);

/// Both directions.
pub(super) struct Feed {
    log: Arc<PurgeLog>,
    waiting: Mutex<VecDeque<Waiting>>,
    wake: Notify,
    position: Mutex<Position>,
    /// The log's generation; 0 while none was read.
    generation: AtomicU64,
    depth: IntGauge,
    gaps: IntCounter,
}

struct Waiting {
    purge: Purge,
    done: Option<oneshot::Sender<u64>>,
}

/// How far the store's log was applied.
#[derive(Default)]
struct Position {
    generation: u64,
    applied: u64,
}

impl Feed {
    pub(super) fn new(log: Arc<PurgeLog>, registry: &Registry) -> prometheus::Result<Self> {
        let depth = IntGauge::new(
            "lamina_l2_purges_waiting",
            "Purges that hold here and wait to be appended to the second tier's log.",
        )?;
        let gaps = IntCounter::new(
            "lamina_l2_purge_log_gaps_total",
            "Times that purges may have been missed, so that everything older was hidden.",
        )?;
        registry.register(Box::new(depth.clone()))?;
        registry.register(Box::new(gaps.clone()))?;
        Ok(Self {
            log,
            waiting: Mutex::default(),
            wake: Notify::new(),
            position: Mutex::default(),
            generation: AtomicU64::new(0),
            depth,
            gaps,
        })
    }

    /// The generation of the log that was read last; none before the first.
    pub(super) fn generation(&self) -> Option<u64> {
        match self.generation.load(Ordering::Acquire) {
            0 => None,
            generation => Some(generation),
        }
    }

    /// Takes in a purge that holds here already. The receiver gets its number in time.
    pub(super) fn push(&self, selector: &Selector, kind: Kind) -> oneshot::Receiver<u64> {
        let (done, receiver) = oneshot::channel();
        let purge = Purge {
            selector: selector.to_string(),
            soft: kind == Kind::Soft,
        };
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING {
            waiting.clear();
            waiting.push_back(Waiting {
                purge: everything(),
                done: None,
            });
        }
        waiting.push_back(Waiting {
            purge,
            done: Some(done),
        });
        self.depth.set(waiting.len() as i64);
        drop(waiting);
        self.wake.notify_one();
        receiver
    }

    /// Appends what waits, for ever.
    pub(super) async fn append(&self, guard: &Guard) {
        let mut pause = RETRY;
        loop {
            let Some(purge) = self.first() else {
                self.wake.notified().await;
                continue;
            };
            let last = self.position.lock().applied;
            match guard
                .call(Call::Log, |store| store.append(&purge, last))
                .await
            {
                Ok(log) => {
                    pause = RETRY;
                    let newest = log.newest;
                    self.apply(log);
                    self.appended(&purge, newest);
                }
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Applies what others append, for ever. Not by way of the guard: a look at the log
    /// takes as long as nothing happens.
    pub(super) async fn follow(&self, guard: &Guard) {
        let mut pause = RETRY;
        loop {
            let after = self.position.lock().applied;
            let look = match self.generation() {
                None => guard.store.read_log(after),
                Some(_) => guard.store.watch_log(after, PATIENCE),
            };
            match tokio::time::timeout(PATIENCE + WATCH_MARGIN, look).await {
                Ok(Ok(log)) => {
                    pause = RETRY;
                    self.apply(log);
                }
                Ok(Err(_)) | Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Applies a stretch of the log that begins where some look at it had ended.
    fn apply(&self, log: Log) {
        let mut position = self.position.lock();
        let begins = position.generation == 0;
        if log.generation != position.generation {
            if !begins {
                tracing::warn!("the second tier's purge log was lost; older copies are not shown");
                self.gap(position.applied.max(log.newest));
            }
            position.generation = log.generation;
        } else if log.newest <= position.applied {
            return;
        }
        if !log.whole {
            let first = log.purges.first().map_or(log.newest + 1, |p| p.number);
            self.log.raise_floor(first.saturating_sub(1));
            if !begins {
                self.gaps.inc();
            }
        }
        for logged in log
            .purges
            .iter()
            .filter(|p| p.number > position.applied || begins)
        {
            let kind = if logged.purge.soft {
                Kind::Soft
            } else {
                Kind::Hard
            };
            match logged.purge.selector.parse() {
                Ok(selector) => self.log.record_numbered(&selector, kind, logged.number),
                // A selector that a newer version knows: what it reaches is unknown, so all.
                Err(_) => self
                    .log
                    .record_numbered(&Selector::All, Kind::Hard, logged.number),
            }
        }
        self.log.advance(log.newest);
        position.applied = position.applied.max(log.newest);
        self.generation
            .store(position.generation, Ordering::Release);
    }

    /// Hides what was born before now.
    fn gap(&self, newest: u64) {
        self.gaps.inc();
        self.log.record(&Selector::All, Kind::Hard);
        self.log.advance(newest);
    }

    fn first(&self) -> Option<Purge> {
        self.waiting.lock().front().map(|w| w.purge.clone())
    }

    /// Takes the appended purge out, unless the queue was replaced meanwhile.
    fn appended(&self, purge: &Purge, number: u64) {
        let mut waiting = self.waiting.lock();
        if waiting.front().is_some_and(|first| first.purge == *purge) {
            let done = waiting.pop_front().and_then(|first| first.done);
            // Who waited for the number may have left.
            let _ = done.map(|done| done.send(number));
        }
        self.depth.set(waiting.len() as i64);
    }
}

fn everything() -> Purge {
    Purge {
        selector: Selector::All.to_string(),
        soft: false,
    }
}
