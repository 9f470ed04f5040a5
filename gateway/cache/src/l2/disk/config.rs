//! What YAML says about the store on this machine's disk.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};

/// A database file of this node's own: it survives a restart and is shared with nobody.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiskTierConfig {
    /// The file; made when it is missing. Relative to the folder of the YAML.
    pub path: PathBuf,
    /// Bytes of records; the oldest beyond them are removed. The file may grow to twice as much.
    /// A file that was set aside (`PATH.damaged-…`) counts, up to half of it.
    pub max_bytes: ByteSize,
    /// How often what was written is made to survive a crash. Purges are at once.
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
