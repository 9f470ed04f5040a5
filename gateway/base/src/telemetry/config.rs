//! The configuration of logs and metrics, as written in YAML.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most series of one route: for each of seven results a counter and a histogram of fourteen
/// buckets.
pub const SERIES_OF_A_ROUTE: u64 = 126;

/// Logs and metrics.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The form of every line.
    pub log_format: LogFormat,
    /// The lowest level that is written: `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: LogLevel,
    /// One line for each request.
    pub access_log: AccessLog,
    /// The most recent requests, which `GET /v1/requests/recent` and `lamina requests` explain.
    pub recent_requests: RecentRequestsConfig,
    /// The most series of metrics with the name of a route as a label; further routes are counted
    /// under the route `other`.
    pub max_series: u64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::default(),
            log_level: LogLevel::default(),
            access_log: AccessLog::default(),
            recent_requests: RecentRequestsConfig::default(),
            max_series: 20_000,
        }
    }
}

/// How many of the most recent requests are kept in memory; each usually takes at most 4 KiB.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecentRequestsConfig {
    /// The most requests that are kept, at most 10000; 0 keeps none.
    #[schemars(range(max = 10_000))]
    pub keep: usize,
    /// One of this many requests that the first tier answers with a fresh entry is kept; all other
    /// requests are kept.
    #[schemars(range(min = 1))]
    pub one_hit_in: u32,
}

impl Default for RecentRequestsConfig {
    fn default() -> Self {
        Self {
            keep: 256,
            one_hit_in: 100,
        }
    }
}

/// The form of a log line.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The lowest level that is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// One line for each request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    #[default]
    On,
    Off,
}
