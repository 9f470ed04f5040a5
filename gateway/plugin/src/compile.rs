//! Compiling in a process of its own: whatever a file makes the compiler do (take too much time or
//! memory, or crash) ends that process and nothing else. The process can be ended at any moment.
//!
//! The process runs this same program (`lamina compile-plugin`, see [`child`]). It gets the file's
//! bytes and an empty environment but for two settings, and returns machine code.

pub mod child;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

use super::bounds::OverLimit;
use super::config::CompileConfig;
use super::error::PluginFault;

/// The subcommand of this program that compiles.
pub const SUBCOMMAND: &str = "compile-plugin";
/// This program, even after its file on the disk was replaced.
const SELF: &str = "/proc/self/exe";
/// The most bytes of machine code of one plugin.
const MAX_CODE: u64 = 512 << 20;
/// Bytes of the process's stderr that are kept.
const MAX_SAID: u64 = 16 << 10;
/// How many times its processor time the process may take by the clock: others run as well.
const PATIENCE: u32 = 10;
/// The pause between two checks whether the process has ended, after its output has ended.
const LOOK: Duration = Duration::from_millis(2);
/// What the process prints when it gets no more memory: by Rust's allocator, by system calls, and
/// by the compiler's threads, whose stacks need memory as well.
const NO_MEMORY: [&str; 4] = [
    "memory allocation of",
    "allocate memory",
    "out of memory",
    "thread pool has not been initialized",
];
/// The most threads of one process.
const THREADS: usize = 4;

/// Where plugins are compiled.
pub struct Compiler {
    place: CompilePlace,
    limits: CompileConfig,
    /// Limits how many processes run at once.
    turns: Semaphore,
}

enum CompilePlace {
    /// In a process of this program.
    Child,
    /// In this process, without limits: for programs that are not `lamina`, like tests of the
    /// library and benchmarks.
    Here,
}

/// The form of the process's answer: one byte, then code or a refusal.
struct CompilerAnswer;

impl CompilerAnswer {
    const CODE: u8 = b'c';
    const REFUSAL: u8 = b'r';
}

/// What is wrong with a file.
#[derive(Debug, Serialize, Deserialize)]
enum CompileRefusal {
    OverLimit(OverLimit),
    NotAComponent(String),
    Invalid(String),
}

impl From<CompileRefusal> for PluginFault {
    fn from(refusal: CompileRefusal) -> Self {
        match refusal {
            CompileRefusal::OverLimit(over) => Self::OverLimit(over),
            CompileRefusal::NotAComponent(why) => Self::NotAComponent(why),
            CompileRefusal::Invalid(why) => Self::Compile(why),
        }
    }
}

impl Compiler {
    /// The limits of compiling.
    pub(super) fn limits(&self) -> &CompileConfig {
        &self.limits
    }

    /// Compiles in processes of this program, within these limits.
    pub fn of_this_program(limits: CompileConfig) -> Self {
        Self::at(CompilePlace::Child, limits)
    }

    /// Compiles on the caller's threads, without limits of time and memory.
    pub fn here() -> Self {
        Self::at(CompilePlace::Here, CompileConfig::default())
    }

