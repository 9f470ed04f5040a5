//! What every part of the gateway builds on, and what knows none of them: units, patterns,
//! pauses between attempts, the circuit breaker, the envelope of records and events, the
//! connection to Redis, logs and the registry of metrics.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod backoff;
pub mod breaker;
pub mod hc1;
pub mod pattern;
pub mod redis;
pub mod telemetry;
pub mod units;
