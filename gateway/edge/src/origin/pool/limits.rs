//! What the configuration allows the connections to one target.

use std::time::Duration;

use crate::origin::config::UpstreamConfig;

/// The bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub(in crate::origin) struct PoolLimits {
    pub(super) connect: Duration,
    pub(super) max_idle: usize,
    pub(super) idle: Duration,
    pub(super) max_age: Duration,
    pub(super) max_streams: u32,
    pub(super) stream_window: u32,
}

impl PoolLimits {
    pub(in crate::origin) fn new(upstream: &UpstreamConfig) -> Self {
        let pool = &upstream.pool;
        Self {
            connect: upstream.timeouts.connect.0,
            max_idle: pool.max_idle,
            idle: pool.idle_timeout.0,
            max_age: pool.max_age.0,
            max_streams: pool.max_streams.get(),
            stream_window: pool.stream_window.0.try_into().unwrap_or(u32::MAX),
        }
    }
}
