//! NATS as the bus: what it alone has. The rest is in `bus_transport`.

use std::sync::Arc;

use e2e::nats::Nats;
use lamina::bus::nats::config::{self, Mode};
use lamina::bus::nats::open;
use lamina::bus::transport::Transport;
use lamina::units::Duration;

use crate::bus_transport::{Broker, DELIVERIES};

/// NATS without a store.
pub struct Core(Nats);

/// NATS with JetStream.
pub struct JetStream(Nats);

pub fn config_of(port: u16, mode: Mode, node: &str) -> config::Nats {
    config::Nats {
        servers: vec![format!("nats://127.0.0.1:{port}")],
        mode,
        ping_interval: Duration::millis(300),
        reconnect_max: Duration::millis(500),
        jetstream: config::JetStream {
            durable_name: Some(node.to_owned()),
            max_deliver: DELIVERIES,
            ..config::JetStream::default()
        },
        ..config::Nats::default()
    }
}

macro_rules! broker {
    ($kind:ident, $durable:expr, $mode:expr) => {
        impl Broker for $kind {
            const DURABLE: bool = $durable;

            async fn start() -> Self {
                Self(Nats::start().await)
            }

            fn port(&self) -> u16 {
                self.0.port
            }

            fn kill(&mut self) {
                self.0.kill();
            }

            fn respawn(&mut self) {
                self.0.respawn();
            }

            fn freeze(&self) {
                self.0.freeze();
            }

            fn thaw(&self) {
                self.0.thaw();
            }

            fn open(&self, port: u16, node: &str) -> Arc<dyn Transport> {
                open(&config_of(port, $mode, node)).unwrap()
            }
        }
    };
}

broker!(Core, false, Mode::Core);
broker!(JetStream, true, Mode::Jetstream);
