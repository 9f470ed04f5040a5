//! A gate that origins stand at until the test opens it: the deterministic
//! replacement for "the origin is slow".

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::wait::{SOON, wait_until, within};

/// Shut when new. Opening is for good, [`Gate::shut`] closes it again for later comers.
#[derive(Clone)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    waiting: Arc<AtomicUsize>,
}

impl Gate {
    /// A shut gate.
    pub fn new() -> Self {
        Self {
            open: Arc::new(watch::Sender::new(false)),
            waiting: Arc::default(),
        }
    }

    /// Stands at the gate until it is open.
    pub async fn pass(&self) {
        let _here = Waiter::new(&self.waiting);
        let mut open = self.open.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = open.wait_for(|open| *open).await;
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    /// Waits until at least `n` stand at the gate.
    pub async fn reached_by(&self, n: usize) {
        let what = format!("{n} stand at the gate");
        wait_until(&what, SOON, || self.waiting.load(Ordering::SeqCst) >= n).await;
    }

    /// How many stand at the gate.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// A meeting of `n` parties: each stays until all have come. Panics if they do not,
/// which proves that they were not there at once.
pub async fn meet(barrier: &tokio::sync::Barrier) {
    within("a meeting at the origin", SOON, barrier.wait()).await;
}

struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
