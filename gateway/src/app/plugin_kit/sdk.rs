//! The SDK: found on disk, or written from the copy in this binary (`build.rs` lists it).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Every file of plugin-sdk: its path there, and its text.
pub(super) const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
/// The folder's name.
const FOLDER: &str = "plugin-sdk";
/// Where projects are templates of.
pub(super) const TEMPLATES: &str = "templates";

/// The SDK that a project in `folder` uses: the one given, the nearest in a folder above
/// it, or one that is written beside it. And whether it was written.
pub(super) fn place(folder: &Path, given: Option<&Path>) -> io::Result<(PathBuf, bool)> {
    if let Some(given) = given {
        return match is_sdk(given) {
            true => Ok((given.canonicalize()?, false)),
            false => Err(io::Error::other(format!(
                "--sdk {}: no SDK is there; expected a folder with wit/plugin.wit",
                given.display()
            ))),
        };
    }
    // The project is not there yet; where it will be is.
    let above = folder.parent().unwrap_or(folder);
    let above = match above.as_os_str().is_empty() {
        true => Path::new(".").canonicalize()?,
        false => above.canonicalize()?,
    };
    let candidates = above.ancestors().map(|ancestor| ancestor.join(FOLDER));
    match candidates.into_iter().find(|folder| is_sdk(folder)) {
        Some(found) => Ok((found, false)),
        None => {
            let beside = above.join(FOLDER);
            write(&beside)?;
            Ok((beside, true))
        }
    }
}

fn is_sdk(folder: &Path) -> bool {
    folder.join("wit/plugin.wit").is_file()
}

/// Writes the copy; templates stay in the binary.
fn write(to: &Path) -> io::Result<()> {
    let files = FILES
        .iter()
        .filter(|(path, _)| !path.starts_with(TEMPLATES));
    for (path, text) in files {
        let file = to.join(path);
        fs::create_dir_all(file.parent().unwrap_or(to))?;
        fs::write(file, text)?;
    }
    Ok(())
}
