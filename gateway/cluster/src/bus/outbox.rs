//! Publishes in the background: one queue and one task, which retries until the broker has taken
//! the event.
//!
//! A purge gets its number when it leaves the queue, not when it enters it, so that the numbers are
//! published in order and without holes, even where several purges became one in the meantime. What
//! has a number and was not taken is sent again unchanged; receivers recognize it by its id.
//!
//! `sending` is the task itself.
//!
//! Invariant: no purge is dropped while the retry queue is on: it waits, or a wider one waits in
//! its place. A retry starts after a pause, and also when the transport reports that it is up. An
//! attempt ends with the connection that it was made on: a client library may keep a command that
//! came just after the end of its connection until nobody waits for it any more.
//!
//! *Refused* and *down* are different. An event that the broker will never take because it is
//! larger than the broker allows is replaced by a wider event that fits ([`widen`]), so that no
//! purge waits behind one that can't be sent. What the broker does not take now is retried after a
//! pause of its own. Where the broker keeps purges, words take another way and go on beside those
//! that it refuses: that this node is there, and what it has applied. The circuit breaker applies to
//! values only: purges and other events neither open it nor are held back by it.

mod batch;
mod history;
mod identity;
mod metrics;
mod queue;
mod sending;
mod standing;
mod widen;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::config;
use super::event::{BusEvent, EventShape, MAX_BYTES, Message, NodePayload, PublisherNumber};
use super::refusals::RareLine;
use super::transport::{BusTransport, PublishError};
use crate::breaker::Breaker;
use batch::{OutgoingBatch, OutgoingEvent};
use history::PurgeHistory;
use metrics::{OutboxMetrics, PublishedKind};
use queue::{OutboxQueue, QueueOverflow};
use standing::{PublishDurability, PublishMonitor};
use widen::WidenedPurge;

pub use identity::{PublisherIdentity, new_boot, new_id};
pub use queue::{QueuedPurge, QueuedPurgeAuthor, QueuedValue};
pub use standing::PublishStatus;

/// Called with each purge and its number before the purge is sent.
pub type OnNumber = Box<dyn Fn(PublisherNumber, &QueuedPurge) + Send + Sync>;

/// Makes a selector wider: returns one of at most `room` bytes that reaches all that this one does,
/// or the widest one there is.
pub type WidenSelector = fn(selector: &str, room: usize) -> String;

/// What is published first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PublishTurn {
    Purges,
    /// Purges were just published. What other nodes wait for does not wait for the end of many of
    /// them.
    Words,
}

/// The publishing side of the bus.
pub struct Outbox {
    pub identity: PublisherIdentity,
    transport: Arc<dyn BusTransport>,
    queue: Mutex<OutboxQueue>,
    wake: Notify,
    up: Notify,
    down: Notify,
    idle: Notify,
    progress: Notify,
    breaker: Breaker,
    history: Mutex<PurgeHistory>,
    on_number: OnNumber,
    wider: WidenSelector,
    standing: PublishMonitor,
    /// The number of purges that have got a number.
    purges: AtomicU64,
    /// The number of the last purge that the broker took.
    taken: AtomicU64,
    /// The number of events that were made.
    made: AtomicU64,
    /// The number of purges that have a number and are not taken yet.
    under_way: AtomicUsize,
    /// Something was taken out of the queue and is not sent yet.
    is_sending: AtomicBool,
    retries: bool,
    timeout: Duration,
    too_large: RareLine,
    too_many_words: RareLine,
    metrics: OutboxMetrics,
}

impl Outbox {
    /// An empty outbox for this transport, whose metrics it registers.
    ///
    /// # Errors
    /// When the registry has one already.
    pub fn new(
        identity: PublisherIdentity,
        transport: Arc<dyn BusTransport>,
        config: &config::BusConfig,
        on_number: OnNumber,
        wider: WidenSelector,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let breaker = &config.circuit_breaker;
        let retry = &config.retry_queue;
        Ok(Self {
            identity,
            transport,
            queue: Mutex::new(OutboxQueue::new(retry.max_size, retry.max_bytes.as_usize())),
            wake: Notify::new(),
            up: Notify::new(),
            down: Notify::new(),
            idle: Notify::new(),
            progress: Notify::new(),
            breaker: Breaker::new(
                breaker.failure_threshold,
                Duration::from_millis(breaker.cooldown_ms),
            ),
            history: Mutex::default(),
            on_number,
            wider,
            standing: PublishMonitor::default(),
            purges: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            made: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            is_sending: AtomicBool::new(false),
            retries: retry.enabled,
            timeout: config.publish_timeout.into(),
            too_large: RareLine::default(),
            too_many_words: RareLine::default(),
            metrics: OutboxMetrics::new(registry)?,
        })
    }

    /// Queues a purge.
    pub fn purge(&self, purge: QueuedPurge) {
        self.put(|queue| queue.push_purge(purge));
    }

