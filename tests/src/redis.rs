//! Real Redis servers, each a process with a folder and a port of its own.
//!
//! One server here, a Sentinel group and a Cluster inside. A server can be killed, frozen
//! (SIGSTOP: connections stand, answers never come) and started again with or without its
//! data. Dropping kills it.

mod cluster;
mod sentinel;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::free_port::free_port;
use crate::process;
use crate::wait::{SOON, wait_for, within};

pub use cluster::Cluster;
pub use sentinel::Sentinels;

/// A running (or killed) server.
pub struct Redis {
    process: Child,
    dir: TempDir,
    pub port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// A server without persistence.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with more arguments, as on its command line.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let redis = Self::spawn(free_port(), arguments);
        redis.ready().await;
        redis
    }

    /// A server that speaks TLS at this port too, with the certificates of a folder, and
    /// knows a user `edge`, who may do everything to what is Lamina's, with the password `right`.
    pub async fn start_sealed(certificates: &Path, port: u16) -> Self {
        let file = |name: &str| certificates.join(name).to_str().unwrap().to_owned();
        let redis = Self::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
            "--tls-auth-clients",
            "no",
        ])
        .await;
        let user = "ACL SETUSER edge on >right ~lamina:* resetchannels &lamina:* +@all";
        let user: Vec<_> = user.split(' ').collect();
        assert_eq!(redis.cli(&user).await, "OK");
        redis
    }

    /// A server that is not waited for.
    pub fn spawn(port: u16, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).collect();
        Self {
            process: spawn_server(port, &dir, &arguments),
            dir,
            port,
            arguments,
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Waits until it answers.
    pub async fn ready(&self) {
        wait_for("redis answers PING", SOON, || async {
            (self.try_cli(&["PING"]).await? == "PONG").then_some(())
        })
        .await;
    }

    /// What `redis-cli` prints.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let said = within("redis-cli", SOON, self.try_cli(arguments)).await;
        said.expect("redis-cli reaches the server")
    }

    /// The same, with bytes to read.
    pub async fn cli_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut child = self
            .cli_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli is installed (make test-install)");
        let mut pipe = child.stdin.take().expect("stdin is piped");
        let work = async {
            pipe.write_all(input).await.unwrap();
            drop(pipe);
            child.wait_with_output().await.unwrap().stdout
        };
        let said = within("redis-cli", SOON, work).await;
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    fn cli_command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("redis-cli");
        command
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    async fn try_cli(&self, arguments: &[&str]) -> Option<String> {
        let output = self
            .cli_command(arguments)
            .output()
            .await
            .expect("redis-cli is installed (make test-install)");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(said)
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Removes the dump that a start would read.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(self.dir.path().join("dump.rdb"));
    }

    /// Freezes it.
    pub fn freeze(&self) {
        process::freeze(self.process.id());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        process::thaw(self.process.id());
    }

    /// Starts it again on its port, with what its folder holds.
    pub async fn restart(&mut self) {
        self.respawn(&[]);
        self.ready().await;
    }

    /// Starts it again, with further arguments, and doesn't wait.
    pub fn respawn(&mut self, more: &[&str]) {
        self.kill();
        let mut arguments = self.arguments.clone();
        arguments.extend(more.iter().map(|a| (*a).to_owned()));
        self.process = spawn_server(self.port, &self.dir, &arguments);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server: that of the system, or the one that `LAMINA_REDIS_SERVER` names, as for an older
/// version.
fn program() -> OsString {
    std::env::var_os("LAMINA_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// The first number of the server's version.
pub fn major_version() -> u32 {
    static MAJOR: OnceLock<u32> = OnceLock::new();
    *MAJOR.get_or_init(|| {
        let said = Command::new(program()).arg("--version").output();
        let said = said.expect("redis-server is installed (make test-install)");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = said.split_once("v=").map_or("", |(_, version)| version);
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        major.expect("redis-server tells its version")
    })
}

fn spawn_server(port: u16, dir: &TempDir, arguments: &[String]) -> Child {
    // Before version 7 the command DEBUG is on, and no argument says so.
    let debug: &[&str] = match major_version() {
        ..7 => &[],
        _ => &["--enable-debug-command", "yes"],
    };
    Command::new(program())
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .args(debug)
        .args(["--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(dir.path())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed (make test-install)")
}
