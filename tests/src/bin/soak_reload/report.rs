//! What was seen.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use e2e::gateway::AdminAnswer;
use e2e::load::LoadReport;

/// What a process has of something that must not grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSize {
    pub resident_bytes: u64,
    pub descriptors: usize,
    pub threads: usize,
    pub old_engines: f64,
}

impl ProcessSize {
    /// The median of each part. There is at least one size.
    fn median(sizes: &[Self]) -> Self {
        fn middle<T: Copy>(
            sizes: &[ProcessSize],
            part: impl Fn(&ProcessSize) -> T,
            order: impl Fn(&T, &T) -> Ordering,
        ) -> T {
            let mut parts: Vec<T> = sizes.iter().map(part).collect();
            parts.sort_by(order);
            parts[parts.len() / 2]
        }
        Self {
            resident_bytes: middle(sizes, |size| size.resident_bytes, Ord::cmp),
            descriptors: middle(sizes, |size| size.descriptors, Ord::cmp),
            threads: middle(sizes, |size| size.threads, Ord::cmp),
            old_engines: middle(sizes, |size| size.old_engines, f64::total_cmp),
        }
    }
}

/// Counts of the soak.
#[derive(Default)]
pub struct ReloadReport {
    pub load: Arc<LoadReport>,
    reloads: AtomicU64,
    refused: Mutex<Vec<String>>,
    growth: Mutex<(ProcessSize, ProcessSize)>,
    /// Of each process, just before another one took its place.
    replaced: Mutex<Vec<ProcessSize>>,
    /// Replaced processes that have not ended.
    left: AtomicUsize,
}

/// Refusals that are shown.
const SHOWN: usize = 20;
/// How much more memory there may be at the end, in percent and at least in bytes.
const MEMORY_PERCENT: u64 = 2;
const MEMORY_SLACK: u64 = 8 << 20;
/// Threads for work that blocks, which come when they are needed and go ten seconds later.
const THREADS: usize = 2;
/// Descriptors that may be open for connections that just come or go.
const DESCRIPTORS: usize = 12;

impl ReloadReport {
    pub fn reloaded(&self, round: u64, answer: &AdminAnswer) {
        match answer.status {
            200 => drop(self.reloads.fetch_add(1, Relaxed)),
            status => {
                let mut refused = self.refused.lock().unwrap();
                refused.push(format!("reload {round}: {status} {}", answer.text));
            }
        }
    }

    /// What the process had before and after. Where others took its place in between, the medians of
    /// the first third of them and of the last third count: each lives for a short time only, and
    /// what one has at a moment depends on what its clients just do.
    pub fn grew(&self, before: ProcessSize, after: ProcessSize) {
        let replaced = self.replaced.lock().unwrap();
        let third = replaced.len() / 3;
        *self.growth.lock().unwrap() = match third {
            0 => (before, after),
            _ => (
                ProcessSize::median(&replaced[..third]),
                ProcessSize {
                    // Configurations that are left are so at the end alone.
                    old_engines: after.old_engines,
                    ..ProcessSize::median(&replaced[replaced.len() - third..])
                },
            ),
        };
    }

    /// Another process has taken the place of one of this size.
    pub fn took_over(&self, replaced: ProcessSize) {
        self.replaced.lock().unwrap().push(replaced);
    }

    pub fn left_behind(&self, processes: usize) {
        self.left.store(processes, Relaxed);
    }

    /// Whether nothing failed and nothing grew.
    pub fn is_good(&self) -> bool {
        let (before, after) = *self.growth.lock().unwrap();
        let slack = (before.resident_bytes * MEMORY_PERCENT / 100).max(MEMORY_SLACK);
        self.load.all_failed() == 0
            && self.refused.lock().unwrap().is_empty()
            && self.reloads.load(Relaxed) > 0
            && self.left.load(Relaxed) == 0
            && after.old_engines == 0.0
            && after.threads <= before.threads + THREADS
            && after.descriptors <= before.descriptors + DESCRIPTORS
            && after.resident_bytes <= before.resident_bytes + slack
    }

    pub fn text(&self) -> String {
        let (before, after) = *self.growth.lock().unwrap();
        let mut text = format!(
            "{} reloads; {}",
            self.reloads.load(Relaxed),
            self.load.text()
        );
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
        let replaced = self.replaced.lock().unwrap();
        if !replaced.is_empty() {
            let sizes = replaced.iter().map(|one| {
                let mebibytes = one.resident_bytes as f64 / f64::from(1 << 20);
                format!("{mebibytes:.1}")
            });
            let sizes: Vec<_> = sizes.collect();
            let descriptors = replaced.iter().map(|one| one.descriptors.to_string());
            let descriptors: Vec<_> = descriptors.collect();
            let _ = writeln!(
                text,
                "{} take-overs; {} earlier processes are left; before each was replaced: resident \
                 MiB {}; descriptors {}",
                replaced.len(),
                self.left.load(Relaxed),
                sizes.join(" "),
                descriptors.join(" ")
            );
        }
        for line in self.refused.lock().unwrap().iter().take(SHOWN) {
            let _ = writeln!(text, "refused: {line}");
        }
        text
    }
}
