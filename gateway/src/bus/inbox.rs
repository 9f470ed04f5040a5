//! From what a transport delivers to what is to be applied, in this order: decode,
//! namespace, our own echo, duplicate, apply, note as seen.
//!
//! Invariant: an event is noted as seen only after it was applied. Invariant: a malformed
//! message is counted and dropped, and says nothing about any other.

mod metrics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use prometheus::Registry;

use super::config;
use super::dedupe::Dedupe;
use super::event::{Event, Malformed, Message};
use super::outbox::Identity;
use super::transport::{Delivery, Receipt, Word, Words};
use crate::telemetry::limit::LineLimiter;
use metrics::{Heard, Metrics};

/// Applies what is heard, at once and here: nothing may wait for a network.
pub trait Listener: Send + Sync {
    /// # Errors
    /// When it could not be applied; a durable transport delivers it again.
    fn hear(&self, event: Event) -> Result<(), NotApplied>;
    /// This node hears the others from now on; see [`Word::Up`].
    fn up(&self, behind: Option<u64>);
    /// It does not any more.
    fn down(&self);
    /// Messages were lost.
    fn lost(&self, what: &'static str);
    /// What was kept for this node while it was away has been applied.
    fn caught_up(&self);
}

/// An event was not applied.
#[derive(Debug, thiserror::Error)]
#[error("not applied: {0}")]
pub struct NotApplied(pub String);

/// Hears.
pub struct Inbox {
    identity: Identity,
    listener: Arc<dyn Listener>,
    seen: Mutex<Dedupe>,
    concurrency: usize,
    /// Off: messages are put aside unread.
    listens: bool,
    metrics: Metrics,
    warnings: LineLimiter,
}

/// A word whose message has been decoded.
enum Told {
    Event(Box<Result<Event, Malformed>>, Option<Box<dyn Receipt>>),
    Word(Word),
}

/// Messages from this size on are decoded off the runtime's threads.
const LARGE: usize = 64 << 10;

impl Inbox {
    /// # Errors
    /// When the registry has one already.
    pub fn new(
        identity: Identity,
        listener: Arc<dyn Listener>,
        config: &config::Bus,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let life = Duration::from_millis(config.event_dedupe_ttl_ms);
        Ok(Self {
            identity,
            listener,
            seen: Mutex::new(Dedupe::new(config.event_dedupe_max_entries, life)),
            concurrency: config.handler_concurrency.max(1),
            listens: config.subscribe_to_events,
            metrics: Metrics::new(registry)?,
            warnings: LineLimiter::new(Instant::now()),
        })
    }

    /// Hears, until the transport is dropped.
    pub async fn run(&self, words: Words) {
        let words = stream::unfold(words, async |mut words| {
            let word = words.recv().await?;
            Some((word, words))
        });
        let told = words.map(decoded).buffered(self.concurrency);
        let mut told = std::pin::pin!(told);
        let mut behind = None;
        while let Some(told) = told.next().await {
            match told {
                Told::Event(event, receipt) => {
                    // What a broker kept wants a receipt.
                    let kept = receipt.is_some();
                    self.take(*event, receipt);
                    behind = if kept {
                        self.counted_down(behind)
                    } else {
                        behind
                    };
                }
                Told::Word(word) => behind = self.pass_on(word, behind),
            }
        }
    }

    fn counted_down(&self, behind: Option<u64>) -> Option<u64> {
        match behind?.saturating_sub(1) {
            0 => {
                self.listener.caught_up();
                None
            }
            left => Some(left),
        }
    }

    /// Answers how many messages are behind from here on.
    fn pass_on(&self, word: Word, before: Option<u64>) -> Option<u64> {
        match word {
            Word::Up { behind } => {
                self.metrics.consuming(true);
                self.listener.up(behind);
                // One to come, so that none is caught up at once.
                let behind = behind.map(|messages| messages + 1);
                self.counted_down(behind)
            }
            Word::Down(why) => {
                tracing::warn!(%why, "the event bus is not heard");
                self.metrics.consuming(false);
                self.listener.down();
                None
            }
            Word::Lost(what) => {
                self.metrics.lost();
                self.listener.lost(what);
                before
            }
            Word::Message(_) => before,
        }
    }

    fn take(&self, event: Result<Event, Malformed>, receipt: Option<Box<dyn Receipt>>) {
        let heard = match event {
            _ if !self.listens => Heard::NotListening,
            Ok(event) => self.judge(event),
            Err(malformed) => {
                self.metrics.malformed(malformed);
                self.warn(|dropped| {
                    tracing::warn!(reason = %malformed, dropped, "a message is no event");
                });
                Heard::Malformed
            }
        };
        self.metrics.heard(heard);
        match (receipt, heard) {
            (Some(receipt), Heard::Failed) => receipt.again(),
            (Some(receipt), _) => receipt.done(),
            (None, _) => {}
        }
    }

    fn judge(&self, event: Event) -> Heard {
        let wanted = self.identity.namespace.as_ref();
        if wanted.is_some_and(|wanted| event.namespace.as_ref() != Some(wanted)) {
            return Heard::OtherNamespace;
        }
        if self.is_own(&event) {
            return Heard::Own;
        }
        // Held throughout: a second delivery must not be judged while the first is.
        let mut seen = self.seen.lock();
        let id = seen.mark(&event.id);
        if seen.knows(id, Instant::now()) {
            return Heard::Duplicate;
        }
        match self.listener.hear(event) {
            Ok(()) => {
                seen.note(id, Instant::now());
                Heard::Applied
            }
            Err(error) => {
                self.warn(|dropped| tracing::warn!(%error, dropped, "an event"));
                Heard::Failed
            }
        }
    }

    /// An echo of what we said. Who else says it under our name is heard, with a warning: the
    /// other nodes can't tell the two apart. It may be our own life before.
    fn is_own(&self, event: &Event) -> bool {
        let Some(ours) = event
            .ours
            .as_ref()
            .filter(|_| event.source == self.identity.source)
        else {
            return false;
        };
        if ours.boot == self.identity.boot {
            return true;
        }
        if matches!(ours.message, Message::Heartbeat { .. }) {
            self.warn(|dropped| {
                let source = &event.source;
                tracing::error!(%source, dropped, "another process uses this node's name (`bus.source`)");
            });
        }
        false
    }

    fn warn(&self, say: impl FnOnce(u64)) {
        if let Some(dropped) = self.warnings.admit(Instant::now()) {
            say(dropped);
        }
    }
}

async fn decoded(word: Word) -> Told {
    let Word::Message(Delivery { bytes, receipt }) = word else {
        return Told::Word(word);
    };
    let event = match bytes.len() < LARGE {
        true => Event::decode(&bytes),
        false => tokio::task::spawn_blocking(move || Event::decode(&bytes))
            .await
            .unwrap_or(Err(Malformed::Form)),
    };
    Told::Event(Box::new(event), receipt)
}
