//! Real NATS servers with JetStream, each a process with a folder and a port of its own.
//!
//! One server here, a cluster of three inside. A server can be killed, frozen (SIGSTOP) and
//! started again with its data, or with those of a backup. Dropping kills it. What a test has to ask of a server goes
//! through a connection of its own in NATS's plain text ([`Nats::ask`]).

mod cluster;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::free_port::free_port;
use crate::process;
use crate::wait::{SOON, wait_for};

pub use cluster::Cluster;

/// A running (or killed) server.
pub struct Nats {
    process: Child,
    dir: TempDir,
    pub port: u16,
    arguments: Vec<String>,
}

impl Nats {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with more arguments, as on its command line.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let nats = Self::spawn(free_port(), arguments);
        nats.ready().await;
        nats
    }

    /// A server that is not waited for.
    pub fn spawn(port: u16, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).collect();
        Self {
            process: spawn_server(port, dir.path(), &arguments),
            dir,
            port,
            arguments,
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Waits until it takes connections and its JetStream answers.
    pub async fn ready(&self) {
        wait_for("JetStream answers", SOON, || async {
            let answer = self.try_ask("$JS.API.INFO", "").await?;
            answer.contains("\"limits\"").then_some(())
        })
        .await;
    }

    /// What the server, or whoever listens on `subject`, answers.
    pub async fn ask(&self, subject: &str, payload: &str) -> String {
        wait_for("an answer from NATS", SOON, || {
            self.try_ask(subject, payload)
        })
        .await
    }

    async fn try_ask(&self, subject: &str, payload: &str) -> Option<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let mut stream = BufReader::new(stream);
        let ask = format!(
            "CONNECT {{\"verbose\":false,\"no_responders\":true,\"headers\":true}}\r\n\
             SUB _INBOX.test 1\r\nPUB {subject} _INBOX.test {}\r\n{payload}\r\n",
            payload.len()
        );
        stream.write_all(ask.as_bytes()).await.ok()?;
        let answer = async {
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.ok()? == 0 || line.starts_with("HMSG") {
                    return None;
                }
                if let Some(head) = line.strip_prefix("MSG ") {
                    let length = head.trim().rsplit(' ').next()?.parse().ok()?;
                    let mut bytes = vec![0; length];
                    stream.read_exact(&mut bytes).await.ok()?;
                    return String::from_utf8(bytes).ok();
                }
            }
        };
        tokio::time::timeout(SOON / 4, answer).await.ok().flatten()
    }

    /// How many servers it tells clients of.
    async fn servers(&self) -> Option<usize> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.ok()?;
        let info: serde_json::Value = serde_json::from_str(line.strip_prefix("INFO ")?).ok()?;
        Some(info["connect_urls"].as_array()?.len())
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Freezes it.
    pub fn freeze(&self) {
        process::freeze(self.process.id());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        process::thaw(self.process.id());
    }

    /// A copy of its folder, of a server that is not running.
    pub fn backup(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.dir.path(), copy.path());
        copy
    }

    /// Gives a server that is not running another folder: one that [`backup`](Self::backup) made.
    pub fn restore(&mut self, backup: TempDir) {
        self.dir = backup;
    }

    /// Starts it again on its port, with what its folder holds, and doesn't wait.
    pub fn respawn(&mut self) {
        self.kill();
        self.process = spawn_server(self.port, self.dir.path(), &self.arguments);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let copy = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => {
                std::fs::create_dir_all(&copy).unwrap();
                copy_folder(&entry.path(), &copy);
            }
            false => {
                std::fs::copy(entry.path(), &copy).unwrap();
            }
        }
    }
}

fn spawn_server(port: u16, dir: &Path, arguments: &[String]) -> Child {
    Command::new("nats-server")
        .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
        .arg("--jetstream")
        .arg("--store_dir")
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is installed (make test-install)")
}
