//! From what a transport delivers to what is applied, in this order: decode, check namespace and
//! seal, drop our own echo, duplicates and replays, apply, record as seen.
//!
//! With a `seal_key`, an event of a node is accepted only if its seal is valid, and only once
//! ([`replay`](super::replay)). Without one, any program can publish anything under any name: such
//! an event is remembered by its id alone, and the handler that applies it learns that it is not
//! authenticated ([`EventTrust`]).
//!
//! Invariant: an event is recorded as seen only after it was applied. Invariant: a malformed
//! message is counted and dropped, and has no effect on other messages.

mod metrics;
mod namesake;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use prometheus::Registry;

use super::config::{self, EventAdmission};
use super::dedupe::DuplicateFilter;
use super::event::{BusEvent, EventFormatError, Message, OpenedEvent, UnreadableEvent};
use super::outbox::PublisherIdentity;
use super::refusals::{EventRefusal, RareLine, RefusalReporter};
use super::replay::{ArrivalTime, ReplayGuard, ReplayRules};
use super::seal::SealCheck;
use super::transport::{
    DeliveryAck, Guarantee, IncomingMessage, TransportEvent, TransportEventReceiver,
};
use crate::telemetry::limit::LineLimiter;
use metrics::{InboxMetrics, InboxOutcome};

pub use super::replay::EarlierPurges;
pub use namesake::ExpectedNamesake;

/// Applies received events at once and on this node. It must never wait for the network.
pub trait EventHandler: Send + Sync {
    /// # Errors
    /// When the event could not be applied; a durable transport delivers it again.
    fn hear(&self, event: BusEvent, trust: EventTrust) -> Result<(), NotApplied>;
    /// This node now receives the events of others; see [`TransportEvent::Up`].
    fn up(&self, behind: Option<u64>);
    /// This node does not receive them any more, and why.
    fn down(&self, why: &str);
    /// Messages were lost.
    fn lost(&self, what: &'static str);
    /// The broker lacks messages that it had taken.
    fn forgot(&self);
    /// What the broker kept for this node while it was away has been applied.
    fn caught_up(&self);
}

/// Whether an event is authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventTrust {
    /// By its seal: a node with our key published it, and it was not received before.
    Sealed,
    /// Not authenticated: any program that can publish on the bus may have made it.
    Unsealed,
}

/// How this node receives events.
pub struct InboxSettings {
    pub guarantee: Guarantee,
    /// Whether another process with this node's name may be there.
    pub namesake: Arc<ExpectedNamesake>,
    /// See [`EarlierPurges`].
    pub earlier_purges: EarlierPurges,
}

/// An event was not applied.
#[derive(Debug, thiserror::Error)]
#[error("not applied: {0}")]
pub struct NotApplied(pub String);

/// The receiving side of the bus.
pub struct Inbox {
    identity: PublisherIdentity,
    listener: Arc<dyn EventHandler>,
    seen: Mutex<EventsHeard>,
    /// When this node began, in milliseconds since 1970.
    began: u64,
    unsealed: EventAdmission,
    foreign: EventAdmission,
    concurrency: usize,
    /// Off: messages are acknowledged and have no effect.
    listens: bool,
    metrics: InboxMetrics,
    warnings: LineLimiter,
    refusals: RefusalReporter,
    namesakes: RareLine,
    expected: Arc<ExpectedNamesake>,
}

/// What was received before.
struct EventsHeard {
    /// Ids of events that are not sealed.
    ids: DuplicateFilter,
    /// Numbers of events that are sealed.
    numbers: ReplayGuard,
}

/// An event of the transport whose message, if it has one, has been decoded.
enum DecodedWord {
    Event(
        Box<Result<OpenedEvent, UnreadableEvent>>,
        Option<Box<dyn DeliveryAck>>,
    ),
    Word(TransportEvent),
}

/// Messages of at least this size in bytes are decoded outside the runtime's threads.
const LARGE: usize = 64 << 10;

