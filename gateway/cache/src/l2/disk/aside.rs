//! Files that were set aside because they were damaged or not ours. The newest one is kept for
//! inspection, and its size counts towards the limit of the tier.

use std::io;
use std::path::{Path, PathBuf};

use super::clock::millis;
use super::file::beside;
use crate::record::ClockReading;

/// The first bytes of redb's files.
const MAGIC: &[u8] = b"redb";

/// Renames the database, and removes the file that was set aside before.
pub(super) fn set_aside(path: &Path, reason: &str) -> io::Result<()> {
    let what = match is_a_database(path) {
        true => "is damaged",
        false => "is not a database of this program",
    };
    let kept = beside(
        path,
        &format!(".damaged-{}", millis(ClockReading::now().wall)),
    );
    std::fs::rename(path, &kept)?;
    for older in all(path).into_iter().filter(|older| *older != kept) {
        std::fs::remove_file(older)?;
    }
    tracing::warn!(
        file = %path.display(),
        kept = %kept.display(),
        bytes = bytes(path),
        reason,
        "the second tier's file {what}; it was set aside, in place of any earlier one, and a new \
         file was begun; the old file counts towards max_bytes until you remove it"
    );
    Ok(())
}

/// The size of the files that were set aside.
pub(super) fn bytes(path: &Path) -> u64 {
    let sizes = all(path).into_iter();
    let sizes = sizes.filter_map(|file| std::fs::metadata(file).ok());
    sizes.map(|metadata| metadata.len()).sum()
}

fn all(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|at| !at.as_os_str().is_empty());
    let Some(name) = path.file_name() else {
        return Vec::new();
    };
    let begin = [name.as_encoded_bytes(), b".damaged-"].concat();
    let is_ours = |file: &PathBuf| {
        let rest = file.file_name().map(|name| name.as_encoded_bytes());
        let rest = rest.and_then(|name| name.strip_prefix(&*begin));
        rest.is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit))
    };
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
    let files = entries.into_iter().flatten().flatten();
    files.map(|entry| entry.path()).filter(is_ours).collect()
}

fn is_a_database(path: &Path) -> bool {
    use std::io::Read;
    let mut begin = [0; MAGIC.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == MAGIC
}
