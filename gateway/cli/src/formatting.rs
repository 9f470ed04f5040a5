//! `lamina fmt`: rewrites files in the canonical form, or tells which of their lines are not in it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use lamina_edge::config;

use crate::exit::ExitOutcome;
use crate::output;

/// Prints the lines that would change.
pub fn check(files: &[PathBuf]) -> anyhow::Result<ExitOutcome> {
    each(files, |file, text, canonical| {
        let changes = config::changes(text, canonical);
        if changes.is_empty() {
            let said = "its ends of lines differ; expected line feeds, and one at the end";
            output::line(format_args!("{}: {said}", file.display()));
        }
        for change in changes {
            output::line(format_args!("{}:{}", file.display(), change.line));
            for line in change.removed {
                output::line(format_args!("- {line}"));
            }
            for line in change.added {
                output::line(format_args!("+ {line}"));
            }
        }
        Ok(ExitOutcome::Failed)
    })
}

/// Writes those anew that would change.
pub fn rewrite(files: &[PathBuf]) -> anyhow::Result<ExitOutcome> {
    each(files, |file, _, canonical| {
        replace(file, canonical).with_context(|| file.display().to_string())?;
        output::line(format_args!("{}: rewritten", file.display()));
        Ok(ExitOutcome::Well)
    })
}

/// Does this with each file that is not in the canonical form: its text, and what it should be. A
/// file that can't be formatted keeps none of the others from it.
fn each(
    files: &[PathBuf],
    act: impl Fn(&Path, &str, &str) -> anyhow::Result<ExitOutcome>,
) -> anyhow::Result<ExitOutcome> {
    let mut outcome = ExitOutcome::Well;
    for file in files {
        let (text, canonical) = match config::formatted_file(file) {
            Ok(texts) => texts,
            Err(problems) => {
                output::error(problems);
                outcome = ExitOutcome::Wrong;
                continue;
            }
        };
        if text == canonical {
            continue;
        }
        let acted = act(file, &text, &canonical)?;
        if matches!(outcome, ExitOutcome::Well) {
            outcome = acted;
        }
    }
    Ok(outcome)
}

/// Puts a text in the place of a file, in one step, so that no reader sees half of it. Links are
/// followed, and the rights stay.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let file = fs::canonicalize(file)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let beside = file.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = write(&beside, &file, text).and_then(|()| fs::rename(&beside, &file));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Writes a text into a new file with the rights of another one.
fn write(new: &Path, like: &Path, text: &str) -> std::io::Result<()> {
    let mut written = File::create_new(new)?;
    written.set_permissions(fs::metadata(like)?.permissions())?;
    written.write_all(text.as_bytes())?;
    written.sync_all()
}
