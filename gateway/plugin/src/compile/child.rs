//! The process that compiles: `lamina compile-plugin`, which only a gateway starts. It reads a
//! file's bytes from stdin and writes machine code, or a refusal, to stdout.
//!
//! It limits itself before it reads anything, so that whatever the bytes make the compiler do ends
//! this process and no other.

use std::io::{self, Read, Write};
use std::panic::catch_unwind;

use rustix::process::{Resource, Rlimit, Signal};
use wasmtime::{Engine, Module};
use wit_component::ComponentEncoder;

use super::{CompileRefusal, CompilerAnswer};
use crate::{artifact, bounds, engine};

/// Bytes of address space that a process reserves without using them: for its program, stacks,
/// reservations.
const ADDRESSES: u64 = 4 << 30;
/// Seconds between the signal that a process is out of time and its end.
const GRACE: u64 = 2;

/// The limits of this process.
#[derive(Clone, Copy, Debug)]
pub struct CompileAllowance {
    /// Bytes of memory.
    pub memory: u64,
    /// Seconds of processor time.
    pub seconds: u64,
}

/// Compiles the bytes from stdin.
///
/// # Errors
/// When the process can't be limited, or stdin or stdout fails.
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

/// Compiles, after the checks, within the limits of this process.
pub(super) fn compile(wasm: &[u8]) -> Result<Vec<u8>, CompileRefusal> {
    bounds::check(wasm).map_err(CompileRefusal::OverLimit)?;
    let invalid = |e: wasmtime::Error| CompileRefusal::Invalid(format!("{e:#}"));
    let engine = engine::for_compiling().map_err(invalid)?;
    let component = componentize(&engine, wasm)?;
    // The component that the encoder made of a module may be of any size.
    bounds::check(&component).map_err(CompileRefusal::OverLimit)?;
    engine.precompile_component(&component).map_err(invalid)
}

/// Makes a component of a core module with an embedded component type.
fn componentize<'a>(
    engine: &Engine,
    wasm: &'a [u8],
) -> Result<std::borrow::Cow<'a, [u8]>, CompileRefusal> {
    if !artifact::is_core_module(wasm) {
        return Ok(wasm.into());
    }
    // The encoder does not validate the module.
    Module::validate(engine, wasm).map_err(|e| CompileRefusal::Invalid(format!("{e:#}")))?;
    encode(wasm)
        .map(Into::into)
        .map_err(CompileRefusal::NotAComponent)
}

/// The encoder does not validate the type in the module's custom section either, and panics where
/// it is not in the form that the encoder itself writes.
fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let encode = || {
        let encoder = ComponentEncoder::default().module(module);
        encoder.and_then(|e| e.validate(true).encode())
    };
    match catch_unwind(encode) {
        Ok(component) => component.map_err(|e| format!("{e:#}")),
        Err(_) => Err("its section `component-type` does not describe a world".to_owned()),
    }
}

/// Sets the limits of this process. It also ends with the process that started it, has a lower
/// priority than the processes that serve, and leaves no core file.
fn limit(allowance: CompileAllowance) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Not required: if it is refused, the process competes with equal priority.
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
