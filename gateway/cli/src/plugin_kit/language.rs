//! The languages in which plugins are written: how a project of each is recognized, and which tools
//! it needs.

use std::path::Path;
use std::process::{Command, Stdio};

use clap::ValueEnum;

/// A language with a template.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TemplateLanguage {
    Rust,
    Js,
    Python,
    C,
    Zig,
}

impl TemplateLanguage {
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

    /// The replacements for placeholders in templates.
    pub(super) fn words(self) -> [(&'static str, &'static str); 3] {
        let (language, tools, tests) = match self {
            Self::Rust => (
                "Rust",
                "Rust 1.95 and its target wasm32-unknown-unknown",
                "`cargo test` runs its own tests, without a gateway.",
            ),
            Self::Js => (
                "JavaScript",
                "Node.js 20 or later with npm",
                "`npm test` runs its own tests, without a gateway.",
            ),
            Self::Python => (
                "Python",
                "Python 3.10 or later",
                "`python3 -m unittest` runs its own tests, without a gateway.",
            ),
            Self::C => (
                "C",
                "clang and wasm-ld, or with Zig",
                "`build.sh` says how Zig is found.",
            ),
            Self::Zig => ("Zig", "Zig 0.17", "`build.sh` says how it is found."),
        };
        [("language", language), ("tools", tools), ("tests", tests)]
    }

    /// The language of the project in a folder, recognized by its files.
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

    /// What is missing for a build, and how to get it. None if nothing is missing.
    pub(super) fn missing(self) -> Option<&'static str> {
        let instead = |variable: &str| std::env::var_os(variable).is_some();
        let has_python = || runs("python3", &["--version"]);
        let has_zig = || instead("ZIG") || runs("zig", &["version"]) || has_python();
        match self {
            Self::Rust if !runs("cargo", &["--version"]) => {
                Some("cargo was not found: install Rust 1.95 or later from https://rustup.rs")
            }
            Self::Rust if !has_wasm_target() => Some(
                "Rust's target wasm32-unknown-unknown was not found: rustup target add \
                 wasm32-unknown-unknown (Debian without rustup: apt-get install rustc-web \
                 cargo-web rust-web-src lld-19)",
            ),
            Self::Js if !runs("npm", &["--version"]) => Some(
                "npm was not found: install Node.js 20 or later from https://nodejs.org (Debian: \
                 apt-get install nodejs npm)",
            ),
            Self::Python if !has_python() => Some(
                "python3 was not found: install Python 3.10 or later (Debian: apt-get install \
                 python3 python3-venv)",
            ),
            Self::C if !instead("CC") && !has_clang() && !has_zig() => Some(
                "no C compiler for WebAssembly was found: apt-get install clang lld; or install \
                 Python 3 (Debian: apt-get install python3 python3-venv), and the build takes \
                 Zig's from PyPI",
            ),
            Self::Zig if !has_zig() => Some(
                "zig was not found: install Zig 0.17 from https://ziglang.org; or install Python \
                 3 (Debian: apt-get install python3 python3-venv), and the build takes it from \
                 PyPI",
            ),
            _ => None,
        }
    }
}

/// Whether clang is there, with its linker for WebAssembly.
fn has_clang() -> bool {
    runs("clang", &["--version"]) && runs("wasm-ld", &["--version"])
}

/// Whether a program exists and runs.
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
    // Alternatively, the sources that tools/cargo.sh of the SDK builds.
    told.is_ok_and(|told| Path::new(String::from_utf8_lossy(&told.stdout).trim()).is_dir())
        || Path::new("/usr/src/rustc-web").is_dir()
}
