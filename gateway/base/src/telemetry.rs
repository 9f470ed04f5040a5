//! Logs and the metric registry, which every module may use.

pub mod config;
pub mod limit;
pub mod logs;
pub mod metrics;
pub mod series;
