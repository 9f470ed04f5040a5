//! What YAML says about the second tier.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};

/// The second tier: where records are kept, and what a call to it may cost.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct L2Config {
    /// A Redis that nodes share.
    pub redis: Option<super::redis::config::RedisTierConfig>,
    /// A database of this node's own.
    pub disk: Option<super::disk::config::DiskTierConfig>,
    /// Life of a record at most; purges are remembered as long.
    pub max_life: ConfigDuration,
    /// Deadline of a read; then it's a miss.
    pub read_timeout: ConfigDuration,
    /// Deadline of a write.
    pub write_timeout: ConfigDuration,
    /// Calls under way at once; a read beyond them is a miss.
    pub max_concurrent: usize,
    /// When calls are not even tried.
    pub breaker: L2BreakerConfig,
    /// Bytes of responses that wait to be written; the oldest beyond them are not.
    pub write_queue: ByteSize,
    /// Compression of records.
    pub compress: RecordCompressionConfig,
    /// A secret that all nodes share. It seals records, purges in Redis's log and leases:
    /// then whoever can write into the store can remove what is there, but forge nothing.
    /// Without it they can forge all of that. Change it together with `redis.prefix`.
    pub seal_key: Option<String>,
    /// A file with that secret.
    pub seal_key_file: Option<PathBuf>,
    /// One load a key among all nodes.
    pub lease: LeaseRules,
}

/// When calls are not even tried.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct L2BreakerConfig {
    /// Failures in a row that open it; 0 is never.
    pub failure_threshold: u32,
    /// How long it stays open before one call tries.
    pub cooldown: ConfigDuration,
}

/// Compression of records.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecordCompressionConfig {
    /// From this size on it's tried, and kept if it saves 15 percent.
    pub min_bytes: ByteSize,
    /// What is written; every form is read.
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

/// One load a key among all nodes that share the store.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseRules {
    /// Off: each node loads for itself.
    pub enabled: bool,
    /// How long a lease holds without renewal; it's renewed after a third of it. Other nodes
    /// measure that themselves, whatever the store says of the lease.
    pub ttl: ConfigDuration,
    /// How long a node waits for another's load.
    pub wait_timeout: ConfigDuration,
    /// What it does then.
    pub on_timeout: OnTimeout,
}

/// What a node does that has waited long enough for another's load.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// Load without a lease.
    #[default]
    Load,
    /// Answer 503, or stale.
    Fail,
}

impl L2Config {
    /// Whether there is a second tier.
    pub fn is_configured(&self) -> bool {
        self.redis.is_some() || self.disk.is_some()
    }
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
