//! Memory that a worker allocated and others freed goes back to the operating system.
//!
//! The allocator gives each thread pages of its own, and what another thread frees in them is
//! collected when the owner allocates the next time. A worker that was busy for a moment and has
//! nothing to do since would keep a flood's memory for ever. So each looks after its own pages
//! while it is idle; a busy one does so as it allocates.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// A worker that worked for longer than this in one period is busy.
const BUSY: Duration = Duration::from_millis(20);

/// Returns freed memory of the thread that runs this runtime whenever it is idle, for ever.
pub async fn while_idle() {
    let metrics = Handle::current().metrics();
    let mut worked = worked_so_far(&metrics);
    loop {
        tokio::time::sleep(PERIOD).await;
        let before = std::mem::replace(&mut worked, worked_so_far(&metrics));
        if worked.saturating_sub(before) < BUSY {
            collect();
        }
    }
}

/// How long the first thread of a runtime was not waiting.
fn worked_so_far(metrics: &RuntimeMetrics) -> Duration {
    metrics.worker_total_busy_duration(0)
}

/// Frees what other threads have freed of this one's pages.
#[allow(unsafe_code)]
fn collect() {
    // SAFETY: it may be called at any time from any thread, and touches the heap of the calling
    // thread alone; where another allocator is in use there is nothing on that heap.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
