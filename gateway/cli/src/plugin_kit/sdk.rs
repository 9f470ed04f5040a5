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

/// Where a project finds the SDK.
pub(super) struct SdkLocation {
    /// As the project's files say it: relative to its folder where the SDK is in one above,
    /// so that both can move, and be checked in, together.
    pub(super) path: PathBuf,
    /// Whether it was not there before.
    pub(super) is_new: bool,
}

/// The SDK for a new project, which will be a folder in the current one: the SDK given, the
/// nearest in a folder above the project, or one that is written beside it.
pub(super) fn place(given: Option<&Path>) -> io::Result<SdkLocation> {
    if let Some(given) = given {
        return match is_sdk(given) {
            true => Ok(SdkLocation {
                path: given.canonicalize()?,
                is_new: false,
            }),
            false => Err(io::Error::other(format!(
                "--sdk {}: no SDK is there; expected a folder with wit/plugin.wit",
                given.display()
            ))),
        };
    }
    let here = Path::new(".").canonicalize()?;
    let mut path = PathBuf::from("..");
    for above in here.ancestors() {
        if is_sdk(&above.join(FOLDER)) {
            let path = path.join(FOLDER);
            let is_new = false;
            return Ok(SdkLocation { path, is_new });
        }
        path.push("..");
    }
    write(&here.join(FOLDER))?;
    Ok(SdkLocation {
        path: Path::new("..").join(FOLDER),
        is_new: true,
    })
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
