//! The real broker under a bus, and how a gateway's YAML names it: with the defaults, so
//! that what is measured is what users get.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use e2e::fleet::names;
use e2e::nats::Nats;
use e2e::rabbit::Rabbit;
use e2e::redis::Redis;
use e2e::wire::Wire;
use futures_util::future::join_all;
use lamina_cluster::bus::transport::BusTransport;
use tempfile::TempDir;

/// A transport, as it is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransportKind {
    Redis,
    Nats,
    Jetstream,
    Rabbitmq,
    RabbitmqDurable,
}

/// A broker of its own.
pub struct SoakBroker {
    pub kind: TransportKind,
    pub lines: BrokerLines,
    server: BrokerServer,
    /// What it had on its disk in a former round.
    before: Option<TempDir>,
}

/// The lines between nodes and the broker, one a node; none where nodes reach it directly.
pub struct BrokerLines(Vec<Wire>);

enum BrokerServer {
    Redis(Redis),
    Nats(Nats),
    Rabbit(Rabbit),
}

impl TransportKind {
    pub const ALL: [Self; 5] = [
        Self::Redis,
        Self::Nats,
        Self::Jetstream,
        Self::Rabbitmq,
        Self::RabbitmqDurable,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::Jetstream => "jetstream",
            Self::Rabbitmq => "rabbitmq",
            Self::RabbitmqDurable => "rabbitmq_durable",
        }
    }
}

impl FromStr for TransportKind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.name() == text) {
            Some(kind) => Ok(kind),
            None => bail!("{text:?} is no transport; {}", crate::options::USAGE),
        }
    }
}

impl SoakBroker {
    pub async fn start(kind: TransportKind) -> Self {
        let server = match kind {
            TransportKind::Redis => BrokerServer::Redis(Redis::start().await),
            TransportKind::Nats | TransportKind::Jetstream => {
                BrokerServer::Nats(Nats::start().await)
            }
            TransportKind::Rabbitmq | TransportKind::RabbitmqDurable => {
                BrokerServer::Rabbit(Rabbit::start().await)
            }
        };
        let lines = BrokerLines(Vec::new());
        Self {
            kind,
            lines,
            server,
            before: None,
        }
    }

    /// The same, where each of so many nodes has a line of its own to it.
    pub async fn with_lines(mut self, nodes: usize) -> Self {
        for _ in 0..nodes {
            self.lines.0.push(Wire::to(self.port()).await);
        }
        self
    }

    /// What a gateway of this name has in its `bus`.
    pub fn yaml(&self, node: &str) -> String {
        let url = self.url(node);
        match self.kind {
            TransportKind::Redis => format!("redis: {{url: \"{url}\"}}"),
            TransportKind::Nats => format!("nats: {{servers: [\"{url}\"]}}"),
            TransportKind::Jetstream => format!(
                "nats: {{servers: [\"{url}\"], mode: jetstream, jetstream: {{durable_name: {node}}}}}"
            ),
            TransportKind::Rabbitmq => format!("rabbitmq: {{url: \"{url}\"}}"),
            TransportKind::RabbitmqDurable => format!(
                "rabbitmq: {{url: \"{url}\", durable_invalidation_mode: true, queue_name: {node}}}"
            ),
        }
    }

    /// A way to it that is no gateway's.
    pub fn open(&self, name: &str) -> Arc<dyn BusTransport> {
        let yaml = format!("{{{}}}", self.yaml(name));
        let bus: lamina_cluster::bus::config::BusConfig = serde_yaml::from_str(&yaml).unwrap();
        bus.transport().unwrap().open().unwrap()
    }

    /// Where the node of this name reaches it.
    fn url(&self, node: &str) -> String {
        let number = names(self.lines.0.len()).position(|name| name == node);
        let line = number.map(|number| self.lines.0[number].address.port());
        let port = line.unwrap_or_else(|| self.port());
        let scheme = match &self.server {
            BrokerServer::Redis(_) => "redis",
            BrokerServer::Nats(_) => "nats",
            BrokerServer::Rabbit(_) => "amqp",
        };
        format!("{scheme}://127.0.0.1:{port}")
    }

