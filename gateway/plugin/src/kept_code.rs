//! Compiled code that is kept for the next start, named by content and engine, in a folder
//! that must be the user's own.
//!
//! All of this blocks.

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
/// How the names of files of ours end, whole ones and those that are being written.
const CODE: &str = "cwasm";
const PART: &str = "part";
/// Age at which nobody writes a file any more that was not finished.
const LEFT_BEHIND: Duration = Duration::from_secs(3_600);

/// Names content and engine, so that neither a changed plugin nor another version of
/// the gateway finds the file.
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

/// Writes digest and code beside the final name, then renames: a reader sees all or
/// nothing. Then what was not used for the longest time goes, until `most` bytes are left.
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

/// Removes the files of ours that were last used the longest time ago, but for `newest`.
fn prune(folder: &Path, newest: &Path, most: u64) -> io::Result<()> {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let (path, about) = match entry.and_then(|e| Ok((e.path(), e.metadata()?))) {
            Ok(found) => found,
            // Another process removes as well.
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

/// Loads code that [`store`] wrote; anything doubtful is compiled anew instead.
///
/// The file is opened once, and everything is asked of what was opened: nobody can put
/// another file in its place between the check and the read.
pub(super) fn load(engine: &Engine, file: &Path) -> Option<Component> {
    let mut stored = match OwnFile::open(file) {
        Ok(stored) => stored,
        Err(UntrustedFile::Missing) => return None,
        Err(UntrustedFile::Open(path)) => {
            tracing::warn!(
                file = %file.display(),
                open = %path.display(),
                "compiled plugin code is ignored: another user may write or replace it there"
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
    // What is used stays when others have to go; where the time can't be set it may go.
    _ = stored.0.set_modified(SystemTime::now());
    deserialize(engine, code).ok()
}

/// Loads code that the compiling process gave over its pipe just now.
pub(super) fn made_by_compiler(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    deserialize(engine, code)
}

/// A file that no other user but root can have written or put in place.
struct OwnFile(fs::File);

/// Why a file is not taken for our own.
enum UntrustedFile {
    Missing,
    /// Another user may write this, or rename what is in it.
    Open(PathBuf),
}

impl OwnFile {
    /// Opens the file without following a link, and checks it, its folder and every folder
    /// above: whoever may write into one of them could replace what lies below.
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

/// Whether only our user and root can replace what is in this folder: it belongs to one of
/// them, and others may not write into it or, with the sticky bit (as in /tmp), may not
/// rename what is not theirs.
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
    // SAFETY: `deserialize` asks for bytes that `Engine::precompile_component` made. These
    // came over a pipe from a process of this very program that we started for it, or were
    // read from a file of our user, in a folder that only our user may enter and nobody else
    // could have put there (`OwnFile`), are whole (their digest was compared); and wasmtime
    // itself refuses those of another version or configuration.
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
        // What is larger than all that may be kept is kept alone.
        store(&file("large.cwasm"), &[0; 300], 250).unwrap();
        assert!(file("large.cwasm").exists() && !file("new.cwasm").exists());
    }
}
