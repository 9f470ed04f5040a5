//! Returns memory to the operating system that a worker allocated and other threads freed.
//!
//! The allocator gives each thread pages of its own, and collects what other threads free in them
//! when the owner allocates the next time. A worker that was busy for a moment and has had
//! nothing to do since would keep the memory of that moment for ever. So each worker collects its
//! own pages while it is idle; a busy one does so as it allocates.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};

/// The time between two checks.
const PERIOD: Duration = Duration::from_secs(1);
/// A worker that worked for longer than this in one period is busy.
const BUSY: Duration = Duration::from_millis(20);

/// Returns freed memory of the thread that runs this runtime whenever it is idle. Never ends.
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

/// Releases the memory that other threads have freed in this thread's pages.
#[allow(unsafe_code)]
fn collect() {
    // SAFETY: it may be called at any time from any thread, and touches the heap of the calling
    // thread alone; where another allocator is in use there is nothing on that heap.
    unsafe { libmimalloc_sys::mi_collect(false) }
}
