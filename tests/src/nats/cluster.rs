//! Three servers that know each other and keep streams together.

use super::Nats;
use crate::free_port::free_port;
use crate::wait::{SOON, wait_for};

/// Three nodes.
pub struct Cluster {
    pub nodes: Vec<Nats>,
}

impl Cluster {
    /// Starts them and waits until their JetStream has a leader, which takes seconds.
    pub async fn start() -> Self {
        let cluster = Self::start_core().await;
        for node in &cluster.nodes {
            node.ready().await;
        }
        cluster
    }

    /// Starts them and waits until each tells clients of all.
    pub async fn start_core() -> Self {
        let cluster = Self::spawn();
        for node in &cluster.nodes {
            wait_for("a server knows all", SOON, || async {
                (node.servers().await? == cluster.nodes.len()).then_some(())
            })
            .await;
        }
        cluster
    }

    fn spawn() -> Self {
        let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
        let routes: Vec<_> = ports
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        let routes = routes.join(",");
        let nodes = ports.iter().enumerate().map(|(i, port)| {
            let (name, listen) = (format!("n{i}"), format!("nats://127.0.0.1:{port}"));
            let arguments = [
                "--server_name",
                &name,
                "--cluster_name",
                "lamina",
                "--cluster",
                &listen,
                "--routes",
                &routes,
            ];
            Nats::spawn(free_port(), &arguments)
        });
        Self {
            nodes: nodes.collect(),
        }
    }

    /// The node that leads `stream`, in the eyes of node `asked`.
    pub async fn leader(&self, asked: usize, stream: &str) -> usize {
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        wait_for("the stream has a leader", SOON, || async {
            let info = self.nodes[asked].ask(&subject, "").await;
            let info: serde_json::Value = serde_json::from_str(&info).ok()?;
            let leader = info["cluster"]["leader"].as_str()?;
            leader.strip_prefix('n')?.parse().ok()
        })
        .await
    }
}
