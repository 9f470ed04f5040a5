//! What is logged about the connections of one store. As a rule they are lost together, so there
//! is one line when the first is lost, and one when all are up again.

use std::fmt::Display;

use parking_lot::Mutex;

use crate::backoff::OutageTracker;

/// The state of all connections of one store.
#[derive(Default)]
pub struct SharedOutage(Mutex<SharedOutageState>);

#[derive(Default)]
struct SharedOutageState {
    /// Connections that are not up.
    count: usize,
    outages: OutageTracker,
}

impl SharedOutage {
    /// Notes one more connection that is not up: it was not made yet, or it has ended.
    pub fn lacks_one(&self) {
        self.0.lock().count += 1;
    }

    /// An attempt has failed; `is_news` is true for the first failed attempt of a connection.
    pub fn failed(&self, why: &dyn Display, is_news: bool) {
        if self.0.lock().outages.fails(is_news) {
            tracing::warn!(store = "redis", error = %why, "no connection to Redis; reconnecting");
        }
    }

    /// A connection is up.
    pub fn connected(&self) {
        let mut lost = self.0.lock();
        lost.count -= 1;
        if lost.count > 0 {
            return;
        }
        if let Some(after_seconds) = lost.outages.end().line() {
            tracing::info!(store = "redis", after_seconds, "connected to Redis");
        }
    }
}
