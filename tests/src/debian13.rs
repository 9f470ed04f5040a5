//! Programs of Debian 13 in a folder of their own (`tests/install-debian13.sh`): peers that speak
//! HTTP/3, which those of Debian 12 do not.

use std::path::PathBuf;

use anyhow::bail;

/// A program of Debian 13, and what runs it on another system.
pub struct Debian13Program {
    /// The loader of dynamic libraries.
    pub loader: String,
    /// What stands before the program's own arguments.
    pub arguments: Vec<String>,
}

/// A program by its path below `/usr`, as in `sbin/nginx`.
///
/// # Errors
/// When it is not installed.
pub fn program(name: &str) -> anyhow::Result<Debian13Program> {
    let root = folder();
    let file = root.join("usr").join(name);
    if !file.exists() {
        bail!("{name} of Debian 13 is not installed (make bench-install)");
    }
    let path = |below: &str| root.join(below).display().to_string();
    Ok(Debian13Program {
        loader: path("usr/lib64/ld-linux-x86-64.so.2"),
        arguments: vec![
            "--library-path".to_owned(),
            path("usr/lib/x86_64-linux-gnu"),
            file.display().to_string(),
        ],
    })
}

/// The root of that system.
pub fn folder() -> PathBuf {
    crate::cli::repository().join("target/debian13")
}
