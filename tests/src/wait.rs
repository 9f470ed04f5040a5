//! Waiting for a condition, with a limit: the only way in which tests spend time.

use std::future::Future;
use std::time::{Duration, Instant};

/// The limit for things that take milliseconds on an idle machine. Wide, because
/// the machine is not idle; a test that meets it has failed.
pub const SOON: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(5);

/// Polls `holds` until it is true. Panics with `what` when `limit` has passed.
pub async fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// The same for a condition that has to be asked for: `probe` answers `Some` when it holds.
pub async fn wait_for<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until the clock says that `span` has passed since `start`: for lifetimes,
/// where time itself is the condition.
pub async fn passed(start: Instant, span: Duration) {
    tokio::time::sleep_until((start + span).into()).await;
}

/// Bounds `work`; panics with `what` when it takes longer than `limit`.
pub async fn within<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} took longer than {limit:?}"),
    }
}
