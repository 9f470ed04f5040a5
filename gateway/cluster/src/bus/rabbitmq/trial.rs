//! RabbitMQ with a queue that no gateway uses: the broker names it, and it ends with its
//! connection, whatever mode is configured.
//!
//! Decision: the exchange is the configured one, declared with the configured properties, so that
//! the trial is refused what a gateway would be refused. If the exchange did not exist before, it
//! is deleted again, unless it is in use by then. Queues of nodes that are away keep what is
//! published, as any event: a durable mode can't be tried in another way.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, Error, ErrorKind};
use tokio::time::{Instant, sleep, timeout};

use super::config::RabbitMqConfig;
use super::declare::exchange_stands;
use super::fault::{RabbitMqFault, is_missing};
use super::line::{RabbitMqSocket, dial};
use super::target::RabbitMqTarget;
use crate::bus::transport::BusTransport;
use crate::bus::trial::{BrokerFinding, PreparedTrial, TransportTrial};
use crate::description::InvalidSetting;
use crate::units;

/// From what the ends are made.
pub(super) struct RabbitMqTrial {
    config: RabbitMqConfig,
    target: RabbitMqTarget,
    /// The exchange existed before the trial.
    stood: bool,
}

/// A connection, and the socket whose drop cuts it.
struct TrialConnection {
    connection: Connection,
    _line: RabbitMqSocket,
}

/// Our queues end some time after their connections; for this long they may still use the exchange.
const IN_USE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(50);

impl RabbitMqTrial {
    pub(super) async fn prepare(config: &RabbitMqConfig) -> Result<PreparedTrial, String> {
        let target = RabbitMqTarget::new(config).map_err(|e| e.to_string())?;
        let open = open(config, &target).await.map_err(|e| e.to_string())?;
        let looked = look(config, &open.connection).await;
        let (stood, seen) = looked.map_err(|e| e.to_string())?;
        let config = config.clone();
        let trial = Self {
            config,
            target,
            stood,
        };
        Ok((Box::new(trial), seen))
    }

    /// The configuration of each end.
    fn end(&self) -> RabbitMqConfig {
        RabbitMqConfig {
            durable: Some(self.config.is_durable()),
            persistent: Some(self.config.is_persistent()),
            durable_invalidation_mode: false,
            queue_name: None,
            exclusive_queue: Some(true),
            auto_delete_queue: Some(true),
            queue_expires: Some(units::ConfigDuration::ZERO),
            ..self.config.clone()
        }
    }

    async fn remove(&self) -> Result<(), String> {
        if self.stood {
            return Ok(());
        }
        let open = open(&self.config, &self.target).await;
        let open = open.map_err(|e| e.to_string())?;
        let began = Instant::now();
        loop {
            let gone = delete(&open.connection, &self.config.exchange).await;
            match gone {
                Ok(()) => return Ok(()),
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) if !is_refusal(&error) => {
                    return Err(RabbitMqFault::from(error).to_string());
                }
                // A gateway has begun to use it.
                Err(_) if began.elapsed() >= IN_USE => return Ok(()),
                Err(_) => sleep(AGAIN).await,
            }
        }
    }
}

impl TransportTrial for RabbitMqTrial {
    fn open(&self, _name: &str) -> Result<Arc<dyn BusTransport>, InvalidSetting> {
        Ok(super::open(&self.end())?)
    }

    fn clear<'a>(&'a self, _names: &'a [&'a str]) -> BoxFuture<'a, Result<(), String>> {
        self.remove().boxed()
    }
}

/// Connects to the first server that accepts a connection.
async fn open(
    config: &RabbitMqConfig,
    target: &RabbitMqTarget,
) -> Result<TrialConnection, RabbitMqFault> {
    let limit = config.connect_timeout.0;
    let mut last = RabbitMqFault::Silent("connecting");
    for attempt in 0..target.servers() {
        let line = RabbitMqSocket::default();
        let dialled = timeout(limit, dial(target, attempt, limit, &line)).await;
        match dialled.unwrap_or(Err(RabbitMqFault::Silent("connecting"))) {
            Ok(connection) => {
                return Ok(TrialConnection {
                    connection,
                    _line: line,
                });
            }
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

/// Whether the exchange exists, and further findings.
async fn look(
    config: &RabbitMqConfig,
    connection: &Connection,
) -> Result<(bool, Vec<BrokerFinding>), RabbitMqFault> {
    let asks = connection.create_channel().await?;
    let stood = exchange_stands(config, &asks).await?;
    let name = &config.exchange;
    let says = match stood {
        // Its type is compared when the ends declare it.
        true => format!("{name} exists"),
        false => format!("{name} does not exist yet: the first gateway creates it"),
    };
    let (what, fault) = ("exchange", None);
    let mut seen = vec![BrokerFinding { what, says, fault }];
    if config.durable_invalidation_mode {
        seen.push(look_at_queue(config, connection).await?);
    }
    Ok((stood, seen))
}

async fn look_at_queue(
    config: &RabbitMqConfig,
    connection: &Connection,
) -> Result<BrokerFinding, RabbitMqFault> {
    let name = config.queue_name.as_deref().unwrap_or_default();
    let asks = connection.create_channel().await?;
    let passive = QueueDeclareOptions::default().passive();
    let queue = asks.queue_declare(name.into(), passive, FieldTable::default());
    let says = match queue.await {
        Ok(queue) => format!(
            "{name}: {} messages wait for this node, {}",
            queue.message_count(),
            match queue.consumer_count() {
                0 => "which is not connected",
                _ => "which is connected",
            }
        ),
        Err(error) if is_missing(&error) => {
            format!("{name} does not exist yet: this node creates it when it starts")
        }
        Err(error) => return Err(error.into()),
    };
    let (what, fault) = ("queue", None);
    Ok(BrokerFinding { what, says, fault })
}

async fn delete(connection: &Connection, exchange: &str) -> lapin::Result<()> {
    let options = ExchangeDeleteOptions {
        if_unused: true,
        ..ExchangeDeleteOptions::default()
    };
    // A refusal closes the channel, so each attempt opens one.
    let channel = connection.create_channel().await?;
    channel.exchange_delete(exchange.into(), options).await
}

fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(_))
}
