//! Logs and the metric registry: the leaf that every module may use.

pub mod config;
pub mod limit;
pub mod logs;
pub mod metrics;
pub mod series;
