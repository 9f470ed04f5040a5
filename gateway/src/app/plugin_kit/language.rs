//! The languages that plugins are written in: how a project of each is known, and which
//! tools it needs.

use std::path::Path;
use std::process::{Command, Stdio};

use clap::ValueEnum;

/// A language with a template.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Language {
    Rust,
    Js,
    Python,
    C,
    Zig,
}

impl Language {
    /// The folder of its template.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
            Self::C => "c",
            Self::Zig => "zig",
        }
    }

    /// Whose project a folder is, by the files there.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let has = |name: &str| folder.join(name).is_file();
        let any = |ending: &str| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut paths = entries.map(|entry| entry.path());
            paths.any(|path| path.extension().is_some_and(|found| found == ending))
        };
        let marks = [
            (has("Cargo.toml"), Self::Rust),
            (has("package.json"), Self::Js),
            (
                any("py") && (has("requirements.txt") || has("pyproject.toml")),
                Self::Python,
            ),
            (has("build.zig") || any("zig"), Self::Zig),
            (any("c"), Self::C),
        ];
        let found = marks.into_iter().find(|(is_it, _)| *is_it);
        found.map(|(_, language)| language)
    }

    /// What is missing to build with, and how to get it; nothing when all is there.
    pub(super) fn missing(self) -> Option<&'static str> {
        let instead = |variable: &str| std::env::var_os(variable).is_some();
        match self {
            Self::Rust if !runs("cargo", &["--version"]) => {
                Some("cargo is not there: install Rust from https://rustup.rs")
            }
            Self::Rust if !has_wasm_target() => Some(
                "Rust's target wasm32-unknown-unknown is not there: rustup target add wasm32-unknown-unknown",
            ),
            Self::Js if !runs("npm", &["--version"]) => Some(
                "npm is not there: install Node.js 22 or later, https://nodejs.org (Debian: apt-get install nodejs npm)",
            ),
            Self::Python if !runs("python3", &["--version"]) => Some(
                "python3 is not there: install Python 3.10 or later (Debian: apt-get install python3 python3-venv)",
            ),
            Self::C if !instead("CC") && !runs("clang", &["--version"]) => Some(
                "clang is not there: apt-get install clang lld; or pip install ziglang and CC='python3 -m ziglang cc --target=wasm32-freestanding'",
            ),
            Self::C if !instead("CC") && !runs("wasm-ld", &["--version"]) => {
                Some("wasm-ld, clang's linker for WebAssembly, is not there: apt-get install lld")
            }
            Self::Zig if !instead("ZIG") && !runs("zig", &["version"]) => Some(
                "zig is not there: install it from https://ziglang.org; or pip install ziglang and ZIG='python3 -m ziglang'",
            ),
            _ => None,
        }
    }
}

/// Whether a program is there and answers.
fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn has_wasm_target() -> bool {
    let told = Command::new("rustc")
        .args([
            "--print",
            "target-libdir",
            "--target",
            "wasm32-unknown-unknown",
        ])
        .output();
    told.is_ok_and(|told| Path::new(String::from_utf8_lossy(&told.stdout).trim()).is_dir())
}
