//! Connections to Redis: what the second tier and the event bus have in common.
//!
//! Inside: `config` (the keys of every section with a Redis), `target` (the URL), `connection` (one
//! connection from its beginning to its end, and the pauses between two), `fault` (what went
//! wrong), `outage` (what is logged), `script` (what Redis runs as one step), `driver` (the client library, which is named there alone).
//! What a connection is used for, and what its end means, is decided by the modules that hold it.

pub mod config;
mod connection;
pub mod driver;
mod fault;
mod outage;
mod script;
mod target;

pub use config::{RedisConnectionSettings, RedisTargetError};
pub use connection::{RedisConnection, RedisConnector, RedisReconnectBackoff, ping, unanswered};
pub use fault::{RedisError, is_demotion};
pub use outage::SharedOutage;
pub use script::run_script;
pub use target::{check, may_fail_over};
