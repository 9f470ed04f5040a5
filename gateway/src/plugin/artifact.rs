//! From a file to compiled code: read within bounds, make a core module a component,
//! compile, and keep the machine code for the next start.
//!
//! Compiling takes from 35 ms to some seconds, loading what was compiled 0.25 ms.
//! All of this blocks; [`super::Plugins::load`] keeps it off the async threads.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};
use wit_component::ComponentEncoder;

use super::error::Cause;

/// The largest file that is taken for a plugin.
const MAX_FILE: u64 = 64 << 20;
/// How every WebAssembly file begins.
const MAGIC: &[u8] = b"\0asm";
/// What follows the magic in a core module; a component has another layer number.
const CORE_VERSION: &[u8] = &[1, 0, 0, 0];
/// Length of a SHA-256 digest.
const DIGEST: usize = 32;

/// Reads a plugin's file; what is not WebAssembly, or too large, is refused unread.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Cause> {
    let unreadable = |error| Cause::Unreadable {
        file: file.to_owned(),
        error,
    };
    let source = fs::File::open(file).map_err(unreadable)?;
    let bytes = source.metadata().map_err(unreadable)?.len();
    if bytes > MAX_FILE {
        return Err(Cause::TooLarge {
            file: file.to_owned(),
            bytes,
            limit: MAX_FILE,
        });
    }
    let mut wasm = Vec::new();
    // Bounded again: the file may grow, or be no ordinary file.
    source
        .take(MAX_FILE)
        .read_to_end(&mut wasm)
        .map_err(unreadable)?;
    if wasm.starts_with(MAGIC) {
        Ok(wasm)
    } else {
        Err(Cause::NotWasm)
    }
}

/// Compiles, or takes from the cache what was compiled before.
pub(super) fn compile(
    engine: &Engine,
    wasm: &[u8],
    cache: Option<&Path>,
) -> Result<Component, Cause> {
    let stored = cache.map(|folder| folder.join(file_name(engine, wasm)));
    if let Some(component) = stored.as_deref().and_then(|file| load(engine, file)) {
        return Ok(component);
    }
    let component = compile_now(engine, &componentize(engine, wasm)?)?;
    if let (Some(folder), Some(file)) = (cache, stored) {
        // The cache is a convenience; without it the next start takes longer.
        if let Err(error) = store(folder, &file, &component) {
            tracing::warn!(%error, folder = %folder.display(), "can't keep compiled plugin code");
        }
    }
    Ok(component)
}

/// Whether it is a core module, which is yet to be made a component.
pub(super) fn is_core_module(wasm: &[u8]) -> bool {
    wasm.get(MAGIC.len()..MAGIC.len() + CORE_VERSION.len()) == Some(CORE_VERSION)
}

/// SHA-256 of a file's content, in hex.
pub(super) fn digest(wasm: &[u8]) -> String {
    format!("{:x}", Sha256::digest(wasm))
}

fn compile_now(engine: &Engine, component: &[u8]) -> Result<Component, Cause> {
    Component::from_binary(engine, component).map_err(|e| Cause::Compile(format!("{e:#}")))
}

/// Makes a core module with an embedded component type a component.
fn componentize<'a>(engine: &Engine, wasm: &'a [u8]) -> Result<std::borrow::Cow<'a, [u8]>, Cause> {
    if !is_core_module(wasm) {
        return Ok(wasm.into());
    }
    // The encoder takes a module at its word.
    Module::validate(engine, wasm).map_err(|e| Cause::Compile(format!("{e:#}")))?;
    encode(wasm).map(Into::into).map_err(Cause::NotAComponent)
}

/// The encoder takes the type in the module's custom section at its word, too, and panics
/// where that is not of the form that it writes itself.
fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let encode = || {
        let encoder = ComponentEncoder::default().module(module);
        encoder.and_then(|e| e.validate(true).encode())
    };
    match catch_unwind(encode) {
        Ok(component) => component.map_err(|e| format!("{e:#}")),
        Err(_) => Err("its section `component-type` describes no world".to_owned()),
    }
}

/// Names content and engine, so that neither a changed plugin nor another version of
/// the gateway finds the file.
fn file_name(engine: &Engine, wasm: &[u8]) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut sha = Sha(Sha256::new());
    sha.write(wasm);
    engine.precompile_compatibility_hash().hash(&mut sha);
    format!("{:x}.cwasm", sha.0.finalize())
}

/// Writes digest and code beside the final name, then renames: a reader sees all or
/// nothing.
fn store(folder: &Path, file: &Path, component: &Component) -> std::io::Result<()> {
    let code = component.serialize().map_err(std::io::Error::other)?;
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
        .write_all(&Sha256::digest(&code))
        .and_then(|()| out.write_all(&code));
    written
        .and_then(|()| fs::rename(&part, file))
        .inspect_err(|_| _ = fs::remove_file(&part))
}

fn part_name(file: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    file.with_extension(format!("{}-{n}.part", std::process::id()))
}

/// Loads code that [`store`] wrote; anything doubtful is compiled anew instead.
///
/// The file is opened once, and everything is asked of what was opened: nobody can put
/// another file in its place between the check and the read.
fn load(engine: &Engine, file: &Path) -> Option<Component> {
    let mut stored = match OwnFile::open(file) {
        Ok(stored) => stored,
        Err(Distrust::Missing) => return None,
        Err(Distrust::Open(path)) => {
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
    deserialize(engine, code)
}

/// A file that no other user but root can have written or put in place.
struct OwnFile(fs::File);

/// Why a file is not taken for our own.
enum Distrust {
    Missing,
    /// Another user may write this, or rename what is in it.
    Open(PathBuf),
}

impl OwnFile {
    /// Opens the file without following a link, and checks it, its folder and every folder
    /// above: whoever may write into one of them could replace what lies below.
    fn open(file: &Path) -> Result<Self, Distrust> {
        let missing = |_| Distrust::Missing;
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut options = fs::OpenOptions::new();
        let opened = options.read(true).custom_flags(no_link).open(file);
        let opened = opened.map_err(missing)?;
        let folder = file.parent().ok_or(Distrust::Missing)?;
        let folder = folder.canonicalize().map_err(missing)?;
        let own =
            |metadata: &fs::Metadata| metadata.uid() == geteuid() && metadata.mode() & 0o077 == 0;
        let metadata = opened.metadata().map_err(missing)?;
        if !(metadata.is_file() && own(&metadata)) {
            return Err(Distrust::Open(file.to_owned()));
        }
        for (depth, above) in folder.ancestors().enumerate() {
            let metadata = fs::metadata(above).map_err(missing)?;
            let is_trusted = match depth {
                0 => own(&metadata),
                _ => is_closed_to_others(&metadata),
            };
            if !is_trusted {
                return Err(Distrust::Open(above.to_owned()));
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
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `deserialize` asks for bytes that `Component::serialize` made. These were read
    // from a file of our user, in a folder that only our user may enter and nobody else
    // could have put there (`OwnFile`), are whole (their digest was compared), and wasmtime
    // itself refuses those of another version or configuration.
    unsafe { Component::deserialize(engine, code) }.ok()
}
