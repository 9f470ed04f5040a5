//! What every other crate of the gateway builds on: units, patterns, back-off between attempts,
//! the circuit breaker, what sections of the configuration say of themselves, messages with
//! descriptors, whether a server can be reached, the envelope of records and events, the connection
//! to Redis, messages to the service manager, logs and the metric registry. This crate depends on no other crate of the gateway.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod backoff;
pub mod breaker;
pub mod description;
pub mod descriptor_channel;
pub mod envelope;
pub mod knock;
pub mod pattern;
pub mod random;
pub mod redis;
pub mod service_manager;
pub mod telemetry;
pub mod tls;
pub mod turn_clock;
pub mod units;
