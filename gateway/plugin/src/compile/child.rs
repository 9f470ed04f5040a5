//! The process that compiles: `lamina compile-plugin`, which a gateway starts and nobody
//! else. It takes a file's bytes on stdin and gives machine code, or a refusal, on stdout.
//!
//! It limits itself before it reads anything, so that whatever the bytes make of the
//! compiler ends this process and no other.

use std::io::{self, Read, Write};
use std::panic::catch_unwind;

use rustix::process::{Resource, Rlimit, Signal};
use wasmtime::{Engine, Module};
use wit_component::ComponentEncoder;

use super::{CompileRefusal, CompilerAnswer};
use crate::{artifact, bounds, engine};

/// Addresses that a process takes without using them: its program, stacks, reservations.
const ADDRESSES: u64 = 4 << 30;
/// Seconds from the signal that a process is out of time to its end.
const GRACE: u64 = 2;

/// What this process may take.
#[derive(Clone, Copy, Debug)]
pub struct CompileAllowance {
    /// Bytes of memory.
    pub memory: u64,
    /// Seconds of processor time.
    pub seconds: u64,
}

/// Compiles what comes on stdin.
///
/// # Errors
/// When the process can't be limited, or nobody gives or takes.
pub fn run(allowance: CompileAllowance) -> io::Result<()> {
    limit(allowance)?;
    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm)?;
    let answer = compile(&wasm);
    let mut out = io::stdout().lock();
    match answer {
        Ok(code) => {
            out.write_all(&[CompilerAnswer::CODE])?;
            out.write_all(&code)?;
        }
        Err(refusal) => {
            out.write_all(&[CompilerAnswer::REFUSAL])?;
            serde_json::to_writer(&mut out, &refusal)?;
        }
    }
    out.flush()
}

/// The compiler and its inputs, within the limits of this process.
pub(super) fn compile(wasm: &[u8]) -> Result<Vec<u8>, CompileRefusal> {
    bounds::check(wasm).map_err(CompileRefusal::OverLimit)?;
    let invalid = |e: wasmtime::Error| CompileRefusal::Invalid(format!("{e:#}"));
    let engine = engine::for_compiling().map_err(invalid)?;
    let component = componentize(&engine, wasm)?;
    // What the encoder made of a module is as large as the encoder likes.
    bounds::check(&component).map_err(CompileRefusal::OverLimit)?;
    engine.precompile_component(&component).map_err(invalid)
}

/// Makes a core module with an embedded component type a component.
fn componentize<'a>(
    engine: &Engine,
    wasm: &'a [u8],
) -> Result<std::borrow::Cow<'a, [u8]>, CompileRefusal> {
    if !artifact::is_core_module(wasm) {
        return Ok(wasm.into());
    }
    // The encoder takes a module at its word.
    Module::validate(engine, wasm).map_err(|e| CompileRefusal::Invalid(format!("{e:#}")))?;
    encode(wasm)
        .map(Into::into)
        .map_err(CompileRefusal::NotAComponent)
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

/// It ends with the process that started it, gives way to those that serve, and leaves no
/// core file.
fn limit(allowance: CompileAllowance) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A courtesy: if it is refused, it competes on equal terms.
    _ = rustix::process::nice(10);
    let hard = |limit: u64| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    rustix::process::setrlimit(Resource::Core, hard(0))?;
    rustix::process::setrlimit(Resource::Data, hard(allowance.memory))?;
    let addresses = allowance.memory.saturating_add(ADDRESSES);
    rustix::process::setrlimit(Resource::As, hard(addresses))?;
    let seconds = Rlimit {
        current: Some(allowance.seconds),
        maximum: Some(allowance.seconds + GRACE),
    };
    rustix::process::setrlimit(Resource::Cpu, seconds)?;
    Ok(())
}
