//! The requests beside the plain route's: harmless ones, traps and loops.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::client::Client;
use futures_util::future::join_all;

/// Requests under way at once at most.
const AT_ONCE: usize = 16;
/// Loops at once: as many as keep every core busy, and then some.
pub const LOOPERS: usize = 4;

/// What the neighbours ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NeighbourTraffic {
    /// An uncacheable page of the plain route.
    Harmless,
    /// In turn a page whose key plugin traps and one whose loader traps.
    Traps,
}

impl NeighbourTraffic {
    /// The target of call `n` and the status that it has to give.
    fn request(self, n: u64) -> (String, u16) {
        match self {
            Self::Harmless => (format!("/harmless/{n}"), 200),
            Self::Traps if n.is_multiple_of(2) => (format!("/keyed/{n}"), 200),
            Self::Traps => (format!("/loaded/{n}"), 502),
        }
    }
}

/// Makes these calls, `rate` a second. How many had another status than they should.
pub async fn pace(client: &Client, traffic: NeighbourTraffic, calls: Range<u64>, rate: u64) -> u64 {
    let start = Instant::now();
    let (next, odd) = (AtomicU64::new(calls.start), AtomicU64::new(0));
    let worker = async || loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= calls.end {
            return;
        }
        let due = Duration::from_secs_f64((n - calls.start) as f64 / rate as f64);
        tokio::time::sleep_until((start + due).into()).await;
        let (target, status) = traffic.request(n);
        let answer = client.request(&target).try_send().await;
        if !answer.is_ok_and(|answer| answer.status == status) {
            odd.fetch_add(1, Ordering::Relaxed);
        }
    };
    join_all((0..AT_ONCE).map(|_| worker())).await;
    odd.into_inner()
}

/// Keeps loaders that never return busy for `span`.
pub async fn loops(client: &Client, span: Duration) {
    let (calls, end) = (AtomicU64::new(0), Instant::now() + span);
    let worker = async || {
        while Instant::now() < end {
            let n = calls.fetch_add(1, Ordering::Relaxed);
            // Its status is the timeout's; that others do not notice is what counts.
            let _ = client.request(&format!("/looped/{n}")).try_send().await;
        }
    };
    join_all((0..LOOPERS).map(|_| worker())).await;
}
