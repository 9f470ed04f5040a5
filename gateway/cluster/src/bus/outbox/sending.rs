//! The task that publishes: hands batches to the transport, and decides after a failure what is tried
//! again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{self, BatchShrinking, OutgoingBatch};
use super::metrics::PublishedKind;
use super::{Outbox, PublishTurn};
use crate::backoff;
use crate::breaker::Permit;
use crate::bus::event::PublisherNumber;
use crate::bus::transport::{Guarantee, PublishError};

/// What to do after a failed attempt to publish.
enum PublishRetryDecision {
    /// The broker takes nothing now: purges wait for the next attempt, the rest is dropped.
    Later,
    /// What was refused is removed or made wider: continue with the rest.
    GoOn,
}

/// Pauses between two attempts. They grow, and half of each is random.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Outbox {
    /// Publishes, without end.
    pub async fn run(&self) {
        let mut batch = OutgoingBatch::default();
        // What is said beside purges that the broker does not take.
        let mut words = OutgoingBatch::default();
        let mut failures: u32 = 0;
        let mut turn = PublishTurn::Purges;
        loop {
            if batch.is_empty() {
                std::mem::swap(&mut batch, &mut words);
            }
            self.fill(&mut batch, turn);
            turn = match batch.has_kept() {
                true => PublishTurn::Words,
                false => PublishTurn::Purges,
            };
            self.is_sending.store(!batch.is_empty(), Ordering::Release);
            if batch.is_empty() {
                self.idle.notify_waiters();
                self.until_there_is_work().await;
                continue;
            }
            match self.send(&mut batch).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    turn = PublishTurn::Purges;
                    self.keep_after_failure(&mut batch, &error);
                    self.note_under_way(&batch);
                    if !batch.is_empty() && self.takes_words_after(&error) {
                        self.say_beside(&batch, &mut words).await;
                    }
                    self.pause(failures).await;
                }
            }
            self.note_under_way(&batch);
        }
    }

    /// Whether the broker may take words though it has not taken purges. Where it keeps purges, words
    /// go another way.
    fn takes_words_after(&self, error: &PublishError) -> bool {
        let is_refused = matches!(
            error,
            PublishError::Refused(_) | PublishError::TooLarge { .. }
        );
        is_refused && self.transport.guarantee() == Guarantee::Durable
    }

    /// Says what waits beside purges that the broker does not take: otherwise the others would hear
    /// nothing of this node, and get no answers to their own purges. What is not taken stays in
    /// `words`.
    async fn say_beside(&self, waiting: &OutgoingBatch, words: &mut OutgoingBatch) {
        // What is late has not been published yet.
        let published = waiting.first_number().map(PublisherNumber::before);
        let published = published.unwrap_or_else(|| self.last_number());
        let rounds = self.queue.lock().words() / batch::BATCH + 1;
        for _ in 0..rounds {
            if words.is_empty() {
                self.fill_with_words(words, published);
            }
            if words.is_empty() {
                return;
            }
            let (taken, error) = self.hand_over(words, PublishedKind::Word).await;
            for outgoing in words.take(taken) {
                self.metrics.published(outgoing.kind);
            }
            if error.is_some() {
                return;
            }
        }
    }

    /// Waits until something is queued, or what another node asked for may be published again.
    async fn until_there_is_work(&self) {
        let due = self.history.lock().due();
        let again = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wake.notified() => {}
            () = again => {}
        }
    }

    async fn pause(&self, failures: u32) {
        let pause = backoff::pause(failures, PAUSE_MIN, PAUSE_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.up.notified() => {}
        }
    }

    /// Hands the batch to the transport, and removes from it what the broker has taken.
    async fn send(&self, batch: &mut OutgoingBatch) -> Result<(), PublishError> {
        while let Some(kind) = batch.next_kind() {
            let permit = match kind {
                PublishedKind::Value => self.breaker.admit(Instant::now().into_std()),
                PublishedKind::Purge | PublishedKind::Word | PublishedKind::Again => None,
            };
            if kind == PublishedKind::Value && permit.is_none() {
                self.metrics.skipped(batch.drop_values());
                continue;
            }
            let (taken, error) = self.hand_over(batch, kind).await;
            for outgoing in batch.take(taken) {
                self.metrics.published(outgoing.kind);
                if let Some(number) = outgoing.number {
                    self.taken.store(number.value(), Ordering::Release);
                }
            }
            self.note_under_way(batch);
            self.progress.notify_waiters();
            match error {
                None => self.went_well(kind, permit.as_ref()),
                Some(error) => match self.went_wrong(batch, kind, permit.as_ref(), &error) {
                    PublishRetryDecision::Later => return Err(error),
                    PublishRetryDecision::GoOn => {}
                },
            }
        }
        Ok(())
    }

    /// Publishes the events at the front that go together: purges, which are kept for nodes that
    /// are away; values; or other transient events.
    async fn hand_over(
        &self,
        batch: &OutgoingBatch,
        kind: PublishedKind,
    ) -> (usize, Option<PublishError>) {
        let messages = batch.alike(kind);
        // Registered before the transport looks for its connection, so that no end is missed.
        let down = self.down.notified();
        let publish = match kind {
            PublishedKind::Purge | PublishedKind::Again => self.transport.publish(&messages),
            PublishedKind::Word => self.transport.whisper(&messages),
            PublishedKind::Value => self.transport.whisper_values(&messages),
        };
        // Where there is no answer it is not known which of them were sent, so all are sent again.
        tokio::select! {
            biased;
            answer = tokio::time::timeout(self.timeout, publish) => {
                answer.unwrap_or((0, Some(PublishError::Timeout)))
            }
            () = down => (0, Some(PublishError::Down("the connection ended".to_owned()))),
        }
    }

    fn went_well(&self, kind: PublishedKind, permit: Option<&Permit>) {
        match permit {
            Some(permit) => self.breaker.succeeded(permit),
            // The connection works, whatever the result of earlier values was.
            None => self.breaker.close(),
        }
        self.metrics.breaker(self.breaker.passage());
        let transport = self.transport.kind();
        self.standing.works(transport, kind.errand(), self.unsent());
    }

    fn went_wrong(
        &self,
        batch: &mut OutgoingBatch,
        kind: PublishedKind,
        permit: Option<&Permit>,
        error: &PublishError,
    ) -> PublishRetryDecision {
        if let PublishError::TooLarge { limit, .. } = error
            && self.shrink(batch, *limit) == BatchShrinking::Smaller
        {
            return PublishRetryDecision::GoOn;
        }
        self.metrics.failed();
        if let Some(permit) = permit {
            self.breaker.failed(permit, Instant::now().into_std());
            self.metrics.breaker(self.breaker.passage());
        }
        let is_refused = matches!(
            error,
            PublishError::Refused(_) | PublishError::TooLarge { .. }
        );
        if is_refused && kind == PublishedKind::Value {
            // The refusal says nothing about purges, nor about whether the broker is there.
            batch.take(1).for_each(drop);
            return PublishRetryDecision::GoOn;
        }
        let transport = self.transport.kind();
        self.standing.fails(transport, kind.errand(), error);
        PublishRetryDecision::Later
    }

    /// Replaces purges that are too large by wider ones, and drops transient events that are too
    /// large.
    fn shrink(&self, batch: &mut OutgoingBatch, limit: Option<usize>) -> BatchShrinking {
        batch.shrink(limit, |mut event, limit| {
            if !event.kind.is_kept() {
                self.metrics.oversize();
                return None;
            }
            event.bytes = self.fitting(event.bytes, limit);
            if let Some(number) = event.number {
                self.history.lock().replace(number, &event.bytes);
            }
            Some(event)
        })
    }

    /// After a failure: purges stay in the batch, and transient events are dropped. Where the retry
    /// queue is off, purges are dropped as well; their numbers are lost, and receivers notice that.
    /// What is published again is begun anew, unless it is larger than the broker takes.
    fn keep_after_failure(&self, batch: &mut OutgoingBatch, error: &PublishError) {
        if batch.repeats() && !matches!(error, PublishError::TooLarge { .. }) {
            self.history.lock().round_failed();
        }
        match self.retries {
            true => batch.keep_purges(),
            false => batch.clear(),
        }
    }

    fn note_under_way(&self, batch: &OutgoingBatch) {
        // The queue is locked meanwhile, so that nobody counts in between.
        let queue = self.queue.lock();
        self.under_way.store(batch.purges(), Ordering::Release);
        self.note_waiting(&queue);
    }
}
