//! Named upstreams: choose a target, send, keep deadlines.

pub mod config;
