//! Whether the broker takes what is published, according to the last attempt. `/readyz`, `nodes`,
//! heartbeats and the log all report this one state.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bus::transport::PublishError;

/// Whether the broker takes what is published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PublishStatus {
    Works,
    /// No attempt has succeeded since then; `why` is the reason of the last failure.
    Fails {
        since: Instant,
        why: String,
    },
}

/// How durable the publication must be that an attempt was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishDurability {
    /// Purges: the broker confirms that it has them.
    Kept,
    /// Transient events: some transports only send them.
    OfTheMoment,
}

/// Records each attempt, and logs when an outage of publishing begins and when it ends.
pub struct PublishMonitor(Mutex<AttemptState>);

struct AttemptState {
    publishing: PublishStatus,
    /// What the last failed attempt was about.
    failed: PublishDurability,
    /// A log line has reported the failure.
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

    /// An attempt succeeded; `waiting` purges still wait. While purges are refused, a transient
    /// event that was sent proves nothing.
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
            tracing::info!(
                transport,
                seconds,
                waiting,
                "publishing to the event bus works again"
            );
        }
    }

    /// An attempt failed. The transport itself logs that there is no connection.
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
            tracing::warn!(
                transport,
                %error,
                "publishing to the event bus fails; purges wait and are tried again"
            );
        }
        state.publishing = PublishStatus::Fails { since, why };
    }
}

/// Seconds with one decimal, for a log line.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}
