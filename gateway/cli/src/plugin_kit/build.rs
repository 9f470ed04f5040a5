//! `lamina plugin build [DIR]`: calls the build tool of the language and leaves `NAME.wasm` in the
//! project.
//!
//! The project's own `build.sh` says how it is built, so that this can be read, changed and run
//! without this program. Without that file, cargo and npm know what to do. This command adds
//! messages about what is missing, before a tool fails with its own message.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use super::language::TemplateLanguage;

/// The folder in which cargo puts its output.
const CARGO_OUT: &str = "target/wasm32-unknown-unknown/release";

/// Builds the project in `folder`. Returns the file that was built.
///
/// # Errors
/// Returns a message if there is no project, if a tool is missing or fails, or if no file was
/// built.
pub fn build(folder: &Path) -> Result<PathBuf, String> {
    let shown = folder.display();
    let language = TemplateLanguage::of(folder).ok_or_else(|| {
        format!(
            "{shown}: not a known kind of project; expected Cargo.toml, package.json, *.py with \
             requirements.txt, *.zig or *.c. `lamina plugin new --lang rust NAME` creates one"
        )
    })?;
    if let Some(missing) = language.missing() {
        return Err(missing.to_owned());
    }
    let commands = commands(folder, language)?;
    for command in commands {
        let (program, arguments) = (command[0], &command[1..]);
        // The flags of the gateway's own build must not apply to the plugin.
        let ran = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_TARGET_DIR")
            .status();
        let words = command.join(" ");
        let ended = ran.map_err(|error| format!("{shown}: `{words}`: {error}"))?;
        if !ended.success() {
            return Err(format!(
                "{shown}: `{words}` failed ({ended}); its output is above"
            ));
        }
    }
    ship(folder)
}

fn commands(
    folder: &Path,
    language: TemplateLanguage,
) -> Result<Vec<&'static [&'static str]>, String> {
    if folder.join("build.sh").is_file() {
        return Ok(vec![&["sh", "build.sh"]]);
    }
    match language {
        TemplateLanguage::Rust => Ok(vec![&[
            "cargo",
            "build",
            "--release",
            "--target",
            "wasm32-unknown-unknown",
            "--target-dir",
            "target",
        ]]),
        TemplateLanguage::Js => Ok(vec![
            &["npm", "install", "--no-audit", "--no-fund"],
            &["npm", "run", "build"],
        ]),
        TemplateLanguage::Python | TemplateLanguage::C | TemplateLanguage::Zig => Err(format!(
            "{}: build.sh is missing, which builds the project; `lamina plugin new --lang {} \
             NAME` creates one to start from",
            folder.display(),
            language.folder()
        )),
    }
}

/// The newest file that the tools may have left in the project. The output of cargo is copied from
/// its folder.
fn ship(folder: &Path) -> Result<PathBuf, String> {
    let built = [folder.to_owned(), folder.join(CARGO_OUT)];
    let built = built.iter().flat_map(|folder| wasm_files(folder));
    let (_, newest) = built.max_by_key(|(modified, _)| *modified).ok_or_else(|| {
        format!(
            "{}: the build succeeded but wrote no .wasm file; build.sh must write one into its \
             own folder",
            folder.display()
        )
    })?;
    if newest.parent() == Some(folder) {
        let plain = newest.strip_prefix(".").map(Path::to_owned);
        return Ok(plain.unwrap_or(newest));
    }
    let name = newest.file_name().unwrap_or_default();
    // Names of crates have `-` where those of their files have `_`.
    let to = folder.join(name.to_string_lossy().replace('_', "-"));
    let copied = fs::copy(&newest, &to);
    copied.map_err(|error| format!("{}: {error}", to.display()))?;
    Ok(to)
}

fn wasm_files(folder: &Path) -> Vec<(SystemTime, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "wasm"));
    files
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect()
}
