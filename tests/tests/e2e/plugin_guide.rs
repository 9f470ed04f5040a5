//! plugin-sdk/GUIDE.md, followed word for word by a person with an empty folder: every command
//! is run, every change is made, every output that the guide shows is compared.
//!
//! One shell a person, which is given block after block. Where a language's tool is not there,
//! the test says so and passes; in CI (`CI` is set) all must be there.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::cli::repository;
use e2e::terminal::ReaderTerminal;
use e2e::wait::wait_until;

/// The ports of the guide, where origin and gateway listen.
const PORTS: [u16; 2] = [8081, 8090];
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
    let mut person = GuideReader::new();
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
                let before = std::fs::read_to_string(person.terminal.file(file)).unwrap();
                person.writes(file, &(before + &block.text));
            }
            ["console"] => shows(&block.text, &said),
            _ => panic!("a block of a kind that nobody follows: {:?}", block.kind),
        }
    }
}

/// A fenced block: what stands behind its fence, and its text.
struct GuideBlock {
    kind: String,
    text: String,
}

/// The blocks of sections, which are known by their headings.
fn blocks(sections: &[&str]) -> Vec<GuideBlock> {
    let guide = std::fs::read_to_string(repository().join("plugin-sdk/GUIDE.md")).unwrap();
    let mut found = Vec::new();
    for section in sections {
        let mut lines = guide.lines();
        let is_it = |line: &str| line.starts_with('#') && line.trim_matches(['#', ' ']) == *section;
        assert!(lines.any(is_it), "the guide has no section {section:?}");
        while let Some(line) = lines.next().filter(|line| !line.starts_with('#')) {
            if let Some(kind) = line.strip_prefix("```") {
                let text = lines.by_ref().take_while(|line| *line != "```");
                found.push(GuideBlock {
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

/// Somebody who follows the guide.
struct GuideReader {
    terminal: ReaderTerminal,
}

impl GuideReader {
    fn new() -> Self {
        let mut terminal = ReaderTerminal::open();
        terminal.types("set -e");
        Self { terminal }
    }

    /// Runs a block; what it said. When it starts a gateway, waits for that.
    fn runs(&mut self, text: &str) -> Vec<String> {
        let text = self.at_home(text);
        let outcome = self.terminal.types(&text);
        let said = outcome.said;
        let errors = self.terminal.errors();
        assert_eq!(outcome.code, Some(0), "{text}\nIt said {said:#?}\n{errors}");
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
        let address = self.terminal.address();
        let listens = |port| TcpStream::connect((address, port)).is_ok();
        let are_there = || PORTS.into_iter().all(listens);
        runtime
            .unwrap()
            .block_on(wait_until("both listen", START, are_there));
    }

    fn writes(&self, file: &str, text: &str) {
        std::fs::write(self.terminal.file(file), self.at_home(text)).unwrap();
    }

    /// Puts the lines with `+` in the place of those with `-`, which stand there once.
    fn changes(&self, file: &str, diff: &str) {
        let lines = |sign: char| -> String {
            let lines = diff.lines().filter_map(|line| line.strip_prefix(sign));
            lines.map(|line| format!("{line}\n")).collect()
        };
        let text = std::fs::read_to_string(self.terminal.file(file)).unwrap();
        let (old, new) = (lines('-'), lines('+'));
        assert_eq!(text.matches(&old).count(), 1, "{old:?} in {file}:\n{text}");
        self.writes(file, &text.replace(&old, &new));
    }

    fn at_home(&self, text: &str) -> String {
        let address = self.terminal.address();
        let origin = format!("lamina demo-origin --listen {address}:{}", PORTS[0]);
        let text = text.replace("127.0.0.1:", &format!("{address}:"));
        text.replace("lamina demo-origin", &origin)
    }
}
