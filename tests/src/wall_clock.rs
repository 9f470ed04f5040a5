//! A wall clock that is wrong, or is set while a gateway runs: libfaketime's (`faketime` of
//! Debian). The monotonic clock stays true.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::setup::Setup;
use crate::tools;

/// The clock of gateways, which is set while they run.
pub struct WallClock(TempDir);

impl WallClock {
    /// So many seconds before or after the true time.
    pub fn new(offset: i64) -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set(offset);
        clock
    }

    /// Seconds before or after the true time.
    pub fn set(&self, offset: i64) {
        // In one step: the gateway reads it all the time.
        let next = self.0.path().join("next");
        std::fs::write(&next, format!("{offset:+}\n")).unwrap();
        std::fs::rename(next, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("offset")
    }

    /// The setup of a gateway that goes by this clock.
    pub fn of(&self, setup: &Setup, library: &Path) -> Setup {
        setup
            .clone()
            .variable("LD_PRELOAD", library.to_str().unwrap())
            .variable("FAKETIME_TIMESTAMP_FILE", self.file().to_str().unwrap())
            .variable("FAKETIME_NO_CACHE", "1")
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .variable("DONT_FAKE_MONOTONIC", "1")
    }
}

/// The library, where Debian has it; None where it is not installed.
pub fn library() -> Option<PathBuf> {
    let name = "faketime/libfaketimeMT.so.1";
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let found = folders
        .map(|folder| folder.unwrap().path().join(name))
        .find(|path| path.exists());
    if found.is_none() {
        tools::is_missing("libfaketime", "a wall clock that is set");
    }
    found
}
