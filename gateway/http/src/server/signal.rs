//! Tells workers and connections to drain, then to stop.
//!
//! Decision: an atomic beside a `Notify`, not a channel: a connection registers once and
//! afterwards only reads the atomic each time that it is polled.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// How far the shutdown has come; 0 stands for not at all. It only moves forward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum DrainStage {
    /// Nothing is accepted; each connection ends at a request of its own, and none in between.
    Retire = 1,
    /// Connections end as soon as nothing is under way on them.
    Drain = 2,
    Cut = 3,
}

#[derive(Default)]
pub(super) struct DrainSignal {
    stage: AtomicU8,
    changed: Notify,
}

impl DrainSignal {
    /// Moves on to `stage` and wakes everything that waits.
    pub(super) fn raise(&self, stage: DrainStage) {
        if self.stage.fetch_max(stage as u8, Ordering::SeqCst) < stage as u8 {
            self.changed.notify_waiters();
        }
    }

    /// The number of the stage that is reached; 0 for none.
    pub(super) fn stage(&self) -> u8 {
        self.stage.load(Ordering::SeqCst)
    }

    /// Whether `stage` is reached.
    pub(super) fn is(&self, stage: DrainStage) -> bool {
        self.stage() >= stage as u8
    }

    /// Completes at the next change. Create it first, then check [`DrainSignal::is`], then await
    /// it.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Waits until `stage` is reached.
    pub(super) async fn reached(&self, stage: DrainStage) {
        loop {
            // Created before the check: a change between the two still wakes it.
            let changed = self.changed();
            if self.is(stage) {
                return;
            }
            changed.await;
        }
    }
}
