//! Connections to Redis: what the second tier and the event bus have in common.
//!
//! Inside: `target` (the URL), `connection` (one connection from its beginning to its end, and
//! the pauses between two), `fault` (what went wrong), `outage` (what is logged), `driver` (the
//! client library, which is named there alone). What a connection is used for, and what its end
//! means, is decided by the modules that hold it.

mod connection;
pub mod driver;
mod fault;
mod outage;
mod target;

use std::path::Path;
use std::time::Duration;

pub use connection::{RedisConnection, RedisConnector, RedisReconnectBackoff, ping, unanswered};
pub use fault::{RedisError, is_demotion};
pub use outage::SharedOutage;
pub use target::{RedisTargetError, check};

/// Where Redis is, and how we authenticate.
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
    /// The time for opening a connection and authenticating.
    pub connect_timeout: Duration,
    /// A connection that gives no answer for this long is given up.
    pub silence_timeout: Duration,
    /// The longest pause between two attempts to connect.
    pub reconnect_max: Duration,
}
