//! What a warm-up came to, in numbers.

use prometheus::{Gauge, IntCounterVec, Opts, Registry};

/// Where a warm-up takes what is stored from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WarmSource {
    Snapshot,
    SecondTier,
    Origin,
}

/// What became of a hot key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WarmOutcome {
    /// It is in the first tier.
    Restored,
    /// It is in the first tier, and its origin is asked before it is shown.
    InDoubt,
    /// A purge hides what was stored.
    Purged,
    /// Nothing is stored there.
    Missing,
    /// Its life is over.
    Ended,
    /// Its record can't be used.
    Damaged,
    /// Nobody can tell which purges its record has missed.
    Outdated,
    /// The store or the origin did not answer as it should.
    Failed,
    /// It was not loaded, since a plain request for its URL does not have its key.
    Skipped,
    /// The first tier was full.
    NoRoom,
    /// The time was over.
    NotReached,
}

/// The numbers of the warm-up and of the file.
pub struct WarmMetrics {
    entries: IntCounterVec,
    files: IntCounterVec,
    /// How long the warm-up took.
    pub seconds: Gauge,
}

impl WarmSource {
    pub const ALL: [Self; 3] = [Self::Snapshot, Self::SecondTier, Self::Origin];

    /// The word of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::SecondTier => "l2",
            Self::Origin => "origin",
        }
    }
}

impl WarmOutcome {
    pub const ALL: [Self; 11] = [
        Self::Restored,
        Self::InDoubt,
        Self::Purged,
        Self::Missing,
        Self::Ended,
        Self::Damaged,
        Self::Outdated,
        Self::Failed,
        Self::Skipped,
        Self::NoRoom,
        Self::NotReached,
    ];

    /// The word of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::InDoubt => "in-doubt",
            Self::Purged => "purged",
            Self::Missing => "missing",
            Self::Ended => "ended",
            Self::Damaged => "damaged",
            Self::Outdated => "outdated",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::NoRoom => "no-room",
            Self::NotReached => "not-reached",
        }
    }
}

impl WarmMetrics {
    /// # Errors
    /// When the registry has them already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let entries = IntCounterVec::new(
            Opts::new(
                "lamina_warm_entries_total",
                "Hot keys of the process before, by where they were looked for and what became of \
                 them.",
            ),
            &["source", "outcome"],
        )?;
        let files = IntCounterVec::new(
            Opts::new(
                "lamina_warm_files_total",
                "Times that the file of hot keys was to be written, by outcome.",
            ),
            &["outcome"],
        )?;
        let seconds = Gauge::new(
            "lamina_warm_seconds",
            "How long the warm-up at the start took; 0 without one.",
        )?;
        registry.register(Box::new(entries.clone()))?;
        registry.register(Box::new(files.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            entries,
            files,
            seconds,
        })
    }

    /// Counts a key.
    pub fn count(&self, source: WarmSource, outcome: WarmOutcome) {
        self.count_all(source, outcome, 1);
    }

    /// Counts keys that came to the same.
    pub fn count_all(&self, source: WarmSource, outcome: WarmOutcome, keys: usize) {
        if keys > 0 {
            let labels = [source.as_str(), outcome.as_str()];
            self.entries.with_label_values(&labels).inc_by(keys as u64);
        }
    }

    /// How many keys came to this from there.
    pub fn counted(&self, source: WarmSource, outcome: WarmOutcome) -> u64 {
        let labels = [source.as_str(), outcome.as_str()];
        self.entries.with_label_values(&labels).get()
    }

    /// How many keys came to this, wherever they were looked for.
    pub fn total(&self, outcome: WarmOutcome) -> u64 {
        let all = WarmSource::ALL.iter();
        all.map(|source| self.counted(*source, outcome)).sum()
    }

    /// Counts a write of the file.
    pub fn wrote(&self, outcome: &str) {
        self.files.with_label_values(&[outcome]).inc();
    }
}
