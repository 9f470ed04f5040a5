//! The errors of loading a plugin and of calling it.

use std::fmt;
use std::path::PathBuf;

use super::Hook;
use super::bounds::OverLimit;
use crate::units::{ByteSize, ConfigDuration};

/// Why a plugin was not loaded. The gateway keeps the version that it had.
#[derive(Debug, thiserror::Error)]
#[error("plugin `{plugin}`: {cause}")]
pub struct LoadError {
    /// The plugin's name in the YAML.
    pub plugin: String,
    /// What is wrong with it.
    pub cause: PluginFault,
}

/// What is wrong with a plugin.
#[derive(Debug, thiserror::Error)]
pub enum PluginFault {
    #[error("can't read {}: {error}", file.display())]
    Unreadable {
        file: PathBuf,
        error: std::io::Error,
    },
    #[error("{} is {bytes} bytes; at most {limit} are accepted", file.display())]
    TooLarge {
        file: PathBuf,
        bytes: u64,
        limit: u64,
    },
    #[error("not a WebAssembly file: it does not begin with `\\0asm`")]
    NotWasm,
    #[error("the core module can't be made a component: {0}. Was it built against the WIT package `{package}`?", package = super::contract::PACKAGE)]
    NotAComponent(String),
    #[error("the code is not valid: {0}")]
    Compile(String),
    #[error("{0}")]
    OverLimit(OverLimit),
    #[error("its types are nested deeper than they can be read")]
    TooDeep,
    #[error("compiling it takes more than {0} of processor time (`plugins.compile.time`)")]
    CompileTime(ConfigDuration),
    #[error("compiling it takes more than {0} of memory (`plugins.compile.memory`)")]
    CompileMemory(ByteSize),
    #[error("it can't be compiled: {0}")]
    Compiler(String),
    #[error("another file replaced it while it was compiled")]
    Superseded,
    #[error("it imports `{0}`, which does not exist; known are {known}", known = super::contract::known_imports())]
    UnknownImport(String),
    #[error(
        "it imports `{0}`: plugins get WASI only with `wasi: minimal` in the YAML, which is meant \
         for languages whose runtime needs it"
    )]
    Wasi(String),
    #[error("`{0}` is not of contract version {version}", version = super::contract::VERSION)]
    UnknownVersion(String),
    #[error("it imports `{fetch}`, but its `fetch` names no upstream in the YAML", fetch = super::contract::FETCH)]
    FetchNotGranted,
    #[error("it imports `{import}`, which the YAML does not grant; add `grant: [{name}]`", name = super::contract::short(import))]
    NotGranted { import: &'static str },
    #[error("it is {what}, not a plugin: {instead}")]
    Foreign {
        what: &'static str,
        instead: &'static str,
    },
    #[error("it does not export `{0}`")]
    MissingExport(String),
    #[error("`{interface}` does not have the types of the contract: {reason}")]
    WrongType { interface: String, reason: String },
    #[error("it failed while it was started: {0}")]
    Start(CallError),
    #[error("its `describe` failed: {0}")]
    Describe(CallError),
    #[error("it refuses its configuration: {0}")]
    Config(String),
    #[error("its manifest is not valid: {0}")]
    Manifest(String),
    #[error("a route uses it as `{0}`, which it does not export")]
    MissingHook(Hook),
    #[error("the WebAssembly engine can't be set up: {0}")]
    Engine(String),
}

/// Why one call gave no answer. The instance was dropped; the next call gets a fresh one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The guest trapped: `unreachable`, a panic, exhausted stack, and so on.
    #[error("trap: {reason}")]
    Trap { reason: String },
    /// The guest used up its time for this hook, or for its start.
    #[error("deadline exceeded{}", time_limit(*.0))]
    Timeout(Option<Hook>),
    /// The guest wanted more memory or larger tables than its limits allow.
    #[error("out of memory: it asked for {asked} where {limit} are allowed ({room})")]
    OutOfMemory {
        asked: usize,
        limit: usize,
        room: ExceededResource,
    },
    /// All instances are busy.
    #[error("all instances are busy (`limits.max_concurrent`)")]
    Overloaded,
    /// The instances of all plugins hold as much memory as they may.
    #[error(
        "the instances of all plugins together already hold the allowed memory: {0} \
         (`plugins.max_total_memory`)"
    )]
    TotalMemory(ByteSize),
    /// The guest called an import that this hook may not use.
    #[error("it called `{import}`, which this hook is not allowed to use")]
    Refused { import: &'static str },
    /// The guest answered something that the contract does not allow.
    #[error("the answer is not valid: {what}")]
    Invalid { what: String },
    /// It failed too often and is set aside.
    #[error("it is in quarantine")]
    Quarantined,
}

/// The resource of which a guest wanted too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExceededResource {
    /// Bytes of linear memory.
    Memory,
    /// Elements of a table.
    Table,
}

impl fmt::Display for ExceededResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "bytes, `limits.max_memory`",
            Self::Table => "elements of a table, a limit that no key sets",
        })
    }
}

/// The configuration key of the time limit of a call; a start has a fixed limit of half a second,
/// and no key.
fn time_limit(hook: Option<Hook>) -> &'static str {
    match hook {
        None => "",
        Some(Hook::Key) => " (`limits.key_timeout`)",
        Some(Hook::Load) => " (`limits.load_timeout`)",
        Some(Hook::Request | Hook::Response) => " (`limits.hook_timeout`)",
    }
}

/// [`CallError`] without its details, for metrics and for decisions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallErrorKind {
    Trap,
    Timeout,
    OutOfMemory,
    Overloaded,
    Refused,
    Invalid,
    Quarantined,
}

impl CallError {
    /// The kind of failure.
    pub fn kind(&self) -> CallErrorKind {
        match self {
            Self::Trap { .. } => CallErrorKind::Trap,
            Self::Timeout(_) => CallErrorKind::Timeout,
            Self::OutOfMemory { .. } => CallErrorKind::OutOfMemory,
            Self::Overloaded | Self::TotalMemory(_) => CallErrorKind::Overloaded,
            Self::Refused { .. } => CallErrorKind::Refused,
            Self::Invalid { .. } => CallErrorKind::Invalid,
            Self::Quarantined => CallErrorKind::Quarantined,
        }
    }

    /// Whether the plugin itself failed. It did not if it was busy or set aside, or if the memory
    /// for all plugins was used up.
    pub(super) fn is_its_fault(&self) -> bool {
        !matches!(
            self,
            Self::Overloaded | Self::TotalMemory(_) | Self::Quarantined
        )
    }

    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
}

impl CallErrorKind {
    /// Every kind, in the order of its index.
    pub const ALL: [Self; 7] = [
        Self::Trap,
        Self::Timeout,
        Self::OutOfMemory,
        Self::Overloaded,
        Self::Refused,
        Self::Invalid,
        Self::Quarantined,
    ];

    /// The value of the label `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::OutOfMemory => "out_of_memory",
            Self::Overloaded => "overloaded",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Quarantined => "quarantined",
        }
    }
}
