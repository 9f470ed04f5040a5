//! The metrics of receiving.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::bus::event::EventFormatError;

/// The outcome of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InboxOutcome {
    Applied,
    /// It was our own event.
    Own,
    Duplicate,
    /// It has no effect; [`EventRefusal`](crate::bus::refusals::EventRefusal) says why.
    Refused,
    OtherNamespace,
    Malformed,
    /// It could not be applied.
    Failed,
    /// This node does not subscribe.
    NotListening,
}

const HEARD: [&str; 8] = [
    "applied",
    "own",
    "duplicate",
    "refused",
    "other-namespace",
    "malformed",
    "failed",
    "not-listening",
];

/// The counters, resolved once.
pub struct InboxMetrics {
    heard: [IntCounter; HEARD.len()],
    malformed: IntCounterVec,
    lost: IntCounter,
    consuming: IntGauge,
}

impl InboxMetrics {
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let heard = IntCounterVec::new(
            Opts::new(
                "lamina_bus_received_total",
                "Messages that were received, by outcome.",
            ),
            &["outcome"],
        )?;
        let malformed = IntCounterVec::new(
            Opts::new(
                "lamina_bus_malformed_total",
                "Messages that are not valid events, by reason.",
            ),
            &["reason"],
        )?;
        let lost = IntCounter::new(
            "lamina_bus_lost_total",
            "Times that the transport reported lost messages.",
        )?;
        let consuming = IntGauge::new(
            "lamina_bus_consuming",
            "1 while this node receives the events of the other nodes.",
        )?;
        registry.register(Box::new(heard.clone()))?;
        registry.register(Box::new(malformed.clone()))?;
        registry.register(Box::new(lost.clone()))?;
        registry.register(Box::new(consuming.clone()))?;
        Ok(Self {
            heard: HEARD.map(|outcome| heard.with_label_values(&[outcome])),
            malformed,
            lost,
            consuming,
        })
    }

    pub fn heard(&self, heard: InboxOutcome) {
        self.heard[heard as usize].inc();
    }

    pub fn malformed(&self, reason: EventFormatError) {
        self.malformed.with_label_values(&[reason.as_str()]).inc();
    }

    pub fn lost(&self) {
        self.lost.inc();
    }

    pub fn consuming(&self, consuming: bool) {
        self.consuming.set(i64::from(consuming));
    }
}