    /// Queues a value.
    pub fn value(&self, value: QueuedValue) {
        self.put(|queue| queue.push_value(value));
    }

    /// Queues an event that is neither a purge nor a value.
    pub fn say(&self, word: Message) {
        self.put(|queue| queue.push_word(word));
    }

    fn put(&self, push: impl FnOnce(&mut OutboxQueue) -> QueueOverflow) {
        let mut queue = self.queue.lock();
        let dropped = push(&mut queue);
        self.note_waiting(&queue);
        drop(queue);
        self.metrics.dropped(dropped);
        if dropped.widened > 0 {
            tracing::warn!(
                purges = dropped.widened,
                "too many purges wait for the event bus; one purge of everything replaces them"
            );
        }
        if dropped.words > 0
            && let Some(unsaid) = self.too_many_words.admit(std::time::Instant::now())
        {
            tracing::warn!(
                transport = self.transport.kind(),
                unsaid,
                "too many answers to purges wait for the event bus; the oldest is dropped, so the \
                 node that purged reports that this one did not answer"
            );
        }
        if dropped.doubted > 0 {
            tracing::warn!(
                purges = dropped.doubted,
                "too many purges by `invalidate` rules wait for the event bus; instead, the other \
                 nodes validate all their entries"
            );
        }
        self.wake.notify_one();
    }

    /// Publishes purges again from this number on, because another node did not receive them.
    /// Purges that are too old for the history are left out; the node that misses them knows that
    /// there were some.
    pub fn say_again(&self, from: PublisherNumber) {
        self.history.lock().ask(from);
        self.wake.notify_one();
    }

    /// The transport is up again: publish what waits now.
    pub fn reconnected(&self) {
        self.breaker.close();
        self.metrics.breaker(self.breaker.passage());
        self.up.notify_one();
    }

    /// The connection of the transport has ended: what is being published on it will not be
    /// confirmed any more, and is to be published on the next one. Whoever asks for the state learns
    /// it before something is published in vain.
    pub fn disconnected(&self, why: &str) {
        let error = PublishError::Down(why.to_owned());
        let errand = PublishDurability::OfTheMoment;
        self.standing.fails(self.transport.kind(), errand, &error);
        self.down.notify_waiters();
    }

