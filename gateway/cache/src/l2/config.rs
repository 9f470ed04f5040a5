//! The second tier's part of the YAML configuration.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};

/// The second tier: where records are kept, and the limits of calls to it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct L2Config {
    /// A Redis that nodes share.
    pub redis: Option<super::redis::config::RedisTierConfig>,
    /// A database on this node's disk.
    pub disk: Option<super::disk::config::DiskTierConfig>,
    /// The longest life of a record. Purges are remembered for the same time.
    pub max_life: ConfigDuration,
    /// Deadline of a read; after it the read counts as a miss.
    pub read_timeout: ConfigDuration,
    /// Deadline of a write.
    pub write_timeout: ConfigDuration,
    /// The largest number of calls under way; a further read is a miss.
    pub max_concurrent: usize,
    /// The circuit breaker: when no calls are made.
    pub breaker: L2BreakerConfig,
    /// The largest size of the responses that wait to be written, in bytes. Beyond it, the oldest
    /// are not written.
    pub write_queue: ByteSize,
    /// Compression of records.
    pub compress: RecordCompressionConfig,
    /// A secret that all nodes share. It seals records, purges in Redis's log, and leases: whoever
    /// can write to the store can then remove what is there, but forge nothing. Without the secret,
    /// all of that can be forged. Change it together with `redis.prefix`.
    pub seal_key: Option<String>,
    /// A file that contains the secret.
    pub seal_key_file: Option<PathBuf>,
    /// Leases: only one of all nodes loads a key at a time.
    pub lease: LeaseRules,
}

/// The circuit breaker: when no calls are made.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct L2BreakerConfig {
    /// The number of failures in a row that open it; 0 means never.
    pub failure_threshold: u32,
    /// How long it stays open before one call is tried.
    pub cooldown: ConfigDuration,
}

/// Compression of records.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecordCompressionConfig {
    /// From this size on compression is tried; the result is kept if it saves 15 percent.
    pub min_bytes: ByteSize,
    /// The form in which records are written; every form is read.
    pub codec: RecordCodec,
}

/// How large records are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordCodec {
    None,
    #[default]
    Gzip,
    Zstd,
}

/// Leases: only one of all nodes that share the store loads a key at a time.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseRules {
    /// Off: each node loads by itself.
    pub enabled: bool,
    /// How long a lease is valid without renewal; it is renewed after a third of this time. Other
    /// nodes measure the time themselves, whatever the store says about the lease.
    pub ttl: ConfigDuration,
    /// How long a node waits for another node's load.
    pub wait_timeout: ConfigDuration,
    /// What it does after that.
    pub on_timeout: OnTimeout,
}

/// What a node does after it has waited long enough for another node's load.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// Load without a lease.
    #[default]
    Load,
    /// Answer with 503, or with a stale copy.
    Fail,
}

impl Default for L2Config {
    fn default() -> Self {
        Self {
            redis: None,
            disk: None,
            max_life: ConfigDuration::secs(86_400),
            read_timeout: ConfigDuration::millis(50),
            write_timeout: ConfigDuration::millis(200),
            max_concurrent: 64,
            breaker: L2BreakerConfig::default(),
            write_queue: ByteSize::mib(32),
            compress: RecordCompressionConfig::default(),
            seal_key: None,
            seal_key_file: None,
            lease: LeaseRules::default(),
        }
    }
}

impl Default for L2BreakerConfig {
    fn default() -> Self {
        Self {
            failure_threshold: 3,
            cooldown: ConfigDuration::secs(30),
        }
    }
}

impl Default for RecordCompressionConfig {
    fn default() -> Self {
        Self {
            min_bytes: ByteSize::kib(64),
            codec: RecordCodec::Gzip,
        }
    }
}

impl Default for LeaseRules {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: ConfigDuration::secs(10),
            wait_timeout: ConfigDuration::secs(10),
            on_timeout: OnTimeout::Load,
        }
    }
}
