//! Redis Pub/Sub as the bus: what it alone has. The rest is in `bus_transport`.

use std::sync::Arc;

use e2e::redis::Redis;
use lamina::bus::redis::{config, open};
use lamina::bus::transport::Transport;
use lamina::units::Duration;

use crate::bus_transport::Broker;

/// One server.
pub struct PubSub(Redis);

fn config_of(url: String) -> config::Redis {
    config::Redis {
        url,
        connect_timeout: Duration::secs(1),
        silence_timeout: Duration::secs(1),
        reconnect_max: Duration::millis(500),
        ..config::Redis::default()
    }
}

impl Broker for PubSub {
    const DURABLE: bool = false;

    async fn start() -> Self {
        Self(Redis::start().await)
    }

    fn port(&self) -> u16 {
        self.0.port
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn respawn(&mut self) {
        self.0.respawn(&[]);
    }

    fn freeze(&self) {
        self.0.freeze();
    }

    fn thaw(&self) {
        self.0.thaw();
    }

    fn open(&self, port: u16, _node: &str) -> Arc<dyn Transport> {
        open(&config_of(format!("redis://127.0.0.1:{port}"))).unwrap()
    }
}
