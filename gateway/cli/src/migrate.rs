//! `lamina migrate`: a draft configuration out of that of another cache, for a person to go on with.
//!
//! Decision: a translator marks the statements that it has said in the draft, and whatever carries no
//! mark at the end stands there as a comment. So nothing can be dropped silently, whatever a
//! translator does not know.

mod draft;
mod expression;
mod include_pattern;
mod nginx;
mod source;
mod vcl;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;

use draft::ConfigDraft;
use source::SourceStatement;

#[derive(Subcommand)]
pub enum MigrateCommand {
    /// From a configuration of nginx.
    Nginx {
        /// Its main file; files that it includes are read where they are there.
        file: PathBuf,
    },
    /// From a configuration of Varnish.
    Vcl {
        /// Its main file; files that it includes are read where they are there.
        file: PathBuf,
    },
}

impl MigrateCommand {
    /// The draft as text.
    pub fn draft(&self) -> anyhow::Result<String> {
        let (file, parse, translate): (_, ParseSource, TranslateSource) = match self {
            Self::Nginx { file } => (file, nginx::syntax::parse, nginx::translate),
            Self::Vcl { file } => (file, vcl::syntax::parse, vcl::translate),
        };
        let statements = parse(file).with_context(|| file.display().to_string())?;
        anyhow::ensure!(
            !statements.is_empty(),
            "{}: there is no statement in it",
            file.display()
        );
        let mut draft = ConfigDraft::default();
        translate(&statements, &mut draft);
        Ok(draft.text(file, &statements))
    }
}

type ParseSource = fn(&Path) -> anyhow::Result<Vec<SourceStatement>>;
type TranslateSource = fn(&[SourceStatement], &mut ConfigDraft);

#[cfg(test)]
mod tests;

/// A folder with these files, for tests.
#[cfg(test)]
fn folder_of(files: &[(&str, &str)]) -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap_or(folder.path()))?;
        std::fs::write(file, text)?;
    }
    Ok(folder)
}
