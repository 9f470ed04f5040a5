//! What an answer must not be older than, for each node and page.
//!
//! A version is *promised* on a node from the moment on at which a receipt named the node, or
//! at which the node itself took the purge. Of a purge that nobody waited for it is promised
//! on all nodes [`BOUND`] after the purge was taken; while the broker is harmed, [`BOUND`]
//! after all nodes say again that they hear and have told everything.
//! A request that begins after the promise must not be answered with less; but a purge that
//! is *soft* leaves a copy that may be shown while it is being refreshed, which the answer says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::fleet::Pages;

/// A heartbeat (1 s), by which a lost purge is noticed at the latest, and as much again for it to
/// be asked for and said again.
pub const BOUND: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// See the top.
pub struct PromisedVersions {
    pub pages: Pages,
    names: Vec<String>,
    nodes: usize,
    /// By node and page: by hard purges, and by any.
    promised: [Vec<AtomicU64>; 2],
    /// The newest version of each page that somebody took a purge for, promised or not.
    told: Vec<AtomicU64>,
    /// Not promised yet, and when they are.
    pending: Mutex<VecDeque<(Instant, WantedVersion)>>,
    held: AtomicBool,
}

/// A version of a page that a purge has asked for.
#[derive(Clone, Copy, Debug)]
pub struct WantedVersion {
    pub page: usize,
    pub version: u64,
    pub soft: bool,
}

/// What the answer to a request that begins now must be.
#[derive(Clone, Copy, Debug)]
pub struct DueAnswer {
    /// At least this version,
    pub hard: u64,
    /// and this one, if it is not being refreshed.
    pub any: u64,
    /// The newest that a purge was taken for.
    pub told: u64,
}

impl PromisedVersions {
    pub fn new(nodes: usize, pages: usize) -> Arc<Self> {
        let counters = |count| (0..count).map(|_| AtomicU64::new(1)).collect();
        let truth = Arc::new(Self {
            pages: Pages::default(),
            names: (0..pages).map(|page| format!("/p/{page:03}")).collect(),
            nodes,
            promised: [counters(nodes * pages), counters(nodes * pages)],
            told: counters(pages),
            pending: Mutex::default(),
            held: AtomicBool::new(false),
        });
        tokio::spawn(Arc::clone(&truth).keep());
        truth
    }

    pub fn size(&self) -> usize {
        self.names.len()
    }

    pub fn path(&self, page: usize) -> &str {
        &self.names[page]
    }

    pub fn due(&self, node: usize, page: usize) -> DueAnswer {
        let [hard, any] = &self.promised;
        let at = node * self.size() + page;
        DueAnswer {
            hard: hard[at].load(Ordering::SeqCst),
            any: any[at].load(Ordering::SeqCst),
            told: self.told[page].load(Ordering::SeqCst),
        }
    }

    /// A node has this version or a newer one from here on.
    pub fn promise(&self, node: usize, wanted: WantedVersion) {
        let [hard, any] = &self.promised;
        let at = node * self.size() + wanted.page;
        any[at].fetch_max(wanted.version, Ordering::SeqCst);
        if !wanted.soft {
            hard[at].fetch_max(wanted.version, Ordering::SeqCst);
        }
    }

    /// `node` has taken a purge that nobody waits for.
    pub fn taken(&self, node: usize, wanted: WantedVersion) {
        self.promise(node, wanted);
        self.told[wanted.page].fetch_max(wanted.version, Ordering::SeqCst);
        let due = Instant::now() + BOUND;
        self.pending.lock().unwrap().push_back((due, wanted));
    }

    /// From now on nothing more is promised everywhere.
    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// What waits is promised [`BOUND`] from now on.
    pub fn release(&self) {
        let due = Instant::now() + BOUND;
        for pending in self.pending.lock().unwrap().iter_mut() {
            pending.0 = pending.0.max(due);
        }
        self.held.store(false, Ordering::SeqCst);
    }

    /// What waits is promised now: it was seen to have come to every node.
    pub fn release_at_once(&self) {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap());
        for (_, wanted) in pending {
            for node in 0..self.nodes {
                self.promise(node, wanted);
            }
        }
        self.held.store(false, Ordering::SeqCst);
    }

    /// Waits until everything is promised.
    pub async fn settled(&self) {
        while !self.pending.lock().unwrap().is_empty() {
            tokio::time::sleep(TICK).await;
        }
    }

    async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            let now = Instant::now();
            let mut pending = self.pending.lock().unwrap();
            if self.held.load(Ordering::SeqCst) {
                continue;
            }
            while let Some((_, wanted)) = pending.pop_front_if(|(due, _)| *due <= now) {
                for node in 0..self.nodes {
                    self.promise(node, wanted);
                }
            }
        }
    }
}
