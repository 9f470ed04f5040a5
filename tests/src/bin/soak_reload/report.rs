//! What was seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use e2e::gateway::AdminAnswer;

/// What a process has of something that must not grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSize {
    pub resident_bytes: u64,
    pub descriptors: usize,
    pub threads: usize,
    pub old_engines: f64,
}

/// Counts of the soak.
#[derive(Default)]
pub struct Report {
    counts: AtomicBool,
    good: Mutex<BTreeMap<String, u64>>,
    moved: AtomicU64,
    failures: Mutex<Vec<String>>,
    failed: AtomicU64,
    reloads: AtomicU64,
    refused: Mutex<Vec<String>>,
    growth: Mutex<(ProcessSize, ProcessSize)>,
}

/// Failures that are shown.
const SHOWN: usize = 20;
/// How much more memory there may be at the end, in percent and at least in bytes.
const MEMORY_PERCENT: u64 = 2;
const MEMORY_SLACK: u64 = 8 << 20;
/// Threads for work that blocks, which come when they are needed and go ten seconds later.
const THREADS: usize = 2;
/// Descriptors that may be open for connections that just come or go.
const DESCRIPTORS: usize = 12;

impl Report {
    /// Counts from now on.
    pub fn begin(&self) {
        self.counts.store(true, Relaxed);
    }

    /// Counts no longer; failures always count.
    pub fn end(&self) {
        self.counts.store(false, Relaxed);
    }

    pub fn good(&self, kind: &str) {
        if self.counts.load(Relaxed) {
            let mut good = self.good.lock().unwrap();
            match good.get_mut(kind) {
                Some(count) => *count += 1,
                None => drop(good.insert(kind.to_owned(), 1)),
            }
        }
    }

    /// A connection that its client had to leave, without a loss.
    pub fn moved(&self) {
        self.moved.fetch_add(1, Relaxed);
    }

    pub fn failed(&self, why: impl Into<String>) {
        self.failed.fetch_add(1, Relaxed);
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < SHOWN {
            failures.push(why.into());
        }
    }

    pub fn reloaded(&self, round: u64, answer: &AdminAnswer) {
        match answer.status {
            200 => drop(self.reloads.fetch_add(1, Relaxed)),
            status => {
                let mut refused = self.refused.lock().unwrap();
                refused.push(format!("reload {round}: {status} {}", answer.text));
            }
        }
    }

    pub fn grew(&self, before: ProcessSize, after: ProcessSize) {
        *self.growth.lock().unwrap() = (before, after);
    }

    /// Whether nothing failed and nothing grew.
    pub fn is_good(&self) -> bool {
        let (before, after) = *self.growth.lock().unwrap();
        let slack = (before.resident_bytes * MEMORY_PERCENT / 100).max(MEMORY_SLACK);
        self.failed.load(Relaxed) == 0
            && self.refused.lock().unwrap().is_empty()
            && self.reloads.load(Relaxed) > 0
            && after.old_engines == 0.0
            && after.threads <= before.threads + THREADS
            && after.descriptors <= before.descriptors + DESCRIPTORS
            && after.resident_bytes <= before.resident_bytes + slack
    }

    pub fn text(&self) -> String {
        let good = self.good.lock().unwrap();
        let (before, after) = *self.growth.lock().unwrap();
        let mut text = format!(
            "{} reloads; {} good requests and messages, {} connections moved, {} failed\n",
            self.reloads.load(Relaxed),
            good.values().sum::<u64>(),
            self.moved.load(Relaxed),
            self.failed.load(Relaxed)
        );
        for (kind, count) in good.iter() {
            let _ = writeln!(text, "  {kind}: {count}");
        }
        let _ = writeln!(
            text,
            "resident MiB {:.1} -> {:.1}, descriptors {} -> {}, threads {} -> {}, old engines {}",
            before.resident_bytes as f64 / f64::from(1 << 20),
            after.resident_bytes as f64 / f64::from(1 << 20),
            before.descriptors,
            after.descriptors,
            before.threads,
            after.threads,
            after.old_engines
        );
        for line in self.refused.lock().unwrap().iter().take(SHOWN) {
            let _ = writeln!(text, "refused: {line}");
        }
        for line in self.failures.lock().unwrap().iter() {
            let _ = writeln!(text, "failed: {line}");
        }
        text
    }
}
