//! The configuration of pages that are put together from fragments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// Pages of this route are put together from fragments (Edge Side Includes), each of which is stored by itself. Requests for pages lose their preconditions and ranges, and the origin is told `Surrogate-Capability: lamina="ESI/1.0"`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EsiConfig {
    /// Which answers are read for includes.
    pub pages: EsiPages,
    /// How deep fragments may lie in fragments; what lies deeper counts as failed.
    pub depth: u8,
    /// The most fragments of one page, those in fragments included; further ones count as failed.
    pub includes: u32,
    /// The most bytes of a page with all its fragments; a larger one is answered with 502, or breaks off.
    pub max_bytes: ByteSize,
}

/// Which answers are read for includes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EsiPages {
    /// Those whose `Surrogate-Control` says `content="ESI/1.0"`.
    #[default]
    Declared,
    /// Also all others whose type is a text or XML.
    All,
}

impl Default for EsiConfig {
    fn default() -> Self {
        Self {
            pages: EsiPages::default(),
            depth: 3,
            includes: 64,
            max_bytes: ByteSize(10 << 20),
        }
    }
}
