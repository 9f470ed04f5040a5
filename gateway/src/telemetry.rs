//! Events, logs and metrics.

pub mod config;