impl Inbox {
    /// # Errors
    /// When the registry has one already.
    pub fn new(
        identity: PublisherIdentity,
        listener: Arc<dyn EventHandler>,
        config: &config::BusConfig,
        hearing: InboxSettings,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let life = Duration::from_millis(config.event_dedupe_ttl_ms);
        let rules = ReplayRules {
            guarantee: hearing.guarantee,
            tolerance: config.clock_tolerance.0,
            sources: config.max_nodes,
            earlier_purges: hearing.earlier_purges,
        };
        let began = clock();
        let seen = EventsHeard {
            ids: DuplicateFilter::new(config.event_dedupe_max_entries, life),
            numbers: ReplayGuard::new(rules, began),
        };
        let is_sealed = identity.seal.is_some();
        let unless_sealed = match is_sealed {
            true => EventAdmission::Refuse,
            false => EventAdmission::Accept,
        };
        Ok(Self {
            identity,
            listener,
            seen: Mutex::new(seen),
            began,
            unsealed: match is_sealed {
                true => config.unsealed_events,
                false => EventAdmission::Accept,
            },
            foreign: config.foreign_events.unwrap_or(unless_sealed),
            concurrency: config.handler_concurrency.max(1),
            listens: config.subscribe_to_events,
            metrics: InboxMetrics::new(registry)?,
            warnings: LineLimiter::new(Instant::now()),
            refusals: RefusalReporter::new(registry)?,
            namesakes: RareLine::default(),
            expected: hearing.namesake,
        })
    }

