//! Programs of Debian 13 in folders of their own: peers that speak HTTP/3, which those of Debian 12 do
//! not (`tests/install-debian13.sh`, for benches), and curl that does
//! (`tests/install-of-debian13.sh`, for tests).

use std::path::PathBuf;

use anyhow::bail;

/// Where they may be, below the target folder.
const FOLDERS: [&str; 2] = ["debian13", "debian13-curl"];

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
    let target = crate::cli::repository().join("target");
    let roots = FOLDERS.map(|folder| target.join(folder));
    let has_it = |root: &&PathBuf| root.join("usr").join(name).exists();
    let Some(root) = roots.iter().find(has_it) else {
        bail!("{name} of Debian 13 is not installed (make bench-install, or make test-install)");
    };
    let file = root.join("usr").join(name);
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

/// The root of the peers that speak HTTP/3.
pub fn folder() -> PathBuf {
    crate::cli::repository().join("target/debian13")
}
