//! The last requests of the process, for an operator who asks what happened to one of them.
//!
//! Only some of the plain hits are kept: they tell little, and there are so many that they would
//! displace all others at once.

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

/// Selects some of the last requests.
#[derive(Debug, Default)]
pub struct RecentFilter {
    pub route: Option<String>,
    /// The result in the words of the log, such as `miss`.
    pub result: Option<String>,
    /// The first digits of the status: `5` selects every 5xx.
    pub status: Option<String>,
    /// A part of host and path.
    pub contains: Option<String>,
}

thread_local! {
    /// How many hits of this worker are left out before the next one is kept.
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

    /// Whether any requests are kept.
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

    /// Keeps a record, in place of the oldest one if there is no room.
    pub fn keep(&self, record: Box<RequestRecord>) {
        if self.keep == 0 {
            return;
        }
        let record = Arc::from(record);
        let mut records = self.records.lock();
        let oldest = match records.len() < self.keep {
            true => None,
            false => records.pop_front(),
        };
        records.push_back(record);
        drop(records);
        // The oldest record is freed after the lock is released.
        drop(oldest);
    }

    /// All requests that are kept, newest first.
    pub fn all(&self) -> Vec<Arc<RequestRecord>> {
        self.records.lock().iter().rev().cloned().collect()
    }

    /// The newest requests that `filter` selects, newest first, at most `most` of them.
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
    /// The outcome in the words of the log, or `left` if the client left before the answer.
    pub fn result(&self) -> &'static str {
        self.outcome().map_or("left", RequestOutcome::as_str)
    }
}
