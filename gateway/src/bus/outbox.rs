//! Publishing, behind the caller: one queue, one task, tried again until it's out.
//!
//! A purge gets its number when its turn comes, not when it's queued, so that numbers
//! leave here in order and without holes, whatever became one meanwhile. What was numbered
//! and not taken is sent again as it is; receivers know it by its id.
//!
//! Invariant: no purge is dropped while the retry queue is on: it waits, or a wider one
//! waits for it. A timer tries again, and so does the transport's word that it is up.

mod history;
mod metrics;
mod queue;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::config;
use super::event::{Event, MAX_BYTES, Message, Ours, Shape};
use super::seal::SealKeys;
use super::transport::{PublishError, Transport};
use crate::backoff;
use crate::breaker::{Breaker, Passage, Permit};
use history::History;
use metrics::{Kind, Metrics};
use queue::{Dropped, Next, Queue};

pub use queue::{Author, Purge, Value};

/// Who publishes.
#[derive(Clone, Debug)]
pub struct Identity {
    pub source: String,
    /// Tells two lives of one source apart: [`new_boot`].
    pub boot: u64,
    pub namespace: Option<String>,
    /// What its events are sealed with; none where there is no `seal_key`.
    pub seal: Option<SealKeys>,
}

/// Told each purge's number, before anybody hears of it.
pub type OnNumber = Box<dyn Fn(u64, &Purge) + Send + Sync>;

/// Publishes.
pub struct Outbox {
    pub identity: Identity,
    transport: Arc<dyn Transport>,
    queue: Mutex<Queue>,
    wake: Notify,
    up: Notify,
    idle: Notify,
    breaker: Breaker,
    history: Mutex<History>,
    on_number: OnNumber,
    /// Purges that were numbered.
    purges: AtomicU64,
    /// Events that were made.
    made: AtomicU64,
    /// Purges that were numbered and not taken yet.
    under_way: AtomicUsize,
    retries: bool,
    timeout: Duration,
    metrics: Metrics,
}

/// An event that is ready to be sent.
struct Outgoing {
    bytes: Bytes,
    kind: Kind,
}

/// Events that are handed to the transport at once, and their bytes.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 1 << 20;
/// Between two attempts, growing, of which half by the dice.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// An id that no event has had and nobody can foresee: who knew it before could make the event
/// that bears it a duplicate.
pub fn new_id() -> String {
    format!("{:032x}", u128::from_be_bytes(random()))
}

/// The mark of a life that has just begun.
pub fn new_boot() -> u64 {
    u64::from_be_bytes(random())
}

fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

impl Outbox {
    /// # Errors
    /// When the registry has one already.
    pub fn new(
        identity: Identity,
        transport: Arc<dyn Transport>,
        config: &config::Bus,
        on_number: OnNumber,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let breaker = &config.circuit_breaker;
        let retry = &config.retry_queue;
        Ok(Self {
            identity,
            transport,
            queue: Mutex::new(Queue::new(retry.max_size, retry.max_bytes.as_usize())),
            wake: Notify::new(),
            up: Notify::new(),
            idle: Notify::new(),
            breaker: Breaker::new(
                breaker.failure_threshold,
                Duration::from_millis(breaker.cooldown_ms),
            ),
            history: Mutex::default(),
            on_number,
            purges: AtomicU64::new(0),
            made: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            retries: retry.enabled,
            timeout: config.publish_timeout.into(),
            metrics: Metrics::new(registry)?,
        })
    }

    /// Takes a purge in.
    pub fn purge(&self, purge: Purge) {
        self.put(|queue| queue.push_purge(purge));
    }

    /// Takes a value in.
    pub fn value(&self, value: Value) {
        self.put(|queue| queue.push_value(value));
    }

    /// Takes a word in.
    pub fn say(&self, word: Message) {
        self.put(|queue| {
            queue.push_word(word);
            Dropped::default()
        });
    }

    fn put(&self, push: impl FnOnce(&mut Queue) -> Dropped) {
        let mut queue = self.queue.lock();
        let dropped = push(&mut queue);
        self.metrics.waiting(queue.purges(), queue.bytes());
        drop(queue);
        self.metrics.dropped(dropped);
        if dropped.widened > 0 {
            tracing::warn!(
                purges = dropped.widened,
                "too many purges wait for the event bus; one of everything takes their place"
            );
        }
        if dropped.doubted > 0 {
            tracing::warn!(
                purges = dropped.doubted,
                "too many purges that requests caused wait for the event bus; the other nodes \
                 validate what they have instead"
            );
        }
        self.wake.notify_one();
    }

    /// Says purges again, from this number on: somebody did not hear them. Those that were
    /// said too long ago are not; who misses them knows that there were some.
    pub fn say_again(&self, from: u64) {
        self.history.lock().ask(from);
        self.wake.notify_one();
    }

    /// The transport is up again: what waits goes out now.
    pub fn reconnected(&self) {
        self.breaker.close();
        self.metrics.breaker(self.breaker.passage());
        self.up.notify_one();
    }

