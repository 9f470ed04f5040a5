//! The SDK: found on disk, or written from the copy in this binary (`build.rs` lists it).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Every file of plugin-sdk: its path in that folder, and its text.
pub(super) const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
/// The name of the SDK's folder.
const FOLDER: &str = "plugin-sdk";
/// The folder of the project templates.
pub(super) const TEMPLATES: &str = "templates";

/// The place where a project finds the SDK.
pub(super) struct SdkLocation {
    /// The path as the project's files have it. It is relative to the project's folder if the SDK
    /// is in a folder above, so that both can be moved and checked in together.
    pub(super) path: PathBuf,
    /// Whether the SDK was written just now.
    pub(super) is_new: bool,
}

/// Finds the SDK for a new project, which will be a folder in the current one: the given SDK, or
/// the nearest in a folder above the project, or a new one beside it.
pub(super) fn locate(given: Option<&Path>) -> io::Result<SdkLocation> {
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

/// Writes the SDK to disk. The templates stay in the binary.
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
