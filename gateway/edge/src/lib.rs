//! The gateway itself: configuration in, running gateway out.
//!
//! Start reading at [`proxy`]: `Proxy::handle` is the path of one request, one
//! line a step. `ARCHITECTURE.md` draws the crates and modules and who may import whom.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// The names under which the modules of this crate know the crates below.
use lamina_base::{pattern, telemetry, units};
use lamina_cache as cache;
use lamina_cluster::{bus, cluster};
use lamina_http as http;
use lamina_plugin_host as plugin;

pub mod admin;
pub mod app;
pub mod config;
pub mod origin;
pub mod proxy;
