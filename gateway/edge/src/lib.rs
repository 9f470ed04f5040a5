//! The gateway itself: it turns a configuration into a running gateway.
//!
//! Start reading at [`proxy`]: `Proxy::handle` is the path of one request, with one line for each
//! step. `ARCHITECTURE.md` draws the crates and modules and says which may import which.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// The names under which the modules of this crate know the crates below.
use lamina_base::{breaker, description, pattern, random, telemetry, units};
use lamina_cache as cache;
use lamina_cluster::{bus, cluster};
use lamina_http as http;
use lamina_plugin_host as plugin;

pub mod acme;
pub mod admin;
pub mod app;
pub mod certificate_review;
pub mod config;
pub mod dialects;
mod local_authority;
pub mod origin;
pub mod proxy;
pub mod rate_limit;
mod shared_tickets;
