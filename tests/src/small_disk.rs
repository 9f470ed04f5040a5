//! A file system of a few MiB, to be filled to its last byte.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::tools;

/// Mounted until this is dropped.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// None on a machine that does not let us mount one.
    pub fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted = run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "lamina-test"],
            dir.path(),
        );
        if !mounted {
            tools::is_missing("the right to mount", "a disk that is full");
            return None;
        }
        Some(Self(dir))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut options = OpenOptions::new();
        let mut filler = options
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        for size in [1 << 20, 4096, 1] {
            while takes(&mut filler, size) {}
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    /// From now on nothing can be written.
    pub fn make_read_only(&self) {
        assert!(run("mount", &["-o", "remount,ro"], self.path()));
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process of the test may have a file open there.
        run("umount", &["-l"], self.0.path());
    }
}

fn takes(file: &mut File, size: usize) -> bool {
    match file.write_all(&vec![b'x'; size]) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::StorageFull => false,
        Err(error) => panic!("the disk is not full, but: {error}"),
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let status = Command::new(program).args(arguments).arg(path).status();
    status.is_ok_and(|status| status.success())
}
