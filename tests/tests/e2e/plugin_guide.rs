//! plugin-sdk/GUIDE.md, followed word for word by a person with an empty folder: every command
//! is run, every change is made, every output that the guide shows is compared.
//!
//! One shell a person, which is given block after block. Where a language's tool is not there,
//! the test says so and passes; in CI (`CI` is set) all must be there.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use e2e::cli::{binary, repository};
use e2e::wait::wait_until;
use tempfile::TempDir;

/// The address in the guide, which tests that run side by side can't all have, and the ports
/// where origin and gateway listen.
const ADDRESS: &str = "127.0.0.1:";
const PORTS: [u16; 2] = [8081, 8090];
/// What the shell says when it is through with a block.
const THROUGH: &str = "---- through";
/// For one block. Some install tools, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(600);
/// For the gateway, which compiles the plugin.
const START: Duration = Duration::from_secs(120);

#[test]
fn the_guide_leads_to_a_key_plugin_in_javascript() {
    if has("npm --version") {
        follow(&["JavaScript", "A case for the change", "In the gateway"]);
    }
}

#[test]
fn the_guide_leads_to_a_key_plugin_in_python() {
    if has("python3 -c 'import ensurepip'") {
        follow(&["Python", "A case for the change", "In the gateway"]);
    }
}

#[test]
fn the_guide_leads_to_a_key_plugin_in_rust() {
    let target = "test -d \"$(rustc --print target-libdir --target wasm32-unknown-unknown)\"";
    if has(&format!("{target} || test -d /usr/src/rustc-web")) {
        follow(&["Rust", "A case for the change", "In the gateway"]);
    }
}

#[test]
fn the_guide_leads_to_a_loader_in_python() {
    if has("python3 -c 'import ensurepip'") {
        follow(&["A loader"]);
    }
}

/// Whether a tool is there.
fn has(command: &str) -> bool {
    let mut shell = Command::new("sh");
    let quiet = shell.args(["-c", command]).stdout(Stdio::null());
    let has = quiet.status().is_ok_and(|status| status.success());
    if !has {
        e2e::tools::is_missing(command, "a chapter of the guide");
    }
    has
}

/// Follows these sections in an empty folder.
fn follow(sections: &[&str]) {
    let mut person = Person::new();
    let mut said = Vec::new();
    let blocks = blocks(sections);
    let shown = blocks.iter().filter(|block| block.kind == "console");
    assert!(shown.count() > 0, "nothing is compared in {sections:?}");
    for block in blocks {
        match block.kind.split_whitespace().collect::<Vec<_>>()[..] {
            ["sh"] => said = person.runs(&block.text),
            ["diff", file] => person.changes(file, &block.text),
            ["yaml", ">", file] => person.writes(file, &block.text),
            ["yaml", ">>", file] => {
                let before = std::fs::read_to_string(person.file(file)).unwrap();
                person.writes(file, &(before + &block.text));
            }
            ["console"] => shows(&block.text, &said),
            _ => panic!("a block of a kind that nobody follows: {:?}", block.kind),
        }
    }
}

/// A fenced block: what stands behind its fence, and its text.
struct Block {
    kind: String,
    text: String,
}

/// The blocks of sections, which are known by their headings.
fn blocks(sections: &[&str]) -> Vec<Block> {
    let guide = std::fs::read_to_string(repository().join("plugin-sdk/GUIDE.md")).unwrap();
    let mut found = Vec::new();
    for section in sections {
        let mut lines = guide.lines();
        let is_it = |line: &str| line.starts_with('#') && line.trim_matches(['#', ' ']) == *section;
        assert!(lines.any(is_it), "the guide has no section {section:?}");
        while let Some(line) = lines.next().filter(|line| !line.starts_with('#')) {
            if let Some(kind) = line.strip_prefix("```") {
                let text = lines.by_ref().take_while(|line| *line != "```");
                found.push(Block {
                    kind: kind.to_owned(),
                    text: text.map(|line| format!("{line}\n")).collect(),
                });
            }
        }
    }
    found
}

