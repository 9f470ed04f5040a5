//! Purges in the store's log on their way into our own.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{LogAnswerOutcome, LogQuestion, PurgeLogSync};
use crate::event::CacheEvent;
use crate::l2::guard::{StoreCall, StoreCallError, StoreGuard};
use crate::l2::pauses::StoreRetryPauses;
use crate::l2::standing::{EVICTS, StoreChannel};
use crate::l2::store::{LogFault, LogNumber, PurgeLogEntry, PurgeLogRange, StoreError, nothing};
use crate::l2::window::{LogWindowAdvance, PurgeLogWindow};
use crate::purge::{PurgeInitiator, PurgeKind, PurgeStatement, Selector};

/// How long one read of the log waits for news. A log that began anew wakes nobody who waits for a
/// number of the old one, so a new log is noticed after this time. Each read also touches the log,
/// so that a store which evicts keys finds an older one.
const PATIENCE: Duration = Duration::from_millis(500);
/// The pauses between two checks whether the store evicts, after a success and after a failure.
const EVICTIONS: Duration = Duration::from_secs(60);
const EVICTIONS_AGAIN: Duration = Duration::from_secs(1);
/// How much longer than its patience a read of the log may take.
const WATCH_MARGIN: Duration = Duration::from_secs(2);

/// When a warning was last logged that the purge log is not trusted.
#[derive(Default)]
pub(super) struct LastWarning(Option<Instant>);

/// The time between two warnings about the log. Somebody who writes to the store may cause a
/// thousand faults a second: each is counted, but only some are logged.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

impl PurgeLogSync {
    /// Applies what others append. It never returns. It does not use the guard, because a read of
    /// the log waits as long as nothing happens. The first read, and the first after a failed one,
    /// do not wait: the store may have come back with an older log.
    pub(in crate::l2) async fn follow(&self, guard: &StoreGuard) {
        let mut pauses = StoreRetryPauses::new(guard.store.connects());
        let mut patience = None;
        loop {
            pauses.begin();
            let (question, after) = (self.question(), self.applied());
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
                    if self.apply(log, question) == LogAnswerOutcome::Outdated {
                        patience = None;
                    }
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
    pub(in crate::l2) async fn watch_evictions(&self, guard: &StoreGuard) {
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
    pub(in crate::l2) async fn catch_up(&self, guard: &StoreGuard) -> bool {
        let (question, after) = (self.question(), self.applied());
        match guard
            .call(StoreCall::Log, |store| store.read_log(after))
            .await
        {
            Ok(log) => self.apply(log, question) == LogAnswerOutcome::Applied,
            Err(_) => false,
        }
    }

    /// Applies a range of the log that begins where an earlier read had ended. `question` was noted
    /// before the store was asked for it: two answers may come in another order than the store gave
    /// them, and one of a generation that has ended must not take the place of the next one.
    pub(in crate::l2) fn apply(
        &self,
        log: PurgeLogRange,
        question: LogQuestion,
    ) -> LogAnswerOutcome {
        let mut last_warning = self.applying.lock();
        let known = self.window.read().clone();
        let is_other = |known: &PurgeLogWindow| known.generation != log.generation;
        if known.as_ref().is_some_and(is_other) && self.question() != question {
            return LogAnswerOutcome::Outdated;
        }
        if let Some(fault) = log.fault {
            self.not_believed(fault, &log, &mut last_warning);
        }
        let (window, after) = match PurgeLogWindow::next(known.as_ref(), &log, self.log.order()) {
            LogWindowAdvance::Nothing => return LogAnswerOutcome::Applied,
            LogWindowAdvance::Further(window) => (
                window,
                known.as_ref().map_or(LogNumber::ZERO, |known| known.newest),
            ),
            LogWindowAdvance::Anew(window, fault) => {
                if known.is_some() {
                    self.replaced_windows.fetch_add(1, Ordering::AcqRel);
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
        LogAnswerOutcome::Applied
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
