//! The part of the YAML configuration for the store on this machine's disk.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};

/// A database file of this node: it survives a restart and is not shared.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiskTierConfig {
    /// The file; it is created if it is missing. Relative to the folder of the YAML file.
    pub path: PathBuf,
    /// The largest size of the records in bytes; beyond it the oldest are removed. The file may
    /// grow to twice as much. A file that was set aside (`PATH.damaged-…`) counts, up to half of
    /// this size.
    pub max_bytes: ByteSize,
    /// How often written records are made durable. Purges are durable at once.
    pub sync_interval: ConfigDuration,
}

impl Default for DiskTierConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("lamina.l2"),
            max_bytes: ByteSize::mib(1_024),
            sync_interval: ConfigDuration::secs(1),
        }
    }
}
