//! The part of the YAML configuration for what a restart begins with.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};

/// What a restart begins with: the keys that were asked for most often, and what is stored for them.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmConfig {
    /// The file of the hottest keys, of this process alone. Relative to the folder of the YAML
    /// file. It is written regularly and at the end of the process.
    pub file: PathBuf,
    /// The largest number of keys in it.
    pub keys: usize,
    /// The longest time that the start waits for the warm-up before it reports ready.
    #[serde(rename = "for")]
    pub at_most: ConfigDuration,
    /// How often the file is written.
    pub every: ConfigDuration,
    /// How large the responses may be, in bytes, that the file holds when the process ends in an
    /// orderly way. Unset: it holds keys alone, and the second tier has the responses.
    pub snapshot: Option<ByteSize>,
    /// Whether what is stored nowhere is loaded from the origins during the warm-up.
    pub origins: bool,
    /// The largest number of such loads that begin in a second.
    pub origin_rate: u32,
}

impl Default for WarmConfig {
    fn default() -> Self {
        Self {
            file: PathBuf::from("lamina.hot"),
            keys: 10_000,
            at_most: ConfigDuration::secs(10),
            every: ConfigDuration::secs(300),
            snapshot: None,
            origins: false,
            origin_rate: 50,
        }
    }
}
