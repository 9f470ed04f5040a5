//! Compiled code that is kept for the next start, in files named by content and engine, in a folder
//! that must belong to the user.
//!
//! All functions here block.

use std::ffi::OsStr;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Length of a SHA-256 digest.
const DIGEST: usize = 32;
/// The file extensions of complete files, and of files that are being written.
const CODE: &str = "cwasm";
const PART: &str = "part";
/// At this age, an unfinished file counts as abandoned.
const LEFT_BEHIND: Duration = Duration::from_secs(3_600);

/// A name made of content and engine, so that neither a changed plugin nor another version of the
/// gateway finds the file.
pub(super) fn file_name(engine: &Engine, wasm: &[u8]) -> String {
    struct ShaHasher(Sha256);
    impl Hasher for ShaHasher {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut sha = ShaHasher(Sha256::new());
    sha.write(wasm);
    engine.precompile_compatibility_hash().hash(&mut sha);
    format!("{:x}.{CODE}", sha.0.finalize())
}

/// Writes digest and code to a temporary file in the same folder and renames it, so that a reader
/// sees all or nothing. Then removes the least recently used files until at most `most` bytes are
/// left.
pub(super) fn store(file: &Path, code: &[u8], most: u64) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let part = part_name(file);
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)?;
    let written = out
        .write_all(&Sha256::digest(code))
        .and_then(|()| out.write_all(code));
    written
        .and_then(|()| fs::rename(&part, file))
        .inspect_err(|_| _ = fs::remove_file(&part))?;
    prune(folder, file, most)
}

/// Removes the least recently used of our files, except `newest`, until at most `most` bytes are
/// left.
fn prune(folder: &Path, newest: &Path, most: u64) -> io::Result<()> {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let (path, about) = match entry.and_then(|e| Ok((e.path(), e.metadata()?))) {
            Ok(found) => found,
            // Another process may remove files at the same time.
            Err(_) => continue,
        };
        let used = about.modified()?;
        let left_behind = || used.elapsed().is_ok_and(|age| age > LEFT_BEHIND);
        match path.extension().and_then(OsStr::to_str) {
            Some(CODE) if about.is_file() => files.push((used, about.len(), path)),
            Some(PART) if about.is_file() && left_behind() => _ = fs::remove_file(path),
            _ => {}
        }
    }
    files.sort_unstable();
    let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, size, path) in files.iter().filter(|(_, _, path)| path != newest) {
        if bytes <= most {
            break;
        }
        if fs::remove_file(path).is_ok() {
            bytes -= size;
        }
    }
    Ok(())
}

fn part_name(file: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    file.with_extension(format!("{}-{n}.{PART}", std::process::id()))
}

/// Loads code that [`store`] wrote. Returns none for code that is not trusted; it is then compiled
/// again.
///
/// The file is opened once, and all checks are made on the opened file: nobody can replace it
/// between the check and the read.
pub(super) fn load(engine: &Engine, file: &Path) -> Option<Component> {
    let mut stored = match OwnFile::open(file) {
        Ok(stored) => stored,
        Err(UntrustedFile::Missing) => return None,
        Err(UntrustedFile::Open(path)) => {
            tracing::warn!(
                file = %file.display(),
                open = %path.display(),
                "kept compiled plugin code is ignored: another user could write or replace it there"
            );
            return None;
        }
    };
    let mut bytes = Vec::new();
    stored.0.read_to_end(&mut bytes).ok()?;
    let (digest, code) = bytes.split_at_checked(DIGEST)?;
    if Sha256::digest(code).as_slice() != digest {
        return None;
    }
    // Marks the file as recently used; if that fails, it may be removed earlier.
    _ = stored.0.set_modified(SystemTime::now());
    deserialize(engine, code).ok()
}

/// Loads code that the compiling process has just returned through its pipe.
pub(super) fn made_by_compiler(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    deserialize(engine, code)
}

/// A file that no other user but root can have written or placed there.
struct OwnFile(fs::File);

/// Why a file is not trusted.
enum UntrustedFile {
    Missing,
    /// Another user may write to this path, or rename what is in it.
    Open(PathBuf),
}

impl OwnFile {
    /// Opens the file without following a link, and checks the file, its folder and every folder
    /// above: a user who may write to one of them could replace what is in it.
    fn open(file: &Path) -> Result<Self, UntrustedFile> {
        let missing = |_| UntrustedFile::Missing;
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut options = fs::OpenOptions::new();
        let opened = options.read(true).custom_flags(no_link).open(file);
        let opened = opened.map_err(missing)?;
        let folder = file.parent().ok_or(UntrustedFile::Missing)?;
        let folder = folder.canonicalize().map_err(missing)?;
        let own =
            |metadata: &fs::Metadata| metadata.uid() == geteuid() && metadata.mode() & 0o077 == 0;
        let metadata = opened.metadata().map_err(missing)?;
        if !(metadata.is_file() && own(&metadata)) {
            return Err(UntrustedFile::Open(file.to_owned()));
        }
        for (depth, above) in folder.ancestors().enumerate() {
            let metadata = fs::metadata(above).map_err(missing)?;
            let is_trusted = match depth {
                0 => own(&metadata),
                _ => is_closed_to_others(&metadata),
            };
            if !is_trusted {
                return Err(UntrustedFile::Open(above.to_owned()));
            }
        }
        Ok(Self(opened))
    }
}

/// Whether only our user and root can replace the content of this folder: it belongs to one of
/// them, and others may not write to it or, because of the sticky bit (as in /tmp), may not rename
/// files of others.
fn is_closed_to_others(folder: &fs::Metadata) -> bool {
    const STICKY: u32 = 0o1000;
    let is_ours = [geteuid(), 0].contains(&folder.uid());
    is_ours && (folder.mode() & 0o022 == 0 || folder.mode() & STICKY != 0)
}

fn geteuid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` requires bytes that `Engine::precompile_component` made. These bytes
    // came through a pipe from a process of this same program that we started for it, or were read
    // from a file of our user, in a folder that only our user may enter and where nobody else could
    // have placed it (`OwnFile`). They are complete (their digest was compared). wasmtime itself
    // refuses code of another version or configuration.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays_when_there_is_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let mut hour = SystemTime::now() - Duration::from_secs(48 * 3_600);
        for name in ["a.cwasm", "b.cwasm", "c.cwasm", "d.part", "other"] {
            fs::write(file(name), [0; 100]).unwrap();
            let open = fs::File::options().write(true).open(file(name)).unwrap();
            open.set_modified(hour).unwrap();
            hour += Duration::from_secs(3_600);
        }
        store(&file("new.cwasm"), &[0; 68], 250).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["c.cwasm", "new.cwasm", "other"]);
        // A file that is larger than the limit is kept alone.
        store(&file("large.cwasm"), &[0; 300], 250).unwrap();
        assert!(file("large.cwasm").exists() && !file("new.cwasm").exists());
    }
}
