//! What the clients have seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::latency::LatencyHistogram;

/// Counts of the clients.
#[derive(Default)]
pub struct LoadReport {
    counts: AtomicBool,
    good: Mutex<BTreeMap<String, u64>>,
    moved: AtomicU64,
    failures: Mutex<Vec<String>>,
    /// How many of each kind.
    failed: Mutex<BTreeMap<String, u64>>,
    /// Whether something is being exchanged just now.
    swaps: AtomicBool,
    /// Hits that were asked for and answered while nothing was exchanged.
    calm: LatencyHistogram,
    /// The other ones.
    during_swaps: LatencyHistogram,
    loaded: AtomicU64,
    hits: AtomicU64,
}

/// Pages that clients have got, from the beginning on.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageCount {
    pub all: u64,
    /// Those that came from the cache.
    pub hits: u64,
}

impl PageCount {
    /// The share of hits among what has come since then.
    pub fn hit_ratio_since(self, earlier: Self) -> f64 {
        let (all, hits) = (self.all - earlier.all, self.hits - earlier.hits);
        hits as f64 / all.max(1) as f64
    }
}

/// Where a page came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PageOrigin {
    Cache,
    Upstream,
}

/// When a request began.
#[derive(Clone, Copy)]
pub(super) struct RequestStart {
    at: Instant,
    in_swap: bool,
}

/// Failures that are shown.
const SHOWN: usize = 20;

impl LoadReport {
    /// Counts from now on.
    pub fn begin(&self) {
        self.counts.store(true, Relaxed);
    }

    /// Counts no longer; failures always count.
    pub fn end(&self) {
        self.counts.store(false, Relaxed);
    }

    pub(super) fn good(&self, kind: &str) {
        if self.counts.load(Relaxed) {
            let mut good = self.good.lock().unwrap();
            match good.get_mut(kind) {
                Some(count) => *count += 1,
                None => drop(good.insert(kind.to_owned(), 1)),
            }
        }
    }

    /// Something is exchanged from now on.
    pub fn swap_begins(&self) {
        self.swaps.store(true, Relaxed);
    }

    /// It is exchanged.
    pub fn swap_ends(&self) {
        self.swaps.store(false, Relaxed);
    }

    pub(super) fn start(&self) -> RequestStart {
        RequestStart {
            at: Instant::now(),
            in_swap: self.swaps.load(Relaxed),
        }
    }

    /// A page has come whole.
    pub(super) fn page(&self, origin: PageOrigin) {
        let count = match origin {
            PageOrigin::Cache => &self.hits,
            PageOrigin::Upstream => &self.loaded,
        };
        count.fetch_add(1, Relaxed);
    }

    /// The pages so far, also those before [`LoadReport::begin`].
    pub fn pages(&self) -> PageCount {
        let hits = self.hits.load(Relaxed);
        PageCount {
            all: hits + self.loaded.load(Relaxed),
            hits,
        }
    }

    /// A hit has come whole.
    pub(super) fn hit(&self, start: RequestStart) {
        if !self.counts.load(Relaxed) {
            return;
        }
        let took = start.at.elapsed();
        match start.in_swap || self.swaps.load(Relaxed) {
            true => self.during_swaps.note(took),
            false => self.calm.note(took),
        }
    }

    /// A connection that its client had to leave, without a loss.
    pub(super) fn moved(&self) {
        self.moved.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self, why: impl Into<String>) {
        let why = why.into();
        let kind = why.split(':').next().unwrap_or_default().to_owned();
        *self.failed.lock().unwrap().entry(kind).or_default() += 1;
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < SHOWN {
            failures.push(why);
        }
    }

    /// How much was good, over all kinds.
    pub fn all_good(&self) -> u64 {
        self.good.lock().unwrap().values().sum()
    }

    /// How much was good of each kind.
    pub fn good_by_kind(&self) -> BTreeMap<String, u64> {
        self.good.lock().unwrap().clone()
    }

    /// How much has failed.
    pub fn all_failed(&self) -> u64 {
        self.failed.lock().unwrap().values().sum()
    }

    /// All of it, in lines.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} good requests and messages, {} connections moved, {} failed\n",
            self.all_good(),
            self.moved.load(Relaxed),
            self.all_failed()
        );
        for (kind, count) in self.good.lock().unwrap().iter() {
            let _ = writeln!(text, "  {kind}: {count}");
        }
        for (kind, count) in self.failed.lock().unwrap().iter() {
            let _ = writeln!(text, "  failed of {kind}: {count}");
        }
        let times = [
            ("without a swap", &self.calm),
            ("during swaps", &self.during_swaps),
        ];
        for (when, hits) in times.into_iter().filter(|(_, hits)| hits.count() > 0) {
            let _ = writeln!(text, "  {when}: {}", hits.text());
        }
        for line in self.failures.lock().unwrap().iter() {
            let _ = writeln!(text, "failed: {line}");
        }
        text
    }
}
