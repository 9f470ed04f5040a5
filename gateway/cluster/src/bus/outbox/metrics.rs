//! The metrics of publishing.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::queue::QueueOverflow;
use super::standing::PublishDurability;
use crate::breaker::CircuitState;

/// What an event is, for the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishedKind {
    Purge,
    Value,
    Word,
    /// A purge that is published again because a node did not receive it.
    Again,
}

impl PublishedKind {
    /// Whether a node that is away must get it later.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Purge | Self::Again)
    }

    /// How durable its publication must be.
    pub fn errand(self) -> PublishDurability {
        match self.is_kept() {
            true => PublishDurability::Kept,
            false => PublishDurability::OfTheMoment,
        }
    }

    /// Whether both may be handed to the transport together. Values go alone: whether they succeed
    /// says nothing about other events.
    pub fn goes_with(self, other: Self) -> bool {
        self.is_kept() == other.is_kept() && (self == Self::Value) == (other == Self::Value)
    }
}

/// The counters, resolved once.
pub struct OutboxMetrics {
    published: [IntCounter; 4],
    failures: IntCounter,
    skipped: IntCounter,
    oversize: IntCounter,
    values_dropped: IntCounter,
    widened: IntCounter,
    too_large: IntCounter,
    purges: IntGauge,
    bytes: IntGauge,
    open: IntGauge,
}

impl OutboxMetrics {
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let published = IntCounterVec::new(
            Opts::new(
                "lamina_bus_published_total",
                "Events that the broker accepted, by kind.",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(published.clone()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            published: ["purge", "value", "word", "again"]
                .map(|kind| published.with_label_values(&[kind])),
            failures: counter(
                "lamina_bus_publish_errors_total",
                "Attempts to publish that failed.",
            )?,
            skipped: counter(
                "lamina_bus_publish_skipped_total",
                "Values that were not published because the circuit breaker was open.",
            )?,
            oversize: counter(
                "lamina_bus_values_oversize_total",
                "Values that are too large for an event, or larger than the broker accepts.",
            )?,
            values_dropped: counter(
                "lamina_bus_values_dropped_total",
                "Values that were dropped while they waited to be published.",
            )?,
            widened: counter(
                "lamina_bus_purges_widened_total",
                "Purges that were replaced by one purge of everything, because too many waited.",
            )?,
            too_large: counter(
                "lamina_bus_purges_too_large_total",
                "Purges that were replaced by a wider one, because the broker does not accept \
                 messages of that size.",
            )?,
            purges: gauge(
                "lamina_bus_purges_waiting",
                "Purges that the broker has not accepted yet.",
            )?,
            bytes: gauge(
                "lamina_bus_queue_bytes",
                "Bytes of the events that wait to be published.",
            )?,
            open: gauge(
                "lamina_bus_breaker_open",
                "1 while the circuit breaker of the publisher is open, so that no values are \
                 published.",
            )?,
        })
    }

    pub fn published(&self, kind: PublishedKind) {
        self.published[kind as usize].inc();
    }

    pub fn failed(&self) {
        self.failures.inc();
    }

    pub fn skipped(&self, events: usize) {
        self.skipped.inc_by(events as u64);
    }

    pub fn oversize(&self) {
        self.oversize.inc();
    }

    pub fn too_large(&self) {
        self.too_large.inc();
    }

    pub fn dropped(&self, dropped: QueueOverflow) {
        self.values_dropped.inc_by(dropped.values as u64);
        self.widened.inc_by(dropped.widened as u64);
    }

    pub fn waiting(&self, purges: usize, bytes: usize) {
        self.purges.set(purges as i64);
        self.bytes.set(bytes as i64);
    }

    pub fn breaker(&self, passage: CircuitState) {
        self.open.set(i64::from(passage != CircuitState::Closed));
    }
}