    fn port(&self) -> u16 {
        match &self.server {
            BrokerServer::Redis(server) => server.port,
            BrokerServer::Nats(server) => server.port,
            BrokerServer::Rabbit(server) => server.port,
        }
    }

    /// SIGKILL, and `span` later it is started again with what it had on its disk. Answers
    /// when it answers again.
    pub async fn killed_for(&mut self, span: Duration) -> Instant {
        match &mut self.server {
            BrokerServer::Redis(server) => server.kill(),
            BrokerServer::Nats(server) => server.kill(),
            BrokerServer::Rabbit(server) => server.kill(),
        }
        tokio::time::sleep(span).await;
        match &mut self.server {
            BrokerServer::Redis(server) => server.respawn(&[]),
            BrokerServer::Nats(server) => server.respawn(),
            BrokerServer::Rabbit(server) => server.respawn(),
        }
        match &self.server {
            BrokerServer::Redis(server) => server.ready().await,
            BrokerServer::Nats(server) => server.ready().await,
            BrokerServer::Rabbit(server) => server.ready().await,
        }
        Instant::now()
    }

    /// SIGKILL, and `span` later it is started again without what it had on its disk. Answers when
    /// it answers again.
    pub async fn emptied_for(&mut self, span: Duration) -> Instant {
        let nats = self.jetstream();
        nats.kill();
        nats.restore(tempfile::tempdir().unwrap());
        self.killed_for(span).await
    }

    /// SIGKILL, and `span` later it is started again with what it had on its disk at the last call.
    /// Answers when it answers again.
    pub async fn older_after(&mut self, span: Duration) -> Instant {
        let nats = self.jetstream();
        nats.kill();
        let now = nats.backup();
        if let Some(before) = self.before.replace(now) {
            self.jetstream().restore(before);
        }
        self.killed_for(span).await
    }

    fn jetstream(&mut self) -> &mut Nats {
        match &mut self.server {
            BrokerServer::Nats(server) => server,
            BrokerServer::Redis(_) | BrokerServer::Rabbit(_) => {
                unreachable!("it is drawn for JetStream alone")
            }
        }
    }

    /// SIGSTOP, and `span` later it goes on. Answers when.
    pub async fn frozen_for(&mut self, span: Duration) -> Instant {
        match &self.server {
            BrokerServer::Redis(server) => server.freeze(),
            BrokerServer::Nats(server) => server.freeze(),
            BrokerServer::Rabbit(server) => server.freeze(),
        }
        tokio::time::sleep(span).await;
        match &self.server {
            BrokerServer::Redis(server) => server.thaw(),
            BrokerServer::Nats(server) => server.thaw(),
            BrokerServer::Rabbit(server) => server.thaw(),
        }
        Instant::now()
    }

    /// Its memory alarm, by which publishers are blocked, for `span`.
    pub async fn blocked_for(&self, span: Duration) {
        let BrokerServer::Rabbit(server) = &self.server else {
            unreachable!("only RabbitMQ blocks publishers");
        };
        server.ctl(&["set_vm_memory_high_watermark", "0"]).await;
        tokio::time::sleep(span).await;
        server.ctl(&["set_vm_memory_high_watermark", "0.9"]).await;
    }
}

impl BrokerLines {
    /// All connections end, and new ones do so too, for `span`.
    pub async fn cut_for(&self, span: Duration) {
        join_all(self.0.iter().map(|line| line.cut_for(span))).await;
    }

    /// What the last node sends and is sent stays on its way for `span`.
    pub async fn parted_for(&self, span: Duration) {
        let line = self.0.last().expect("a line for each node");
        line.part();
        tokio::time::sleep(span).await;
        line.heal();
    }
}
