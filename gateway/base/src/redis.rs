//! Connections to Redis: what the second tier and the event bus have in common.
//!
//! Inside: `target` (the URL), `connection` (one, from its beginning to its end, and the
//! pauses between two), `fault` (what went wrong). What is done with a connection, and what
//! is told when it ends, is the business of those who hold it.

mod connection;
mod fault;
mod outage;
mod target;

use std::path::Path;
use std::time::Duration;

pub use connection::{RedisConnection, RedisConnector, RedisReconnectBackoff, ping, unanswered};
pub use fault::{RedisError, is_demotion};
pub use outage::SharedOutage;
pub use target::{RedisTargetError, check};

/// Where a Redis is, and how we introduce ourselves.
#[derive(Clone, Copy)]
pub struct RedisConnectionSettings<'a> {
    /// `redis://…`, `redis-sentinel://…` or `redis-cluster://…`; `rediss…` for TLS.
    pub url: &'a str,
    /// The name under which Sentinel knows the master.
    pub service: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    pub sentinel_username: Option<&'a str>,
    pub sentinel_password: Option<&'a str>,
    /// Certificates that vouch for the servers, in place of the system's.
    pub ca_file: Option<&'a Path>,
    /// To open a connection and introduce ourselves.
    pub connect_timeout: Duration,
    /// A connection that gives no answer for so long is given up.
    pub silence_timeout: Duration,
    /// Between two attempts to connect at most.
    pub reconnect_max: Duration,
}