    /// Receives until the transport is dropped.
    pub async fn run(&self, words: TransportEventReceiver) {
        let words = stream::unfold(words, async |mut words| {
            let word = words.recv().await?;
            Some((word, words))
        });
        let told = words
            .map(|word| decoded(word, &self.identity))
            .buffered(self.concurrency);
        let mut told = std::pin::pin!(told);
        let mut behind = None;
        while let Some(told) = told.next().await {
            match told {
                DecodedWord::Event(event, receipt) => {
                    // Only what a broker kept has a receipt.
                    let kept = receipt.is_some();
                    self.take(*event, receipt);
                    behind = if kept {
                        self.counted_down(behind)
                    } else {
                        behind
                    };
                }
                DecodedWord::Word(word) => behind = self.pass_on(word, behind),
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

    /// Returns how many messages that the broker kept are still to come.
    fn pass_on(&self, word: TransportEvent, before: Option<u64>) -> Option<u64> {
        match word {
            TransportEvent::Up { behind } => {
                self.metrics.consuming(true);
                self.listener.up(behind);
                // Adds one, because `counted_down` subtracts one. With no message behind, this
                // node is caught up at once.
                let behind = behind.map(|messages| messages + 1);
                self.counted_down(behind)
            }
            TransportEvent::Down(why) => {
                // The transport has logged it, and logs when it is over.
                tracing::debug!(%why, "no events are received from the event bus");
                self.metrics.consuming(false);
                self.listener.down(&why);
                None
            }
            TransportEvent::Lost(what) => {
                self.metrics.lost();
                self.listener.lost(what);
                before
            }
            TransportEvent::Forgot => {
                self.metrics.lost();
                self.listener.forgot();
                before
            }
            TransportEvent::Message(_) => before,
        }
    }

    fn take(
        &self,
        event: Result<OpenedEvent, UnreadableEvent>,
        receipt: Option<Box<dyn DeliveryAck>>,
    ) {
        let heard = match event {
            _ if !self.listens => InboxOutcome::NotListening,
            Ok(event) => self.judge(event),
            Err(unreadable) => {
                self.unreadable(&unreadable);
                InboxOutcome::Malformed
            }
        };
        self.metrics.heard(heard);
        match (receipt, heard) {
            (Some(receipt), InboxOutcome::Failed) => receipt.again(),
            (Some(receipt), _) => receipt.done(),
            (None, _) => {}
        }
    }

    fn unreadable(&self, unreadable: &UnreadableEvent) {
        let UnreadableEvent { reason, key } = unreadable;
        self.metrics.malformed(*reason);
        self.warn(|dropped| match key {
            Some(key) => {
                tracing::warn!(
                    %reason,
                    key,
                    dropped,
                    "a message on the event bus is not a valid event: its keys are not purged \
                     (`key` is the beginning of the first one)"
                );
            }
            None => {
                tracing::warn!(%reason, dropped, "a message on the event bus is not a valid event")
            }
        });
    }

    fn judge(&self, opened: OpenedEvent) -> InboxOutcome {
        let OpenedEvent { event, seal } = opened;
        let wanted = self.identity.namespace.as_ref();
        if wanted.is_some_and(|wanted| event.namespace.as_ref() != Some(wanted)) {
            return InboxOutcome::OtherNamespace;
        }
        let trust = match self.trust(&event, seal) {
            Ok(trust) => trust,
            Err(reason) => return self.refuse(reason, &event.source),
        };
        if self.is_own(&event) {
            return InboxOutcome::Own;
        }
        match trust {
            EventTrust::Sealed if event.ours.is_some() => self.hear_sealed(event),
            // A sealed event of a kind that only newer nodes know: its outer shape is applied.
            EventTrust::Sealed | EventTrust::Unsealed => self.hear_by_id(event, trust),
        }
    }

    /// Whether the event may have an effect, and whether it is authenticated.
    fn trust(&self, event: &BusEvent, seal: SealCheck) -> Result<EventTrust, EventRefusal> {
        let (admission, reason) = match (seal, &event.ours) {
            (SealCheck::Holds, _) => return Ok(EventTrust::Sealed),
            (SealCheck::Broken, _) => (EventAdmission::Refuse, EventRefusal::BadSeal),
            (SealCheck::Absent, Some(_)) => (self.unsealed, EventRefusal::Unsealed),
            (SealCheck::Absent, None) => (self.foreign, EventRefusal::Foreign),
        };
        match admission {
            EventAdmission::Accept => Ok(EventTrust::Unsealed),
            EventAdmission::Refuse => Err(reason),
        }
    }

    fn refuse(&self, reason: EventRefusal, source: &str) -> InboxOutcome {
        self.refusals.note(reason, source, Instant::now());
        InboxOutcome::Refused
    }

    fn hear_sealed(&self, event: BusEvent) -> InboxOutcome {
        let Some(ours) = &event.ours else {
            return InboxOutcome::Malformed;
        };
        let at = ArrivalTime {
            clock: clock(),
            now: Instant::now(),
        };
        // Locked until the event is applied: a second delivery must not be judged before that.
        let mut seen = self.seen.lock();
        let taken = match seen.numbers.admit(&event, ours, at) {
            Ok(taken) => taken,
            Err(refused) => return self.refuse(refused.into(), &event.source),
        };
        if event.ts > self.began {
            self.tell_of_a_namesake(&event);
        }
        match self.listener.hear(event, EventTrust::Sealed) {
            Ok(()) => InboxOutcome::Applied,
            Err(error) => {
                seen.numbers.retract(&taken);
                self.failed(&error)
            }
        }
    }

    fn hear_by_id(&self, event: BusEvent, trust: EventTrust) -> InboxOutcome {
        // Locked until the event is applied, as above.
        let mut seen = self.seen.lock();
        let id = seen.ids.mark(&event.source, (&event.id, event.ts));
        if seen.ids.knows(id, Instant::now()) {
            return InboxOutcome::Duplicate;
        }
        self.tell_of_a_namesake(&event);
        match self.listener.hear(event, trust) {
            Ok(()) => {
                seen.ids.note(id, Instant::now());
                InboxOutcome::Applied
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &NotApplied) -> InboxOutcome {
        self.warn(|dropped| tracing::warn!(%error, dropped, "an event could not be applied"));
        InboxOutcome::Failed
    }

    /// Whether it is an echo of our own event.
    fn is_own(&self, event: &BusEvent) -> bool {
        let own = &self.identity;
        let boot = event.ours.as_ref().map(|ours| ours.boot);
        event.source == own.source && boot == Some(own.boot)
    }

    /// An event of another process with our name is applied, but logged as an error, unless one takes
    /// the place of the other: the other nodes can't tell the two apart. Without a seal it may also
    /// come from our own earlier life.
    fn tell_of_a_namesake(&self, event: &BusEvent) {
        let ours = event.ours.as_ref();
        let beats = ours.is_some_and(|ours| matches!(ours.message, Message::Heartbeat { .. }));
        if !beats || event.source != self.identity.source || self.expected.is_expected() {
            return;
        }
        if let Some(unsaid) = self.namesakes.admit(Instant::now()) {
            let source = &event.source;
            tracing::error!(
                %source,
                unsaid,
                "another process uses this node's name: give each node its own `bus.source`"
            );
        }
    }

    fn warn(&self, say: impl FnOnce(u64)) {
        if let Some(dropped) = self.warnings.admit(Instant::now()) {
            say(dropped);
        }
    }
}

async fn decoded(word: TransportEvent, identity: &PublisherIdentity) -> DecodedWord {
    let TransportEvent::Message(IncomingMessage { bytes, receipt }) = word else {
        return DecodedWord::Word(word);
    };
    let is_quick = bytes.len() < LARGE;
    let event = match is_quick {
        true => BusEvent::open(&bytes, identity.seal.as_ref()),
        false => {
            let keys = identity.seal.clone();
            tokio::task::spawn_blocking(move || BusEvent::open(&bytes, keys.as_ref()))
                .await
                .unwrap_or_else(|_| Err(EventFormatError::Form.into()))
        }
    };
    DecodedWord::Event(Box::new(event), receipt)
}

/// Milliseconds since 1970.
fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
