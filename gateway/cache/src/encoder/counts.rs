//! Counters of what becomes of coded forms.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use crate::http::coding::{CODINGS, ContentCoding};

/// What became of a coded form, or of an answer that needed one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncodingOutcome {
    /// Made and kept with its entry.
    Made,
    /// It would have saved less than 10 %.
    TooLittle,
    /// The queue was full.
    Skipped,
    /// The processors had better things to do.
    Busy,
    /// The stored content can't be decoded.
    Failed,
    /// An answer's coding was undone for a client that does not take it.
    Decoded,
    /// An answer was encoded while it passed by: one that is not stored, or a large one while it was
    /// loaded.
    Passed,
}

const OUTCOMES: [EncodingOutcome; 7] = [
    EncodingOutcome::Made,
    EncodingOutcome::TooLittle,
    EncodingOutcome::Skipped,
    EncodingOutcome::Busy,
    EncodingOutcome::Failed,
    EncodingOutcome::Decoded,
    EncodingOutcome::Passed,
];

impl EncodingOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::TooLittle => "too_little",
            Self::Skipped => "skipped",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Decoded => "decoded",
            Self::Passed => "passed",
        }
    }
}

/// The counters, for each coding. All series are there from the beginning: their number is fixed.
#[derive(Clone)]
pub struct EncodingCounts {
    outcomes: [[IntCounter; OUTCOMES.len()]; CODINGS.len()],
    seconds: [Histogram; CODINGS.len()],
    saved: [IntCounter; CODINGS.len()],
}

impl EncodingCounts {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let outcomes = IntCounterVec::new(
            Opts::new(
                "lamina_compress_total",
                "Coded forms of bodies by coding and what became of them.",
            ),
            &["encoding", "outcome"],
        )?;
        let seconds = HistogramOpts::new(
            "lamina_compress_seconds",
            "Time in which a coded form of a stored body was made.",
        )
        .buckets(vec![
            0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5,
        ]);
        let seconds = HistogramVec::new(seconds, &["encoding"])?;
        let saved = IntCounterVec::new(
            Opts::new(
                "lamina_compress_saved_bytes_total",
                "Bytes by which coded forms are smaller than what would be sent without them.",
            ),
            &["encoding"],
        )?;
        registry.register(Box::new(outcomes.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(saved.clone()))?;
        Ok(Self {
            outcomes: CODINGS.map(|coding| {
                let one = |outcome: EncodingOutcome| [coding.as_str(), outcome.as_str()];
                OUTCOMES.map(|outcome| outcomes.with_label_values(&one(outcome)))
            }),
            seconds: CODINGS.map(|coding| seconds.with_label_values(&[coding.as_str()])),
            saved: CODINGS.map(|coding| saved.with_label_values(&[coding.as_str()])),
        })
    }

    /// Counts an outcome.
    pub fn count(&self, coding: ContentCoding, outcome: EncodingOutcome) {
        self.outcomes[coding.index()][outcome as usize].inc();
    }

    /// The number of forms with this coding that had this outcome.
    pub fn of(&self, coding: ContentCoding, outcome: EncodingOutcome) -> u64 {
        self.outcomes[coding.index()][outcome as usize].get()
    }

    pub(super) fn made(&self, coding: ContentCoding, took: Duration, saved: usize) {
        self.count(coding, EncodingOutcome::Made);
        self.seconds[coding.index()].observe(took.as_secs_f64());
        self.saved[coding.index()].inc_by(saved as u64);
    }
}
