//! A master with two replicas, watched by three Sentinels that fail over within seconds once
//! they are told to be impatient.

use std::fs;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::Redis;
use crate::free_port::free_port;
use crate::wait::{SOON, wait_for};

/// The group, known as `mymaster`.
pub struct Sentinels {
    pub servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl Sentinels {
    /// Starts all six and waits until each Sentinel knows the others and the replicas.
    pub async fn start() -> Self {
        let master = Redis::start().await;
        let port = master.port.to_string();
        let mut servers = vec![master];
        for _ in 0..2 {
            servers.push(Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await);
        }
        let sentinels = (0..3).map(|_| Sentinel::spawn(servers[0].port)).collect();
        let group = Self { servers, sentinels };
        wait_for("the Sentinels know one another", SOON, || group.settled()).await;
        group
    }

    /// As the store's configuration takes it.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(Sentinel::host).collect();
        format!("redis-sentinel://{}", hosts.join(","))
    }

    /// From now on a server that doesn't answer is soon taken for dead.
    pub async fn impatient(&self) {
        let brief = [
            "SENTINEL",
            "SET",
            "mymaster",
            "down-after-milliseconds",
            "1000",
        ];
        for sentinel in &self.sentinels {
            assert_eq!(sentinel.ask(&brief).await.as_deref(), Some("OK"));
        }
    }

    /// Tells the Sentinels who the master is, as one does who failed over by hand.
    pub async fn follow(&self, server: usize) {
        let port = self.servers[server].port.to_string();
        for sentinel in &self.sentinels {
            for command in [
                &["SENTINEL", "REMOVE", "mymaster"][..],
                &["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &port, "2"],
            ] {
                assert_eq!(sentinel.ask(command).await.as_deref(), Some("OK"));
            }
        }
    }

    /// Which of `servers` the Sentinels call the master.
    pub async fn master(&self) -> Option<usize> {
        let said = self.sentinels[0]
            .ask(&["SENTINEL", "get-master-addr-by-name", "mymaster"])
            .await?;
        let port = said.lines().nth(1)?.parse::<u16>().ok()?;
        self.servers.iter().position(|server| server.port == port)
    }

    async fn settled(&self) -> Option<()> {
        for sentinel in &self.sentinels {
            let said = sentinel.ask(&["SENTINEL", "master", "mymaster"]).await?;
            let lines: Vec<_> = said.lines().collect();
            let value = |name| lines.windows(2).find(|w| w[0] == name).map(|w| w[1]);
            if value("num-slaves") != Some("2") || value("num-other-sentinels") != Some("2") {
                return None;
            }
        }
        Some(())
    }
}

impl Sentinel {
    fn spawn(master: u16) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds mymaster 15000\nsentinel failover-timeout mymaster 3000\n",
            dir.path().display()
        );
        // A busy machine must not look like a dead server.
        fs::write(&file, text).unwrap();
        let process = Command::new("redis-sentinel")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-sentinel is installed (make test-install)");
        Self {
            process,
            port,
            _dir: dir,
        }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    async fn ask(&self, arguments: &[&str]) -> Option<String> {
        let output = tokio::process::Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .ok()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(said)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
