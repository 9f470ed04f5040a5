//! What the configurations of several rules have in common.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most bytes of a file with an answer of ours.
pub const MOST_OF_A_FILE: u64 = 1 << 20;

/// A file whose content is an answer of ours; relative to the configuration file. It is read at the start and at each reload; at most 1 MiB.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(from = "PathBuf", into = "PathBuf")]
#[schemars(with = "PathBuf")]
pub struct AnswerFile {
    pub path: PathBuf,
    /// What it held when the configuration was read.
    pub content: Vec<u8>,
}

impl From<PathBuf> for AnswerFile {
    fn from(path: PathBuf) -> Self {
        Self {
            path,
            content: Vec::new(),
        }
    }
}

impl From<AnswerFile> for PathBuf {
    fn from(file: AnswerFile) -> Self {
        file.path
    }
}
