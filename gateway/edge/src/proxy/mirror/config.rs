//! The configuration of copies of requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// Copies of requests for a second upstream; their answers are read and dropped. Copies have `X-Lamina-Mirror: 1`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// The name of the upstream that gets the copies.
    pub upstream: String,
    /// Which requests are copied.
    #[serde(default)]
    pub of: MirroredRequests,
    /// How many of a hundred requests are copied.
    #[serde(default = "all")]
    pub percent: u8,
    /// The most bytes of a request body that are copied, of any method; 0: only GET and HEAD without a body are copied.
    #[serde(default = "none")]
    pub body: ByteSize,
    /// The most copies under way at the same time; further ones are dropped and counted.
    #[serde(default = "max_in_flight")]
    pub max_in_flight: u32,
}

/// Which requests are copied.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MirroredRequests {
    /// Those that go to the origin.
    #[default]
    Origin,
    /// All that the rules of the route let in, one copy of each, also if the cache answers them.
    All,
}

fn all() -> u8 {
    100
}

fn none() -> ByteSize {
    ByteSize(0)
}

fn max_in_flight() -> u32 {
    64
}