    fn at(place: CompilePlace, limits: CompileConfig) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            place,
            limits,
            turns: Semaphore::new(cores.clamp(2, 8)),
        }
    }

    /// The most bytes of compiled code that are kept between starts.
    pub(super) fn kept(&self) -> u64 {
        self.limits.kept_code.0
    }

    /// Compiles a file to machine code. Dropping the future ends the process.
    pub(super) async fn compile(&self, wasm: Arc<[u8]>) -> Result<Vec<u8>, PluginFault> {
        match self.place {
            CompilePlace::Here => {
                let made = tokio::task::spawn_blocking(move || child::compile(&wasm)).await;
                let made = made.map_err(|e| PluginFault::Compiler(e.to_string()))?;
                made.map_err(Into::into)
            }
            CompilePlace::Child => {
                let _turn = self.turns.acquire().await;
                let patience = self.limits.time.0 * PATIENCE;
                let made = tokio::time::timeout(patience, self.in_child(&wasm)).await;
                made.unwrap_or(Err(PluginFault::CompileTime(self.limits.time)))
            }
        }
    }

    async fn in_child(&self, wasm: &[u8]) -> Result<Vec<u8>, PluginFault> {
        let failed = |e: io::Error| PluginFault::Compiler(e.to_string());
        let (mut process, [stdin, stdout, stderr]) = self.spawn().map_err(failed)?;
        let give = async {
            let mut stdin = pipe::Sender::from_owned_fd(stdin)?;
            // An error is ignored: a process that ends before it has read all reports why by other
            // means.
            _ = stdin.write_all(wasm).await;
            Ok(())
        };
        let stdout = async { read(pipe::Receiver::from_owned_fd(stdout)?, MAX_CODE).await };
        let stderr = async { read(pipe::Receiver::from_owned_fd(stderr)?, MAX_SAID).await };
        let done = async { tokio::try_join!(give, stdout, stderr) };
        let ((), answer, said) = done.await.map_err(failed)?;
        let status = process.ended().await.map_err(failed)?;
        match answer.split_first() {
            Some((&CompilerAnswer::CODE, code)) if status.success() => Ok(code.to_vec()),
            Some((&CompilerAnswer::REFUSAL, refusal)) if status.success() => {
                let refusal: CompileRefusal = serde_json::from_slice(refusal).map_err(|e| {
                    PluginFault::Compiler(format!(
                        "the answer of the compiling process can't be read: {e}"
                    ))
                })?;
                Err(refusal.into())
            }
            _ => Err(self.why(status, &String::from_utf8_lossy(&said))),
        }
    }

    fn spawn(&self) -> io::Result<(CompilerProcess, [OwnedFd; 3])> {
        let mut child = Command::new(SELF)
            .arg0("lamina")
            .arg(SUBCOMMAND)
            .arg(self.limits.memory.0.to_string())
            .arg(self.limits.time.0.as_secs().max(1).to_string())
            .env_clear()
            // Memory is reserved without being committed, because committed memory counts.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .env("RAYON_NUM_THREADS", threads().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("the compiling process has no pipes");
        let ends = [
            child.stdin.take().ok_or_else(missing)?.into(),
            child.stdout.take().ok_or_else(missing)?.into(),
            child.stderr.take().ok_or_else(missing)?.into(),
        ];
        Ok((CompilerProcess(Some(child)), ends))
    }

    /// Why the process ended.
    fn why(&self, status: ExitStatus, said: &str) -> PluginFault {
        // The signal numbers of x86, Arm and RISC-V.
        const KILLED: i32 = 9;
        const OUT_OF_TIME: i32 = 24;
        let memory = PluginFault::CompileMemory(self.limits.memory);
        match status.signal() {
            Some(OUT_OF_TIME) => PluginFault::CompileTime(self.limits.time),
            // By the system, which is out of memory.
            Some(KILLED) => memory,
            _ if NO_MEMORY.iter().any(|words| said.contains(words)) => memory,
            _ if said.contains("overflowed its stack") => PluginFault::TooDeep,
            _ => PluginFault::Compiler(format!(
                "the compiling process ended with {status}: {}",
                super::log_text::one_line(said.trim(), 200)
            )),
        }
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| usize::from(cores).min(THREADS))
}

async fn read(pipe: impl AsyncRead + Unpin, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut bounded = pipe.take(limit);
    bounded.read_to_end(&mut bytes).await?;
    // Reads the rest without keeping it, so that the process is not blocked.
    let mut pipe = bounded.into_inner();
    let mut rest = [0; 4096];
    let mut over = false;
    while pipe.read(&mut rest).await? > 0 {
        over = true;
    }
    match over && limit == MAX_CODE {
        true => Err(io::Error::other(format!(
            "more than {MAX_CODE} bytes of code"
        ))),
        false => Ok(bytes),
    }
}

/// The compiling process; dropping this ends it.
struct CompilerProcess(Option<Child>);

impl CompilerProcess {
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            let child = self.0.as_mut();
            let child = child.ok_or_else(|| io::Error::other("the process has ended"))?;
            if let Some(status) = child.try_wait()? {
                self.0 = None;
                return Ok(status);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for CompilerProcess {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        if child.kill().is_ok() {
            // Freeing its memory may take a while.
            std::thread::spawn(move || _ = child.wait());
        }
    }
}
