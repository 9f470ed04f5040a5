//! The real broker under a bus, and how a gateway's YAML names it: with the defaults, so
//! that what is measured is what users get.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use e2e::nats::Nats;
use e2e::rabbit::Rabbit;
use e2e::redis::Redis;
use lamina::bus::transport::Transport;
use lamina::bus::{nats, rabbitmq, redis};

/// A transport, as it is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Redis,
    Nats,
    Jetstream,
    Rabbitmq,
    RabbitmqDurable,
}

/// A broker of its own.
pub struct Broker {
    pub kind: Kind,
    server: Server,
}

enum Server {
    Redis(Redis),
    Nats(Nats),
    Rabbit(Rabbit),
}

impl Kind {
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

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.name() == text) {
            Some(kind) => Ok(kind),
            None => bail!("{text:?} is no transport; {}", crate::options::USAGE),
        }
    }
}

impl Broker {
    pub async fn start(kind: Kind) -> Self {
        let server = match kind {
            Kind::Redis => Server::Redis(Redis::start().await),
            Kind::Nats | Kind::Jetstream => Server::Nats(Nats::start().await),
            Kind::Rabbitmq | Kind::RabbitmqDurable => Server::Rabbit(Rabbit::start().await),
        };
        Self { kind, server }
    }

    /// What a gateway of this name has in its `bus`.
    pub fn yaml(&self, node: &str) -> String {
        let url = self.url();
        match self.kind {
            Kind::Redis => format!("redis: {{url: \"{url}\"}}"),
            Kind::Nats => format!("nats: {{servers: [\"{url}\"]}}"),
            Kind::Jetstream => format!(
                "nats: {{servers: [\"{url}\"], mode: jetstream, jetstream: {{durable_name: {node}}}}}"
            ),
            Kind::Rabbitmq => format!("rabbitmq: {{url: \"{url}\"}}"),
            Kind::RabbitmqDurable => format!(
                "rabbitmq: {{url: \"{url}\", durable_invalidation_mode: true, queue_name: {node}}}"
            ),
        }
    }

    /// A way to it that is no gateway's.
    pub fn open(&self, name: &str) -> Arc<dyn Transport> {
        let yaml = format!("{{{}}}", self.yaml(name));
        let bus: lamina::bus::config::Bus = serde_norway::from_str(&yaml).unwrap();
        match (bus.redis, bus.nats, bus.rabbitmq) {
            (Some(config), _, _) => redis::open(&config).unwrap(),
            (_, Some(config), _) => nats::open(&config).unwrap(),
            (_, _, config) => rabbitmq::open(&config.unwrap()).unwrap(),
        }
    }

    fn url(&self) -> String {
        match &self.server {
            Server::Redis(server) => server.url(),
            Server::Nats(server) => server.url(),
            Server::Rabbit(server) => server.url(),
        }
    }

    /// SIGKILL, and `span` later it is started again with what it had on its disk. Answers
    /// when it answers again.
    pub async fn killed_for(&mut self, span: Duration) -> Instant {
        match &mut self.server {
            Server::Redis(server) => server.kill(),
            Server::Nats(server) => server.kill(),
            Server::Rabbit(server) => server.kill(),
        }
        tokio::time::sleep(span).await;
        match &mut self.server {
            Server::Redis(server) => server.respawn(&[]),
            Server::Nats(server) => server.respawn(),
            Server::Rabbit(server) => server.respawn(),
        }
        match &self.server {
            Server::Redis(server) => server.ready().await,
            Server::Nats(server) => server.ready().await,
            Server::Rabbit(server) => server.ready().await,
        }
        Instant::now()
    }

    /// SIGSTOP, and `span` later it goes on. Answers when.
    pub async fn frozen_for(&mut self, span: Duration) -> Instant {
        match &self.server {
            Server::Redis(server) => server.freeze(),
            Server::Nats(server) => server.freeze(),
            Server::Rabbit(server) => server.freeze(),
        }
        tokio::time::sleep(span).await;
        match &self.server {
            Server::Redis(server) => server.thaw(),
            Server::Nats(server) => server.thaw(),
            Server::Rabbit(server) => server.thaw(),
        }
        Instant::now()
    }
}
