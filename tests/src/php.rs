//! PHP: an application's own web server, and its scripts. Applications are those of Debian's packages,
//! as they are; what is theirs alone (settings, data) is in a folder of the test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::free_port::free_address;
use crate::process::Server;
use crate::tools;

/// Where an application is, and what its settings are found by.
#[derive(Clone, Debug)]
pub struct PhpProgram {
    /// The folder that is served, with an `index.php` for every path that is no file.
    pub root: String,
    /// Environment variables, as `NAME=value`.
    pub environment: Vec<String>,
}

/// Whether PHP and this file of an application are here.
pub fn is_here(file: &str, what_needs_it: &str) -> bool {
    let php = Command::new("php").arg("--version").output().is_ok();
    let missing = match (php, Path::new(file).exists()) {
        (true, true) => return true,
        (false, _) => "php",
        (true, false) => file,
    };
    tools::is_missing(missing, what_needs_it);
    false
}

impl PhpProgram {
    /// Serves it on a port of its own.
    pub fn serve(&self) -> Server {
        let address: SocketAddr = free_address();
        let at = address.to_string();
        let mut arguments: Vec<&str> = self.environment.iter().map(String::as_str).collect();
        arguments.extend([
            "php",
            "-d",
            "opcache.enable_cli=1",
            "-S",
            at.as_str(),
            "-t",
            self.root.as_str(),
        ]);
        Server::start(None, address, "env", &arguments).expect("PHP serves the application")
    }

    /// Runs a script below its root to its good end, with this on stdin; what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, script: &str, arguments: &[&str], input: &str) -> String {
        use std::io::Write as _;
        let mut process = Command::new("env")
            .args(&self.environment)
            .arg("php")
            .arg(Path::new(&self.root).join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("PHP starts");
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let ran = process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            ran.status.success(),
            "{script} {arguments:?}: {said}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        said
    }
}