    /// Waits until everything is sent.
    pub async fn settled(&self) {
        loop {
            // Registered before the check, so that no notification is missed.
            let idle = self.idle.notified();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// The number of purges that are not sent yet, including those that are being sent.
    pub fn unsent(&self) -> usize {
        self.unsent_of(&self.queue.lock())
    }

    fn unsent_of(&self, queue: &OutboxQueue) -> usize {
        queue.purges() + self.under_way.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        let queue = self.queue.lock();
        self.unsent_of(&queue) == 0
            && queue.words() == 0
            && !self.is_sending.load(Ordering::Acquire)
    }

    fn note_waiting(&self, queue: &OutboxQueue) {
        self.metrics.waiting(self.unsent_of(queue), queue.bytes());
    }

    /// Whether the broker takes what is published, according to the last attempt.
    pub fn publishing(&self) -> PublishStatus {
        self.standing.get()
    }

    /// Waits until the broker has taken a purge. `number` returns the purge's number once it has
    /// one.
    pub async fn until_taken(&self, number: impl Fn() -> Option<PublisherNumber>) {
        loop {
            // Registered before the check, so that no progress is missed.
            let progress = self.progress.notified();
            if self.has_taken(number()) {
                return;
            }
            progress.await;
        }
    }

    /// Whether the broker has taken the purge with this number.
    pub fn has_taken(&self, number: Option<PublisherNumber>) -> bool {
        number.is_some_and(|number| number.value() <= self.taken.load(Ordering::Acquire))
    }

    /// The largest message in bytes that the broker takes, as far as it is known.
    pub fn max_message_bytes(&self) -> usize {
        let told = self.transport.max_message_bytes();
        told.unwrap_or(MAX_BYTES).min(MAX_BYTES)
    }

    /// Fills a batch with what has its turn, or else with the other. A batch has purges alone or
    /// none, so that nothing else in it is lost with them.
    fn fill(&self, batch: &mut OutgoingBatch, turn: PublishTurn) {
        if batch.is_empty() && turn == PublishTurn::Words {
            self.fill_with_words(batch, self.last_number());
        }
        if batch.is_empty() || batch.has_kept() {
            self.fill_with_purges(batch);
        }
        if batch.is_empty() {
            self.fill_with_words(batch, self.last_number());
            self.fill_with_values(batch);
        }
    }

    fn fill_with_purges(&self, batch: &mut OutgoingBatch) {
        while batch.has_room() {
            let Some(again) = self.history.lock().next(Instant::now().into_std()) else {
                break;
            };
            batch.push(OutgoingEvent {
                bytes: self.fitting(again, self.max_message_bytes()),
                kind: PublishedKind::Again,
                number: None,
            });
        }
        while batch.has_room() {
            let purge = {
                let mut queue = self.queue.lock();
                let purge = queue.pop_purge();
                if purge.is_some() {
                    self.under_way.fetch_add(1, Ordering::AcqRel);
                }
                self.note_waiting(&queue);
                purge
            };
            let Some(purge) = purge else { return };
            batch.push(self.outgoing_purge(purge));
        }
    }

    /// Fills a batch with words, which say that so many purges were published before them.
    fn fill_with_words(&self, batch: &mut OutgoingBatch, purges: PublisherNumber) {
        while batch.has_room() {
            let Some(word) = self.queue.lock().pop_word() else {
                return;
            };
            batch.push_some(self.outgoing(PublishedKind::Word, word, purges));
        }
    }

    fn fill_with_values(&self, batch: &mut OutgoingBatch) {
        while batch.has_room() {
            let value = {
                let mut queue = self.queue.lock();
                let value = queue.pop_value();
                self.note_waiting(&queue);
                value
            };
            let Some(value) = value else { return };
            if let Some(message) = (value.make)() {
                batch.push_some(self.outgoing(PublishedKind::Value, message, self.last_number()));
            }
        }
    }

    /// Makes the event of a purge, with its number.
    fn outgoing_purge(&self, purge: QueuedPurge) -> OutgoingEvent {
        let number = PublisherNumber::new(self.purges.fetch_add(1, Ordering::AcqRel) + 1);
        (self.on_number)(number, &purge);
        let message = Message::Purge {
            selector: purge.selector,
            soft: purge.soft,
            receipt: purge.receipt.is_some(),
        };
        let event = self.event(purge.receipt, purge.shape, message, number);
        let bytes = widen::encoded(&event, self.identity.seal.as_ref());
        let bytes = self.fitting(bytes, self.max_message_bytes());
        self.history.lock().note(number, bytes.clone());
        OutgoingEvent {
            bytes,
            kind: PublishedKind::Purge,
            number: Some(number),
        }
    }

    /// Makes the event of anything else. None: it is too large to be published.
    fn outgoing(
        &self,
        kind: PublishedKind,
        message: Message,
        purges: PublisherNumber,
    ) -> Option<OutgoingEvent> {
        let event = self.event(None, EventShape::inert(), message, purges);
        let bytes = widen::encoded(&event, self.identity.seal.as_ref());
        if bytes.len() > self.max_message_bytes() {
            self.metrics.oversize();
            return None;
        }
        Some(OutgoingEvent {
            bytes,
            kind,
            number: None,
        })
    }

    /// Returns the purge's bytes unchanged, or those of a wider purge of at most `limit` bytes.
    fn fitting(&self, bytes: Bytes, limit: usize) -> Bytes {
        if bytes.len() <= limit {
            return bytes;
        }
        let wider = widen::to_fit(&bytes, self.identity.seal.as_ref(), limit, self.wider);
        let Some(wider) = wider else {
            return bytes;
        };
        self.metrics.too_large();
        self.tell_of_a_wider_one(&wider, bytes.len(), limit);
        wider.bytes
    }

    fn tell_of_a_wider_one(&self, wider: &WidenedPurge, bytes: usize, limit: usize) {
        if let Some(unsaid) = self.too_large.admit(std::time::Instant::now()) {
            tracing::warn!(
                transport = self.transport.kind(),
                purge = shown(&wider.from),
                bytes,
                limit,
                told = shown(&wider.to),
                unsaid,
                "a purge is larger than the broker accepts (`limit`, in bytes): it applies on \
                 this node as it is, and a wider purge (`told`) is published to the other nodes; \
                 raise the broker's limit, or purge by shorter texts"
            );
        }
    }

    /// The number of the last purge that has one.
    pub fn last_number(&self) -> PublisherNumber {
        PublisherNumber::new(self.purges.load(Ordering::Acquire))
    }

    fn event(
        &self,
        id: Option<String>,
        shape: EventShape,
        message: Message,
        purges: PublisherNumber,
    ) -> BusEvent {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        BusEvent {
            id: id.unwrap_or_else(new_id),
            source: self.identity.source.clone(),
            namespace: self.identity.namespace.clone(),
            ts: since.map_or(0, |since| since.as_millis() as u64),
            shape,
            ours: Some(NodePayload {
                boot: self.identity.boot,
                purges,
                sequence: self.made.fetch_add(1, Ordering::AcqRel) + 1,
                message,
            }),
        }
    }
}

/// The beginning of a selector, as much as a log line shows.
fn shown(selector: &str) -> String {
    const SHOWN: usize = 120;
    let shown: String = selector.chars().take(SHOWN).collect();
    match shown.len() < selector.len() {
        true => format!("{shown}…"),
        false => shown,
    }
}
