//! The configuration of compression.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// Which answers are compressed for clients that take it. A stored answer is compressed once for each encoding, behind the answers, and the origin is asked with one fixed `Accept-Encoding`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompressConfig {
    /// In order of preference, where a client likes them equally; `[]` is off.
    pub encodings: Vec<CompressEncoding>,
    /// Smaller bodies are not compressed.
    pub min_bytes: ByteSize,
    /// Content types that are compressed; `*` matches any number of characters.
    pub types: Vec<String>,
    /// What the origin is asked for, whatever clients take.
    pub origin: OriginEncoding,
    /// How well, and so how slowly, each encoding is made.
    pub levels: CompressLevels,
    /// Whether answers that are not stored are compressed, too, while they pass by (zstd and gzip). Where they hold a secret and what an attacker sent, their length may tell the secret (BREACH).
    pub passes: bool,
    /// An answer of this length, or of one that nobody knows yet, is compressed for the client whose request loads it while it arrives, quickly (zstd or gzip at level 1); unset: that client gets it as the origin sent it. Later clients get what is made behind the answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_min: Option<ByteSize>,
    /// Encodings that are made once more, better, for what is asked for a lot. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot: Option<HotLevels>,
}

/// The levels at which encodings are made once more, for stored answers of at most 4 MiB. The first form stays beside the better one, and both count against `cache.l1.max_bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HotLevels {
    /// 1 to 12; unset: gzip is not made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gzip: Option<u8>,
    /// 0 to 11; unset: brotli is not made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub br: Option<u8>,
    /// 1 to 19; unset: zstd is not made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zstd: Option<u8>,
    /// How often a stored answer must have been given with that encoding.
    #[serde(default = "a_hundred")]
    pub after_hits: u32,
}

fn a_hundred() -> u32 {
    100
}

/// An encoding that is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressEncoding {
    Br,
    Zstd,
    Gzip,
}

/// What the origin is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OriginEncoding {
    /// `Accept-Encoding: gzip`: fewer bytes on the way; undone for clients that do not take it.
    #[default]
    Gzip,
    /// `Accept-Encoding: identity`: all encodings are made here.
    Identity,
    /// The client's own `Accept-Encoding`; if the origin's answer varies by it, each text of it has an entry of its own.
    Keep,
}

/// How well, and so how slowly, each encoding is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompressLevels {
    /// 1 to 12.
    pub gzip: u8,
    /// 0 to 11.
    pub br: u8,
    /// 1 to 19.
    pub zstd: u8,
}

impl Default for CompressConfig {
    fn default() -> Self {
        use CompressEncoding::{Br, Gzip, Zstd};
        Self {
            encodings: vec![Br, Zstd, Gzip],
            min_bytes: ByteSize::kib(1),
            types: TYPES.map(str::to_owned).to_vec(),
            origin: OriginEncoding::default(),
            levels: CompressLevels::default(),
            passes: false,
            stream_min: None,
            hot: None,
        }
    }
}

impl Default for CompressLevels {
    fn default() -> Self {
        Self {
            gzip: 6,
            br: 5,
            zstd: 3,
        }
    }
}

/// The types that are compressed unless others are given.
const TYPES: [&str; 8] = [
    "text/*",
    "application/json",
    "application/javascript",
    "application/*+json",
    "application/*+xml",
    "image/svg+xml",
    "application/wasm",
    "font/ttf",
];
