//! Lamina, an edge cache gateway.
//!
//! Start reading at [`proxy`]: `Proxy::handle` is the path of one request, one
//! line a step. `ARCHITECTURE.md` draws the modules and who may import whom.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod admin;
pub mod app;
pub mod backoff;
pub mod breaker;
pub mod bus;
pub mod cache;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod hc1;
pub mod http;
pub mod origin;
pub mod pattern;
pub mod plugin;
pub mod proxy;
pub mod redis;
pub mod telemetry;
pub mod units;