    /// Waits until every purge is out.
    pub async fn settled(&self) {
        loop {
            // From here on no word is missed.
            let idle = self.idle.notified();
            if self.unsent() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Purges that are not out yet.
    pub fn unsent(&self) -> usize {
        let queue = self.queue.lock();
        queue.purges() + self.under_way.load(Ordering::Acquire)
    }

    /// Whether publishes are tried now: not while the circuit is open after failures.
    pub fn publishes(&self) -> bool {
        self.breaker.passage() == Passage::Closed
    }

    /// Publishes, for ever.
    pub async fn run(&self) {
        let mut batch = VecDeque::new();
        let mut failures: u32 = 0;
        loop {
            self.fill(&mut batch);
            if batch.is_empty() {
                self.idle.notify_waiters();
                self.wake.notified().await;
                continue;
            }
            match self.send(&mut batch).await {
                Ok(()) => failures = 0,
                Err(_) => {
                    failures = failures.saturating_add(1);
                    self.keep_what_counts(&mut batch);
                    self.pause(failures).await;
                }
            }
            self.note_under_way(&batch);
        }
    }

    async fn pause(&self, failures: u32) {
        let pause = backoff::pause(failures, PAUSE_MIN, PAUSE_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.up.notified() => {}
        }
    }

    fn fill(&self, batch: &mut VecDeque<Outgoing>) {
        let mut bytes: usize = batch.iter().map(|outgoing| outgoing.bytes.len()).sum();
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(again) = self.history.lock().next(Instant::now().into_std()) else {
                break;
            };
            bytes += again.len();
            batch.push_back(Outgoing {
                bytes: again,
                kind: Kind::Again,
            });
        }
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let next = {
                let mut queue = self.queue.lock();
                let next = queue.pop();
                if matches!(next, Some(Next::Purge(_))) {
                    self.under_way.fetch_add(1, Ordering::AcqRel);
                }
                self.metrics.waiting(queue.purges(), queue.bytes());
                next
            };
            let Some(next) = next else { break };
            if let Some(outgoing) = self.outgoing(next) {
                bytes += outgoing.bytes.len();
                batch.push_back(outgoing);
            }
        }
    }

    /// The event, with its number if it is a purge. None: it is not to be told.
    fn outgoing(&self, next: Next) -> Option<Outgoing> {
        let (kind, id, shape, message) = match next {
            Next::Purge(purge) => {
                let number = self.purges.fetch_add(1, Ordering::AcqRel) + 1;
                (self.on_number)(number, &purge);
                let message = Message::Purge {
                    selector: purge.selector,
                    soft: purge.soft,
                    receipt: purge.receipt.is_some(),
                };
                (Kind::Purge, purge.receipt, purge.shape, message)
            }
            Next::Say(message) => (Kind::Word, None, Shape::inert(), message),
            Next::Value(value) => (Kind::Value, None, Shape::inert(), (value.make)()?),
        };
        let event = self.event(id, shape, message);
        let bytes = match &self.identity.seal {
            Some(keys) => event.encode_sealed(keys),
            None => event.encode(),
        };
        if kind == Kind::Value && bytes.len() > MAX_BYTES {
            self.metrics.oversize();
            return None;
        }
        if kind == Kind::Purge {
            let number = self.purges.load(Ordering::Acquire);
            self.history.lock().note(number, bytes.clone());
        }
        Some(Outgoing { bytes, kind })
    }

    fn event(&self, id: Option<String>, shape: Shape, message: Message) -> Event {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Event {
            id: id.unwrap_or_else(new_id),
            source: self.identity.source.clone(),
            namespace: self.identity.namespace.clone(),
            ts: since.map_or(0, |since| since.as_millis() as u64),
            shape,
            ours: Some(Ours {
                boot: self.identity.boot,
                purges: self.purges.load(Ordering::Acquire),
                sequence: self.made.fetch_add(1, Ordering::AcqRel) + 1,
                message,
            }),
        }
    }

    /// Hands the batch to the transport and takes out what the broker has.
    async fn send(&self, batch: &mut VecDeque<Outgoing>) -> Result<(), PublishError> {
        while let Some(first) = batch.front() {
            let kept = first.kind.is_kept();
            let Some(permit) = self.breaker.admit(Instant::now().into_std()) else {
                self.metrics.skipped(batch.len());
                return Err(PublishError::Down("it failed a moment ago".to_owned()));
            };
            let (taken, error) = self.hand_over(batch, kept).await;
            for outgoing in batch.drain(..taken.min(batch.len())) {
                self.metrics.published(outgoing.kind);
            }
            self.judge(&permit, error)?;
        }
        Ok(())
    }

    /// Those at the front that are to be kept for who is away, or those that aren't.
    async fn hand_over(
        &self,
        batch: &VecDeque<Outgoing>,
        kept: bool,
    ) -> (usize, Option<PublishError>) {
        let alike = batch.iter().take_while(|o| o.kind.is_kept() == kept);
        let messages: Vec<Bytes> = alike.map(|outgoing| outgoing.bytes.clone()).collect();
        let publish = match kept {
            true => self.transport.publish(&messages),
            false => self.transport.whisper(&messages),
        };
        match tokio::time::timeout(self.timeout, publish).await {
            Ok(answer) => answer,
            // Which of them went out is not known; all go again.
            Err(_) => (0, Some(PublishError::Timeout)),
        }
    }

    fn judge(&self, permit: &Permit, error: Option<PublishError>) -> Result<(), PublishError> {
        let outcome = match error {
            None => {
                self.breaker.succeeded(permit);
                Ok(())
            }
            Some(error) => {
                self.metrics.failed();
                if self.breaker.failed(permit, Instant::now().into_std()) {
                    let transport = self.transport.kind();
                    tracing::warn!(transport, %error, "publishing is given a rest; purges wait");
                }
                Err(error)
            }
        };
        self.metrics.breaker(self.breaker.passage());
        outcome
    }

    /// After a failure: purges wait; the rest was of the moment. Where purges don't wait
    /// their numbers are lost, which receivers notice.
    fn keep_what_counts(&self, batch: &mut VecDeque<Outgoing>) {
        batch.retain(|outgoing| self.retries && outgoing.kind == Kind::Purge);
    }

    fn note_under_way(&self, batch: &VecDeque<Outgoing>) {
        let purges = batch.iter().filter(|o| o.kind == Kind::Purge).count();
        self.under_way.store(purges, Ordering::Release);
    }
}
