//! Whether the broker takes what is published, by the last attempt: the one source of what
//! `/readyz`, `nodes`, heartbeats and the log say of it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bus::transport::PublishError;

/// Whether what is published is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PublishStatus {
    Works,
    /// Since then no attempt came through, and why the last one did not.
    Fails {
        since: Instant,
        why: String,
    },
}

/// What an attempt was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishDurability {
    /// Purges: the broker says that it has them.
    Kept,
    /// What is of the moment: some transports only send it.
    OfTheMoment,
}

/// Notes each attempt, and says when a state begins and when it ends.
pub struct PublishMonitor(Mutex<AttemptState>);

struct AttemptState {
    publishing: PublishStatus,
    /// What failed last.
    failed: PublishDurability,
    /// A line of the log said that it fails.
    was_told: bool,
}

impl Default for PublishMonitor {
    fn default() -> Self {
        Self(Mutex::new(AttemptState {
            publishing: PublishStatus::Works,
            failed: PublishDurability::OfTheMoment,
            was_told: false,
        }))
    }
}

impl PublishMonitor {
    pub fn get(&self) -> PublishStatus {
        self.0.lock().publishing.clone()
    }

    /// An attempt came through; so many purges wait still. While purges are refused, that
    /// something of the moment was sent means nothing.
    pub fn works(&self, transport: &'static str, errand: PublishDurability, waiting: usize) {
        let mut state = self.0.lock();
        if errand == PublishDurability::OfTheMoment
            && state.failed == PublishDurability::Kept
            && waiting > 0
        {
            return;
        }
        let PublishStatus::Fails { since, .. } = state.publishing else {
            return;
        };
        state.publishing = PublishStatus::Works;
        if std::mem::take(&mut state.was_told) {
            let seconds = seconds(since.elapsed());
            tracing::info!(transport, seconds, waiting, "publishing works again");
        }
    }

    /// An attempt failed. That there is no connection is told by the transport itself.
    pub fn fails(&self, transport: &'static str, errand: PublishDurability, error: &PublishError) {
        let mut state = self.0.lock();
        state.failed = errand;
        let since = match state.publishing {
            PublishStatus::Works => Instant::now(),
            PublishStatus::Fails { since, .. } => since,
        };
        let why = error.to_string();
        let is_known = matches!(error, PublishError::Down(_)) || state.was_told;
        if !is_known {
            state.was_told = true;
            tracing::warn!(transport, %error, "publishing fails; purges wait, and are tried again");
        }
        state.publishing = PublishStatus::Fails { since, why };
    }
}

/// For a line of the log.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}
