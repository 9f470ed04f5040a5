//! RabbitMQ in the suite of all transports (`bus_transport`), plain and durable.
//!
//! A server takes seconds to start, so there are two for all: one that is left as it is,
//! and one that is harmed by one test at a time. Each test has an exchange of its own.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use e2e::rabbit::{Rabbit, harmed, shared};
use lamina_base::units;
use lamina_cluster::bus::rabbitmq::{RabbitMqConfig, open};
use lamina_cluster::bus::transport::BusTransport;
use tokio::sync::MutexGuard;

use crate::bus_transport::{Broker, DELIVERIES};

/// RabbitMQ, in durable mode or not.
pub struct Of<const DURABLE: bool> {
    server: Server,
    pub exchange: String,
}

pub type Plain = Of<false>;
pub type Durable = Of<true>;

enum Server {
    Shared(&'static Rabbit),
    Harmed(MutexGuard<'static, Rabbit>),
}

impl Server {
    fn harmed(&mut self) -> &mut Rabbit {
        match self {
            Self::Harmed(server) => server,
            Self::Shared(_) => panic!("others use it"),
        }
    }
}

impl Deref for Server {
    type Target = Rabbit;

    fn deref(&self) -> &Rabbit {
        match self {
            Self::Shared(server) => server,
            Self::Harmed(server) => server,
        }
    }
}

impl<const DURABLE: bool> Of<DURABLE> {
    fn new(server: Server) -> Self {
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let number = TESTS.fetch_add(1, Ordering::Relaxed);
        Self {
            server,
            exchange: format!("conformance-{number}"),
        }
    }

    /// What `rabbitmqctl` prints.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.server.ctl(arguments).await
    }
}

impl<const DURABLE: bool> Broker for Of<DURABLE> {
    const DURABLE: bool = DURABLE;
    // In the queue, which is the broker's, up to what it has room for.
    const WAITS: bool = true;

    async fn start() -> Self {
        Self::new(Server::Harmed(harmed().await))
    }

    async fn shared() -> Self {
        Self::new(Server::Shared(shared().await))
    }

    fn port(&self) -> u16 {
        self.server.port
    }

    fn kill(&mut self) {
        self.server.harmed().kill();
    }

    fn respawn(&mut self) {
        self.server.harmed().respawn();
    }

    fn freeze(&self) {
        self.server.freeze();
    }

    fn thaw(&self) {
        self.server.thaw();
    }

    fn open(&self, port: u16, node: &str) -> Arc<dyn BusTransport> {
        let config = RabbitMqConfig {
            url: format!("amqp://127.0.0.1:{port}"),
            exchange: self.exchange.clone(),
            durable_invalidation_mode: DURABLE,
            queue_name: DURABLE.then(|| format!("{}-{node}", self.exchange)),
            max_redeliveries: DELIVERIES - 1,
            heartbeat: units::ConfigDuration::secs(3),
            connect_timeout: units::ConfigDuration::secs(10),
            confirm_timeout: units::ConfigDuration::secs(10),
            reconnect_max: units::ConfigDuration::secs(1),
            ..RabbitMqConfig::default()
        };
        open(&config).unwrap()
    }
}
