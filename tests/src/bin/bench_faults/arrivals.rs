//! Which requests have reached the origins, and how often.

use std::collections::HashMap;
use std::sync::Mutex;

/// Counts by path. Every request of a run has a path of its own, which no proxy changes.
#[derive(Default)]
pub struct ArrivalCounts(Mutex<HashMap<String, u64>>);

impl ArrivalCounts {
    /// Notes a request that an origin has read to its end, body included: from there on the
    /// origin may have done what it asks for.
    pub fn note(&self, path: &str) {
        *self.counts().entry(path.to_owned()).or_default() += 1;
    }

    /// How many requests the origins have read in all.
    pub fn attempts(&self) -> u64 {
        self.counts().values().sum()
    }

    /// How many requests reached the origins more than once, be it the same origin or another.
    /// One that came three times is one.
    pub fn duplicates(&self) -> u64 {
        self.counts().values().filter(|count| **count > 1).count() as u64
    }

    /// Whether a request for this path is among them.
    pub fn has(&self, path: &str) -> bool {
        self.counts().contains_key(path)
    }

    /// Forgets what came so far.
    pub fn forget(&self) {
        self.counts().clear();
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::ArrivalCounts;

    #[test]
    fn a_duplicate_is_a_request_that_came_more_than_once() {
        let arrivals = ArrivalCounts::default();
        for path in ["/0", "/1", "/1", "/2", "/2", "/2"] {
            arrivals.note(path);
        }
        assert_eq!((arrivals.attempts(), arrivals.duplicates()), (6, 2));
        assert_eq!(["/2", "/3"].map(|path| arrivals.has(path)), [true, false]);
        arrivals.forget();
        assert_eq!((arrivals.attempts(), arrivals.duplicates()), (0, 0));
    }
}
