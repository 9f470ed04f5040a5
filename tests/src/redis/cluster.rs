//! A Cluster of three masters with a replica each, which fails over within seconds once it
//! is told to be impatient.

use super::{Redis, major_version};
use crate::free_port::free_port;
use crate::wait::{SOON, wait_for};

/// Six nodes.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts them, shares the slots out and waits until every node agrees.
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let bus = free_port().to_string();
            let mut arguments = vec![
                "--cluster-enabled",
                "yes",
                // A busy machine must not look like a dead node.
                "--cluster-node-timeout",
                "15000",
            ];
            // Before version 7 it is 10,000 above the other one.
            if major_version() >= 7 {
                arguments.extend(["--cluster-port", &bus]);
            }
            nodes.push(Redis::start_with(&arguments).await);
        }
        let cluster = Self { nodes };
        cluster.join().await;
        cluster
    }

    /// As the store's configuration takes it.
    pub fn url(&self) -> String {
        format!("redis-cluster://{}", self.hosts().join(","))
    }

    /// From now on a node that doesn't answer is soon taken for dead.
    pub async fn impatient(&self) {
        for node in &self.nodes {
            // A killed one can't be told.
            let brief = ["CONFIG", "SET", "cluster-node-timeout", "1500"];
            let _ = node.try_cli(&brief).await;
        }
    }

    /// Which of `nodes` holds `key` as a master, in the eyes of node `asked`.
    pub async fn owner(&self, asked: usize, key: &str) -> Option<usize> {
        let slot: u16 = self.slot(asked, key).await;
        let slots = self.nodes[asked].cli(&["CLUSTER", "NODES"]).await;
        slots.lines().find_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let alive = fields[2].contains("master") && !fields[2].contains("fail");
            let holds = fields[8..].iter().any(|range| contains(range, slot));
            let port = fields[1].split(['@', ':']).nth(1)?.parse::<u16>().ok()?;
            (alive && holds).then(|| self.nodes.iter().position(|node| node.port == port))?
        })
    }

    /// Gives the slot of `key` with all its keys to the master `to`.
    pub async fn move_slot(&self, key: &str, to: usize) {
        let from = self.owner(0, key).await.expect("somebody holds the slot");
        let slot = self.slot(0, key).await.to_string();
        let id = |node: usize| self.nodes[node].cli(&["CLUSTER", "MYID"]);
        let (from_id, to_id) = (id(from).await, id(to).await);
        self.nodes[to]
            .cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])
            .await;
        self.nodes[from]
            .cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])
            .await;
        let keys = self.nodes[from]
            .cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"])
            .await;
        let port = self.nodes[to].port.to_string();
        for key in keys.lines().filter(|key| !key.is_empty()) {
            self.nodes[from]
                .cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"])
                .await;
        }
        for node in [to, from] {
            self.nodes[node]
                .cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])
                .await;
        }
    }

    /// The masters at the start: the first three.
    pub fn masters() -> std::ops::Range<usize> {
        0..3
    }

    async fn slot(&self, asked: usize, key: &str) -> u16 {
        let slot = self.nodes[asked].cli(&["CLUSTER", "KEYSLOT", key]).await;
        slot.parse().unwrap()
    }

    fn hosts(&self) -> Vec<String> {
        let ports = self.nodes.iter().map(|node| node.port);
        ports.map(|port| format!("127.0.0.1:{port}")).collect()
    }

    async fn join(&self) {
        let hosts = self.hosts();
        let mut arguments = vec!["--cluster", "create"];
        arguments.extend(hosts.iter().map(String::as_str));
        arguments.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        self.nodes[0].cli(&arguments).await;
        for node in &self.nodes[Self::masters()] {
            wait_for("its replica has all data", SOON, || async {
                let info = node.cli(&["INFO", "replication"]).await;
                info.contains("state=online").then_some(())
            })
            .await;
        }
        for node in &self.nodes {
            wait_for("the node knows the whole Cluster", SOON, || async {
                let info = node.cli(&["CLUSTER", "INFO"]).await;
                let nodes = node.cli(&["CLUSTER", "NODES"]).await;
                let replicas = nodes.lines().filter(|l| l.contains("slave")).count();
                (info.contains("cluster_state:ok") && replicas == 3).then_some(())
            })
            .await;
        }
    }
}

/// Whether `5` or `0-100` has `slot`.
fn contains(range: &str, slot: u16) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&slot),
        _ => false,
    }
}
