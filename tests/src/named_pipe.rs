//! A named pipe in place of a file, in which nobody writes.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, Mode, mkfifoat};

/// Puts one there, in place of what is there.
pub fn put(at: &Path) {
    let _ = fs::remove_file(at);
    mkfifoat(CWD, at, Mode::RUSR | Mode::WUSR).expect("a pipe can be made");
}
