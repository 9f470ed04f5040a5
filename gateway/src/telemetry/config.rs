//! What YAML says about logs and metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Logs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The form of every line.
    pub log_format: LogFormat,
    /// The least level that is written: `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: LogLevel,
    /// One line for each request.
    pub access_log: AccessLog,
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

/// The least level that is written.
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
