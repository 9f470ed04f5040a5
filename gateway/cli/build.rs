//! Lists the files of plugin-sdk, so that the binary has them for `lamina plugin new`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Folders that builds create.
const LEFT_OUT: [&str; 4] = ["target", "node_modules", "__pycache__", ".venv"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let sdk = root.join("../../plugin-sdk").canonicalize()?;
    println!("cargo::rerun-if-changed={}", sdk.display());
    let mut files = Vec::new();
    collect(&sdk, &mut files)?;
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&sdk).map_err(io::Error::other)?;
        let _ = writeln!(list, "({name:?}, include_str!({file:?})),");
    }
    list.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("sdk.rs"), list)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if LEFT_OUT.iter().all(|left_out| name != *left_out) {
                collect(&entry.path(), files)?;
            }
        } else if !name.to_string_lossy().ends_with(".lock")
            && fs::read_to_string(entry.path()).is_ok()
        {
            files.push(entry.path());
        }
    }
    Ok(())
}
