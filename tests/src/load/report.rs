//! What the clients have seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counts of the clients.
#[derive(Default)]
pub struct LoadReport {
    counts: AtomicBool,
    good: Mutex<BTreeMap<String, u64>>,
    moved: AtomicU64,
    failures: Mutex<Vec<String>>,
    failed: AtomicU64,
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

    /// A connection that its client had to leave, without a loss.
    pub(super) fn moved(&self) {
        self.moved.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self, why: impl Into<String>) {
        self.failed.fetch_add(1, Relaxed);
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < SHOWN {
            failures.push(why.into());
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
        self.failed.load(Relaxed)
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
        for line in self.failures.lock().unwrap().iter() {
            let _ = writeln!(text, "failed: {line}");
        }
        text
    }
}
