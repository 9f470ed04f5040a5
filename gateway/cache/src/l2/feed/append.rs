//! Purges of this node on their way into the store's log.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{LogAnswerOutcome, PurgeLogSync};
use crate::l2::guard::{StoreCall, StoreGuard};
use crate::l2::pauses::StoreRetryPauses;
use crate::l2::standing::StoreChannel;
use crate::l2::store::{LogNumber, LoggedPurge, nothing};
use crate::purge::{
    DoubtDuration, PurgeInitiator, PurgeKind, PurgeLog, PurgeOrder, PurgeStatement, Selector,
};

/// The largest number of different purges that wait to be appended, for each author.
const WAITING: usize = 10_000;
/// The number of purges that are appended at the same time.
const BATCH: usize = 32;

/// Those who wait for a purge's number.
type PurgeNumberWaiters = Vec<oneshot::Sender<LogNumber>>;

/// Purges that are not in the store's log yet. Their order among each other has no meaning, because
/// each gets its number when it is appended.
pub(super) struct AppendQueue {
    waiting: HashMap<LoggedPurge, PurgeNumberWaiters>,
    /// Purges that requests of clients caused.
    by_requests: HashMap<LoggedPurge, PurgeNumberWaiters>,
    under_way: usize,
    /// All purges that waited since the queue was last empty. This log has an order of its own.
    pub(super) pending: PurgeLog,
}

impl PurgeLogSync {
    /// Takes in a purge, which is in force here when this returns. The receiver gets its number
    /// later. Nobody can append the purge before it is recorded here: otherwise it would be
    /// recorded after its own number and would reach what others have loaded since.
    pub(in crate::l2) fn push(
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

    /// Lets everything that is stored anywhere be validated before it is shown, because more was
    /// invalidated than can be noted.
    pub(in crate::l2) fn doubt_everything(&self) {
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
    pub(in crate::l2) fn ask_before_steps_end(&self) {
        let number = self.log.order().number();
        if self.log.wants_number() && self.asked_at.swap(number, Ordering::Relaxed) != number {
            drop(self.ask_for_number());
        }
    }

    /// Asks for a number of the log, by appending a purge that reaches nothing and leaves no
    /// record.
    pub(in crate::l2) fn ask_for_number(&self) -> oneshot::Receiver<LogNumber> {
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
    pub(in crate::l2) async fn append(&self, guard: &StoreGuard) {
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
        let (question, last) = (self.question(), self.applied());
        let appended = guard
            .call(StoreCall::Log, |store| store.append(&purge, last))
            .await;
        match appended {
            Ok(log) => {
                self.standing.works(StoreChannel::Appends);
                let (newest, place) = (log.newest, log.end());
                if self.apply(log, question) == LogAnswerOutcome::Outdated {
                    self.requeue(purge, tellers);
                    return false;
                }
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
                self.requeue(purge, tellers);
                false
            }
        }
    }

    /// Lets a purge that was under way wait again.
    fn requeue(&self, purge: LoggedPurge, tellers: PurgeNumberWaiters) {
        let author = match purge.selector.parse() {
            Ok(PurgeStatement::Purged(author, _)) => author,
            Ok(PurgeStatement::Doubt) => PurgeInitiator::Request,
            Ok(PurgeStatement::Invalidated(_)) | Err(_) => PurgeInitiator::Operator,
        };
        self.came_back(|queue| match author {
            PurgeInitiator::Operator => self.wait_for(queue, purge, tellers),
            PurgeInitiator::Request => self.wait_for_request(queue, purge, tellers),
        });
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
    pub(super) fn depth(&self) -> i64 {
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
