//! The last requests of the process, for the operator who asks what became of one.
//!
//! Of plain hits only some are kept: they say little, and there are so many that the others
//! would be gone at once.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::RequestRecord;
use crate::proxy::metrics::RequestOutcome;
use crate::telemetry::config::RecentRequestsConfig as Config;

/// The last requests.
pub struct RecentRequestLog {
    keep: usize,
    one_hit_in: u32,
    records: Mutex<VecDeque<Arc<RequestRecord>>>,
}

/// Which of the last requests are asked for.
#[derive(Debug, Default)]
pub struct RecentFilter {
    pub route: Option<String>,
    /// The word of the log, as `miss`.
    pub result: Option<String>,
    /// All of these digits of the status, from its first on: `5` is every 5xx.
    pub status: Option<String>,
    /// A part of host and path.
    pub contains: Option<String>,
}

thread_local! {
    /// How many hits of this worker are still left out before one is kept.
    static HITS_TO_LEAVE_OUT: Cell<u32> = const { Cell::new(0) };
}

impl RecentRequestLog {
    pub fn new(config: &Config) -> Self {
        Self {
            keep: config.keep,
            one_hit_in: config.one_hit_in.max(1),
            records: Mutex::default(),
        }
    }

    /// Whether there is room for any.
    pub fn keeps_any(&self) -> bool {
        self.keep > 0
    }

    /// Whether the request that this worker handles now is to be kept if it is a hit.
    pub fn takes_this_hit(&self) -> bool {
        if self.keep == 0 {
            return false;
        }
        HITS_TO_LEAVE_OUT.with(|left| match left.get() {
            0 => {
                left.set(self.one_hit_in - 1);
                true
            }
            more => {
                left.set(more - 1);
                false
            }
        })
    }

    /// Keeps a record in place of the oldest one.
    pub fn keep(&self, record: RequestRecord) {
        if self.keep == 0 {
            return;
        }
        let record = Arc::new(record);
        let mut records = self.records.lock();
        let oldest = match records.len() < self.keep {
            true => None,
            false => records.pop_front(),
        };
        records.push_back(record);
        drop(records);
        // It is freed without the lock.
        drop(oldest);
    }

    /// The newest first, `most` of those that are asked for.
    pub fn newest(&self, most: usize, filter: &RecentFilter) -> Vec<Arc<RequestRecord>> {
        let records = self.records.lock();
        let wanted = records.iter().rev().filter(|record| filter.takes(record));
        wanted.take(most).cloned().collect()
    }
}

impl RecentFilter {
    fn takes(&self, record: &RequestRecord) -> bool {
        let is = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        let status = record.status().to_string();
        is(&self.route, record.route.as_deref())
            && is(&self.result, Some(record.result()))
            && self
                .status
                .as_deref()
                .is_none_or(|digits| status.starts_with(digits))
            && self
                .contains
                .as_deref()
                .is_none_or(|part| format!("{}{}", record.host, record.path).contains(part))
    }
}

impl RequestRecord {
    /// What the request became, in the words of the log: `left` if the client did not wait.
    pub fn result(&self) -> &'static str {
        self.outcome().map_or("left", RequestOutcome::as_str)
    }
}
