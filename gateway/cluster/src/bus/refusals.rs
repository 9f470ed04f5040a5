//! Events that are refused: counted by reason, and each reason logged from time to time.
//!
//! Each reason has its own log line in each period: a flood of events of one kind neither fills the
//! log nor hides the other kinds.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::replay::ReplayRefusal;

/// Why an event has no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventRefusal {
    /// It is an event of a node, and has no seal.
    Unsealed,
    /// Its seal was made with another key, or the event was changed.
    BadSeal,
    /// It is not an event of a node, and foreign events are not accepted.
    Foreign,
    /// It was received before.
    Replayed,
    /// It is of an earlier life of its node.
    EarlierLife,
    /// It was made too long ago.
    TooOld,
    /// By the clock of this node it was made in the future.
    Ahead,
}

impl EventRefusal {
    const ALL: [Self; 7] = [
        Self::Unsealed,
        Self::BadSeal,
        Self::Foreign,
        Self::Replayed,
        Self::EarlierLife,
        Self::TooOld,
        Self::Ahead,
    ];

    /// The reason as the value of a metric's label.
    fn label(self) -> &'static str {
        match self {
            Self::Unsealed => "unsealed",
            Self::BadSeal => "bad-seal",
            Self::Foreign => "foreign",
            Self::Replayed => "replayed",
            Self::EarlierLife => "earlier-life",
            Self::TooOld => "too-old",
            Self::Ahead => "ahead",
        }
    }

    /// What the cause may be, and what to do if it is not an attack.
    fn advice(self) -> &'static str {
        match self {
            Self::Unsealed => {
                "it comes from a publisher without a seal_key: if that is a node, give it the \
                 same bus.seal_key; while the nodes get their key one by one, set \
                 bus.unsealed_events: accept"
            }
            Self::BadSeal => {
                "its seal is not valid: this node and the sender have different seal_keys (give \
                 all nodes the same one; bus.accepted_seal_key accepts a second one during a \
                 change), or somebody forges events"
            }
            Self::Foreign => {
                "it does not come from a gateway and has no seal: if it comes from a service of \
                 yours that should be able to purge here, set bus.foreign_events: accept; then \
                 everybody who can publish on the bus can purge"
            }
            Self::Replayed => {
                "it was received before: the broker delivered it twice, it was published again \
                 for another node, or somebody replays recorded events"
            }
            Self::EarlierLife => {
                "its node has been restarted since: the event was late, or somebody replays \
                 recorded events"
            }
            Self::TooOld => {
                "it is too old: somebody replays recorded events, or the clocks of the two nodes \
                 differ by more than bus.clock_tolerance"
            }
            Self::Ahead => {
                "its time is in the future: the clocks of the two nodes differ by more than \
                 bus.clock_tolerance"
            }
        }
    }
}

impl From<ReplayRefusal> for EventRefusal {
    fn from(refused: ReplayRefusal) -> Self {
        match refused {
            ReplayRefusal::Replayed => Self::Replayed,
            ReplayRefusal::EarlierLife => Self::EarlierLife,
            ReplayRefusal::TooOld => Self::TooOld,
            ReplayRefusal::Ahead => Self::Ahead,
        }
    }
}

/// Counts and logs refusals.
pub struct RefusalReporter {
    counts: [IntCounter; EventRefusal::ALL.len()],
    lines: [RareLine; EventRefusal::ALL.len()],
}

impl RefusalReporter {
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counts = IntCounterVec::new(
            Opts::new(
                "lamina_bus_refused_total",
                "Events that were refused and had no effect, by reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(counts.clone()))?;
        Ok(Self {
            counts: EventRefusal::ALL.map(|reason| counts.with_label_values(&[reason.label()])),
            lines: Default::default(),
        })
    }

    pub fn note(&self, reason: EventRefusal, source: &str, now: Instant) {
        self.counts[reason as usize].inc();
        if let Some(unsaid) = self.lines[reason as usize].admit(now) {
            let (why, advice) = (reason.label(), reason.advice());
            let source: String = source.chars().take(SHOWN).collect();
            tracing::warn!(
                reason = why,
                claimed_source = source,
                unsaid,
                "an event of the bus was refused: {advice}"
            );
        }
    }
}

/// Admits one log line in each [`PERIOD`].
#[derive(Default)]
pub struct RareLine(Mutex<(Option<Instant>, u64)>);

/// The time between two lines of one reason.
const PERIOD: Duration = Duration::from_secs(30);
/// Characters of a name that are shown.
const SHOWN: usize = 64;

impl RareLine {
    /// Whether the line may be written; if so, the number of lines that were suppressed since the
    /// last one.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let (last, unsaid) = &mut *state;
        let soon = last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD);
        if soon {
            *unsaid += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_in_a_period_with_the_number_of_the_rest() {
        let (line, start) = (RareLine::default(), Instant::now());
        let said = (0..100_000).filter_map(|_| line.admit(start)).count();
        assert_eq!(said, 1);
        assert_eq!(line.admit(start + PERIOD), Some(99_999));
        assert_eq!(line.admit(start + PERIOD * 2), Some(0));
    }

    #[test]
    fn each_reason_counts_by_itself() {
        let registry = Registry::new();
        let refusals = RefusalReporter::new(&registry).unwrap();
        for reason in EventRefusal::ALL {
            refusals.note(reason, "x", Instant::now());
        }
        let counts = refusals.counts.iter().map(IntCounter::get);
        assert_eq!(counts.collect::<Vec<_>>(), [1; EventRefusal::ALL.len()]);
    }
}
