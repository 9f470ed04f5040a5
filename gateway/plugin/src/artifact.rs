//! From a file to code that can be called: the file is read within bounds, and its code is taken
//! from earlier compilations ([`kept_code`]) or compiled in a process of its own
//! ([`compile`](super::compile)).
//!
//! To compile takes from 35 ms to some seconds; to load compiled code takes 0.25 ms.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compile::Compiler;
use super::error::PluginFault;
use super::kept_code;

/// The largest file in bytes that is accepted as a plugin.
const MAX_FILE: u64 = 64 << 20;
/// How every WebAssembly file begins.
const MAGIC: &[u8] = b"\0asm";
/// What follows the magic in a core module; a component has another layer number.
const CORE_VERSION: &[u8] = &[1, 0, 0, 0];

/// Reads a plugin's file. Refuses a file that is not WebAssembly or too large.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, PluginFault> {
    let unreadable = |error| PluginFault::Unreadable {
        file: file.to_owned(),
        error,
    };
    let source = fs::File::open(file).map_err(unreadable)?;
    let bytes = source.metadata().map_err(unreadable)?.len();
    if bytes > MAX_FILE {
        return Err(PluginFault::TooLarge {
            file: file.to_owned(),
            bytes,
            limit: MAX_FILE,
        });
    }
    let mut wasm = Vec::new();
    // Bounded again: the file may grow, or may not be an ordinary file.
    source
        .take(MAX_FILE)
        .read_to_end(&mut wasm)
        .map_err(unreadable)?;
    if wasm.starts_with(MAGIC) {
        Ok(wasm)
    } else {
        Err(PluginFault::NotWasm)
    }
}

/// Compiles a file, or takes its compiled code from the cache. Dropping the future ends the
/// compiling process.
pub(super) async fn compile(
    engine: &Engine,
    compiler: &Compiler,
    wasm: &Arc<[u8]>,
    cache: Option<&Path>,
) -> Result<Component, PluginFault> {
    let stored = cache.map(|folder| folder.join(kept_code::file_name(engine, wasm)));
    if let Some(file) = stored.clone() {
        let engine = engine.clone();
        let kept = blocking(move || Ok(kept_code::load(&engine, &file))).await?;
        if let Some(component) = kept {
            return Ok(component);
        }
    }
    let code = compiler.compile(Arc::clone(wasm)).await?;
    let (engine, kept) = (engine.clone(), compiler.kept());
    blocking(move || {
        if let Some(file) = stored {
            // The cache is a convenience; without it the next start takes longer.
            if let Err(error) = kept_code::store(&file, &code, kept) {
                tracing::warn!(
                    %error,
                    file = %file.display(),
                    "compiled plugin code could not be kept for the next start"
                );
            }
        }
        kept_code::made_by_compiler(&engine, &code)
            .map_err(|e| PluginFault::Compiler(format!("its code does not load: {e:#}")))
    })
    .await
}

/// Runs blocking work on a thread where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PluginFault> + Send + 'static,
) -> Result<T, PluginFault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(PluginFault::Engine(e.to_string())))
}

/// Whether this is a core module, which must first be made a component.
pub(super) fn is_core_module(wasm: &[u8]) -> bool {
    wasm.get(MAGIC.len()..MAGIC.len() + CORE_VERSION.len()) == Some(CORE_VERSION)
}

/// SHA-256 of a file's content, in hex.
pub(super) fn digest(wasm: &[u8]) -> String {
    format!("{:x}", Sha256::digest(wasm))
}