/// Every line of `wanted` was said, in this order. A lifetime may have begun to run.
fn shows(wanted: &str, said: &[String]) {
    let mut rest = said.iter().map(|line| without_ttl(line));
    for line in wanted.lines() {
        let line = without_ttl(line);
        assert!(rest.any(|said| said == line), "{line:?} in {said:#?}");
    }
}

fn without_ttl(line: &str) -> String {
    match line.split_once("ttl=") {
        Some((before, ttl)) if ttl.bytes().all(|byte| byte.is_ascii_digit()) => before.to_owned(),
        _ => line.to_owned(),
    }
}

/// Somebody at a terminal.
struct Person {
    home: TempDir,
    shell: Child,
    lines: Receiver<String>,
    /// In the place of [`ADDRESS`]: another part of the loopback network for each person, whose
    /// ports nobody takes between two blocks.
    address: String,
}

impl Person {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let errors = std::fs::File::create(home.path().join("stderr")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let lamina = binary().canonicalize().unwrap();
        let mut shell = Command::new("bash")
            .env(
                "PATH",
                format!("{}:{path}", lamina.parent().unwrap().display()),
            )
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
        static PERSONS: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        let number = PERSONS.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.{}.{low}.{number}:", 64 + high % 64);
        let mut person = Self {
            home,
            shell,
            lines,
            address,
        };
        person.runs("set -eo pipefail\ntrap 'kill $(jobs -p) || true' EXIT\n");
        person
    }

    /// Runs a block; what it said. When it starts a gateway, waits for that.
    fn runs(&mut self, text: &str) -> Vec<String> {
        let text = self.at_home(text);
        let mut stdin = self.shell.stdin.as_ref().unwrap();
        // Where the shell is gone, it has said why.
        let _ = write!(
            stdin,
            "{text}pwd > '{}/cwd'\necho '{THROUGH}'\n",
            self.home.path().display()
        );
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line == THROUGH => break,
                Ok(line) => said.push(line),
                Err(why) => panic!("{text}\n{why}; it said {said:#?}\n{}", self.errors()),
            }
        }
        if text.contains("lamina run") {
            self.waits();
        }
        said
    }

    /// Until origin and gateway are there.
    fn waits(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let listens = |port| TcpStream::connect(format!("{}{port}", self.address)).is_ok();
        let are_there = || PORTS.into_iter().all(listens);
        runtime
            .unwrap()
            .block_on(wait_until("both listen", START, are_there));
    }

    fn writes(&self, file: &str, text: &str) {
        std::fs::write(self.file(file), self.at_home(text)).unwrap();
    }

    /// Puts the lines with `+` in the place of those with `-`, which stand there once.
    fn changes(&self, file: &str, diff: &str) {
        let lines = |sign: char| -> String {
            let lines = diff.lines().filter_map(|line| line.strip_prefix(sign));
            lines.map(|line| format!("{line}\n")).collect()
        };
        let text = std::fs::read_to_string(self.file(file)).unwrap();
        let (old, new) = (lines('-'), lines('+'));
        assert_eq!(text.matches(&old).count(), 1, "{old:?} in {file}:\n{text}");
        self.writes(file, &text.replace(&old, &new));
    }

    /// A file of the folder in which the shell is.
    fn file(&self, name: &str) -> std::path::PathBuf {
        let folder = std::fs::read_to_string(self.home.path().join("cwd")).unwrap();
        Path::new(folder.trim_end()).join(name)
    }

    fn at_home(&self, text: &str) -> String {
        let origin = format!("lamina demo-origin --listen {}{}", self.address, PORTS[0]);
        let text = text.replace(ADDRESS, &self.address);
        text.replace("lamina demo-origin", &origin)
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Person {
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
