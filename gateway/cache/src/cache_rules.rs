//! The rules of the cache that may change while it is used: [`CacheRules`].

use std::time::Duration;

use crate::config;

/// The rules of the cache that may change while it is used.
#[derive(Clone, Debug)]
pub struct CacheRules {
    /// The largest object that is stored, in bytes.
    pub max_object_bytes: usize,
    /// How long a request waits for another request's load.
    pub wait_timeout: Duration,
    /// How long a load continues when nobody reads it.
    pub unread_timeout: Duration,
}

impl CacheRules {
    pub(super) fn of(config: &config::CacheConfig) -> Self {
        Self {
            max_object_bytes: config.l1.max_object_bytes.as_usize(),
            wait_timeout: config.inflight.wait_timeout.0,
            unread_timeout: config.inflight.unread_timeout.0,
        }
    }
}
