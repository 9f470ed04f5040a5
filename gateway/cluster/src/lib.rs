//! What nodes tell one another: the event bus with its transports and events, and what a node does
//! with the events that it receives.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// The names under which the modules of this crate know the crates below.
use lamina_base::{
    backoff, breaker, description, envelope, knock, pattern, random, redis, telemetry, tls, units,
};
use lamina_cache as cache;

pub mod bus;
pub mod cluster;
