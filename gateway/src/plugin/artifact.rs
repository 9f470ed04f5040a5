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
fn load(engine: &Engine, file: &Path) -> Option<Component> {
    let folder = fs::metadata(file.parent()?).ok()?;
    let ours = rustix::process::geteuid().as_raw();
    if folder.uid() != ours || folder.mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "compiled plugin code is ignored: others may write or read its folder");
        return None;
    }
    let stored = fs::read(file).ok()?;
    let (digest, code) = stored.split_at_checked(DIGEST)?;
    if Sha256::digest(code).as_slice() != digest {
        return None;
    }
    deserialize(engine, code)
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `deserialize` asks for bytes that `Component::serialize` made. These lie
    // in a folder that only our user may enter, are whole (their digest was compared),
    // and wasmtime itself refuses those of another version or configuration.
    unsafe { Component::deserialize(engine, code) }.ok()
}
