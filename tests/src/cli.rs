//! Runs `lamina` as a person at a terminal does, to its end.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a command wrote and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Both streams, for looking for a text that may be on either.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The binary under test: `LAMINA_BIN`, else `lamina` beside the running test's target folder.
pub fn binary() -> PathBuf {
    let path = match std::env::var_os("LAMINA_BIN") {
        Some(given) => PathBuf::from(given),
        None => beside_this_program(),
    };
    assert!(
        path.exists(),
        "{} is not there: `cargo build -p lamina` first, or set LAMINA_BIN",
        path.display()
    );
    path
}

/// Runs it with these arguments and waits for its end.
pub fn run(arguments: &[&str]) -> Ran {
    run_with(arguments, &[])
}

/// The same with environment variables.
pub fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let output = Command::new(binary())
        .args(arguments)
        .env("NO_COLOR", "1")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("lamina starts");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether this program was asked for help; then it has told how it is used.
pub fn helped(usage: &str) -> bool {
    let asked = std::env::args().any(|word| word == "--help" || word == "-h");
    if asked {
        println!("usage: {usage}");
    }
    asked
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// `lamina` in the target folder of the running program: `target/debug/deps/e2e-…`
/// and `target/debug/bench` both lead to `target/debug/lamina`. It need not exist.
pub fn beside_this_program() -> PathBuf {
    let this = std::env::current_exe().expect("a running program has a path");
    let folder = this.parent().expect("a file is in a folder");
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    folder.join("lamina")
}
