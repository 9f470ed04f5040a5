//! What a failed call means: converts wasmtime's errors to [`CallError`].

use wasmtime::{Trap, WasmBacktrace};

use super::Hook;
use super::error::CallError;
use super::meter::InstanceMemory;

/// The error of a failed call of this hook; none: of the start.
pub(super) fn explain(
    memory: &InstanceMemory,
    hook: Option<Hook>,
    error: &wasmtime::Error,
) -> CallError {
    if let Some(exceeded) = &memory.exceeded {
        return exceeded.clone();
    }
    if error.is::<TimedOut>() {
        return CallError::Timeout(hook);
    }
    if let Some(NotAllowed(import)) = error.downcast_ref() {
        return CallError::Refused { import };
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return CallError::Overloaded;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => CallError::Timeout(hook),
        Some(trap) => CallError::Trap {
            reason: format!("{trap}{}", code_location(error)),
        },
        // Not a trap: what the guest passed to the host could not be read.
        None => CallError::invalid(error.root_cause().to_string()),
    }
}

/// ` in NAME`, where NAME is the function that trapped, if the module names its functions.
fn code_location(error: &wasmtime::Error) -> String {
    let frames = error
        .downcast_ref::<WasmBacktrace>()
        .map_or(&[][..], WasmBacktrace::frames);
    frames
        .iter()
        .find_map(|frame| frame.func_name())
        .map_or(String::new(), |name| format!(" in `{name}`"))
}

/// Stops a guest whose time is up.
#[derive(Debug, thiserror::Error)]
#[error("deadline exceeded")]
pub(super) struct TimedOut;

/// Stops a guest that calls an import which its hook may not use.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` must not be called in this hook")]
pub(super) struct NotAllowed(pub(super) &'static str);
