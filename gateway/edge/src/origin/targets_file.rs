//! A file with targets, which is read again when it changes. A file that can't be used changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::TargetConfig;
use crate::http::tls::files::{FileStamp, stamp};

/// Reads a list of targets from a file. The error is a message with file, line, and what is expected.
#[derive(Clone)]
pub struct TargetsFileReader(Arc<ReadTargets>);

type ReadTargets = dyn Fn(&Path) -> Result<Vec<TargetConfig>, String> + Send + Sync;

/// A file of targets, as it was seen last.
pub(super) struct TargetsFile {
    path: PathBuf,
    reader: TargetsFileReader,
    seen: Option<FileStamp>,
    /// What it looked like at the last look.
    changing: Option<FileStamp>,
    problem: Option<String>,
}

/// What looking at the file has shown.
pub(super) enum FileChange {
    Nothing,
    /// It has other content, which can be read.
    Targets(Vec<TargetConfig>),
}

impl TargetsFileReader {
    pub fn new(
        read: impl Fn(&Path) -> Result<Vec<TargetConfig>, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(read))
    }
}

/// Reads no file: what is made without one can't have any.
impl Default for TargetsFileReader {
    fn default() -> Self {
        Self::new(|file| {
            Err(format!(
                "{}: nothing here reads files of targets",
                file.display()
            ))
        })
    }
}

impl TargetsFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// Why it can't be used.
    pub(super) fn open(
        path: PathBuf,
        reader: TargetsFileReader,
    ) -> Result<(Self, Vec<TargetConfig>), String> {
        // The stamp comes first: what changes while it is read is seen the next time.
        let seen = stamp(&path).ok();
        let targets = (reader.0)(&path)?;
        let file = Self {
            path,
            reader,
            seen,
            changing: None,
            problem: None,
        };
        Ok((file, targets))
    }

    /// Reads the file if it has changed, and is the same as at the look before: somebody may still be
    /// writing it.
    pub(super) fn look(&mut self) -> FileChange {
        let now = stamp(&self.path).ok();
        let before = std::mem::replace(&mut self.changing, now);
        if now == self.seen || now != before {
            return FileChange::Nothing;
        }
        self.seen = now;
        match (self.reader.0)(&self.path) {
            Ok(targets) => {
                self.problem = None;
                FileChange::Targets(targets)
            }
            Err(problem) => {
                let file = self.path.display();
                tracing::warn!(%file, problem, "the file of targets can't be used; the targets stay as they are");
                self.problem = Some(problem);
                FileChange::Nothing
            }
        }
    }

    /// Notes that the file can be read, but not used.
    pub(super) fn refuse(&mut self, problem: String) {
        self.problem = Some(problem);
    }

    /// Why the file can't be used as it is now.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.clone()
    }
}
