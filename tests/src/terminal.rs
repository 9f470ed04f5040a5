//! A person at a terminal, in a folder of their own: one shell, which is given line after line.
//!
//! Documents name fixed ports of `127.0.0.1`, which tests that run side by side can't all have. So
//! each terminal has an address of its own in the loopback network, where it has all ports.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

use crate::cli::binary;

/// What the shell says when it is through with what it was given; the exit code follows.
const THROUGH: &str = "---- through ";
/// For all that is typed at once. Some commands install tools, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(600);

/// Somebody at a terminal, with `lamina` in the `PATH`.
pub struct ReaderTerminal {
    home: TempDir,
    shell: Child,
    lines: Receiver<String>,
    address: String,
}

/// What a person saw of a command.
#[derive(Debug)]
pub struct TypedOutcome {
    pub said: Vec<String>,
    /// `None` if the shell is not through with it.
    pub code: Option<i32>,
}

impl ReaderTerminal {
    /// Opens one, in an empty folder.
    ///
    /// # Panics
    /// If there is no bash.
    pub fn open() -> Self {
        let home = tempfile::tempdir().unwrap();
        let errors = File::create(home.path().join("stderr")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let lamina = binary().canonicalize().unwrap();
        let folder = lamina.parent().unwrap().display();
        let mut shell = Command::new("bash")
            .env("PATH", format!("{folder}:{path}"))
            .env("NO_COLOR", "1")
            .env_remove("CARGO_TARGET_DIR")
            .current_dir(home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(shell.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let _ = stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line));
        });
        let mut terminal = Self {
            home,
            shell,
            lines,
            address: own_address(),
        };
        terminal.types("set -o pipefail\ntrap 'kill $(jobs -p) || true' EXIT\n");
        terminal
    }

    /// Its address in the loopback network.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder that it was opened in.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A file of the folder in which the shell is now.
    ///
    /// # Panics
    /// If nothing was typed yet.
    pub fn file(&self, name: &str) -> PathBuf {
        let folder = fs::read_to_string(self.home.path().join("cwd")).unwrap();
        Path::new(folder.trim_end()).join(name)
    }

    /// Types lines, waits until the shell is through with them, and reads what it said. There is no
    /// code if that takes too long, or if the shell ends.
    ///
    /// # Panics
    /// If the shell takes no more input.
    pub fn types(&mut self, text: &str) -> TypedOutcome {
        let mut stdin = self.shell.stdin.as_ref().unwrap();
        // Where the shell is gone, it has said why.
        let _ = write!(
            stdin,
            "{text}\nCODE=$?; pwd > '{}/cwd'; printf '\\n{THROUGH}%s\\n' \"$CODE\"\n",
            self.home.path().display()
        );
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => match line.strip_prefix(THROUGH) {
                    Some(code) => {
                        let code = code.parse().ok();
                        // What was said may end without a line feed, so one was put behind it.
                        if said.last().is_some_and(String::is_empty) {
                            said.pop();
                        }
                        return TypedOutcome { said, code };
                    }
                    None => said.push(line),
                },
                Err(_) => return TypedOutcome { said, code: None },
            }
        }
    }

    /// What was said on standard error so far.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default()
    }
}

/// Another part of the loopback network for each terminal.
fn own_address() -> String {
    static OPENED: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let number = OPENED.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{low}.{number}", 64 + high % 64)
}

impl Drop for ReaderTerminal {
    fn drop(&mut self) {
        // The shell ends with its input, and takes its jobs with it.
        drop(self.shell.stdin.take());
        if std::thread::panicking() {
            // It may be in a command that never ends.
            let _ = self.shell.kill();
        }
        let _ = self.shell.wait();
    }
}
