//! Exchanges, this node's queues and their bindings: declared with each connection.
//!
//! Decision: in durable mode, transient messages have an exchange and queues of their own that end
//! with their connections. A time to live on the message is not enough: RabbitMQ drops expired
//! messages only at the head of a queue, and in the queue of a node that is away, the head is what
//! was kept for it.
//!
//! Decision: in durable mode we first ask whether queue and exchange exist, on channels that the
//! answer may close. Declaring alone does not distinguish a queue that kept everything from one
//! that was just made because the old one was deleted or had expired.
//!
//! Not noticed here: an exchange that was deleted and made again by others while we were away. The
//! numbers of events show that gap.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use tokio::time::{Instant, sleep};

use super::config::{ExchangeType, RabbitMqConfig};
use super::fault::{RabbitMqFault, is_missing};

/// Queues from which we can consume.
pub(super) struct DeclaredQueues {
    pub(super) queue: ShortString,
    /// The queue for transient messages, if they do not come by the same queue.
    pub(super) moment: Option<ShortString>,
    /// The number of messages that were kept for us; none: earlier messages may be lost.
    pub(super) behind: Option<u64>,
}

/// How long to wait on one connection until the broker has noticed the end of the one before, and
/// the pause between two looks: another connection would cost it more, and us a pause.
const FORMER: Duration = Duration::from_secs(1);
const FORMER_AGAIN: Duration = Duration::from_millis(25);
/// Appended to the exchange's name for transient messages.
pub(super) const MOMENT: &str = ".moment";

/// Declares everything, and finds out how much was kept.
pub(super) async fn declare(
    config: &RabbitMqConfig,
    connection: &Connection,
    channel: &Channel,
) -> Result<DeclaredQueues, RabbitMqFault> {
    let kept = config.durable_invalidation_mode && was_there(config, connection).await?;
    let exchange = ExchangeDeclareOptions {
        durable: config.is_durable(),
        ..ExchangeDeclareOptions::default()
    };
    declare_exchange(config, channel, config.exchange.as_str(), exchange).await?;
    let name = config.queue_name.as_deref().unwrap_or_default();
    let options = QueueDeclareOptions {
        durable: config.is_durable() && !name.is_empty(),
        exclusive: config.is_exclusive(),
        auto_delete: config.is_auto_delete(),
        ..QueueDeclareOptions::default()
    };
    let began = Instant::now();
    let queue = loop {
        let queue = channel
            .queue_declare(name.into(), options, arguments(config))
            .await?;
        if !kept || queue.consumer_count() == 0 {
            break queue;
        }
        // It may be our own earlier connection. The messages that it was sent are counted here only
        // when it is gone.
        if began.elapsed() > FORMER {
            let word = format!("queue '{name}' has a consumer already");
            return Err(RabbitMqFault::Locked(word));
        }
        sleep(FORMER_AGAIN).await;
    };
    let moment = match config.durable_invalidation_mode {
        true => Some(declare_moment(config, channel).await?),
        false => None,
    };
    let declared = DeclaredQueues {
        behind: kept.then(|| queue.message_count().into()),
        queue: queue.name().clone(),
        moment,
    };
    bind(config, channel, &declared).await?;
    Ok(declared)
}

async fn declare_moment(
    config: &RabbitMqConfig,
    channel: &Channel,
) -> Result<ShortString, RabbitMqFault> {
    let options = ExchangeDeclareOptions {
        auto_delete: true,
        ..ExchangeDeclareOptions::default()
    };
    declare_exchange(config, channel, &moment(config), options).await?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare(ShortString::default(), options, FieldTable::default())
        .await?;
    Ok(queue.name().clone())
}

async fn declare_exchange(
    config: &RabbitMqConfig,
    channel: &Channel,
    name: &str,
    options: ExchangeDeclareOptions,
) -> Result<(), RabbitMqFault> {
    let kind = kind(config.exchange_type);
    channel
        .exchange_declare(name.into(), kind, options, FieldTable::default())
        .await?;
    Ok(())
}

/// The exchange of transient messages; in plain mode it is the ordinary one.
pub(super) fn moment(config: &RabbitMqConfig) -> String {
    match config.durable_invalidation_mode {
        true => format!("{}{MOMENT}", config.exchange),
        false => config.exchange.clone(),
    }
}

/// Binds the queues. If they are bound already, nothing happens.
pub(super) async fn bind(
    config: &RabbitMqConfig,
    channel: &Channel,
    declared: &DeclaredQueues,
) -> Result<(), RabbitMqFault> {
    let pairs = [
        (Some(&declared.queue), config.exchange.clone()),
        (declared.moment.as_ref(), moment(config)),
    ];
    for (queue, exchange) in pairs {
        let Some(queue) = queue else { continue };
        let key = config.routing_key.as_str().into();
        let options = QueueBindOptions::default();
        let none = FieldTable::default();
        channel
            .queue_bind(queue.clone(), exchange.into(), key, options, none)
            .await?;
    }
    Ok(())
}

/// Whether queue and exchange existed before us. A negative answer closes the channel that asked.
async fn was_there(
    config: &RabbitMqConfig,
    connection: &Connection,
) -> Result<bool, RabbitMqFault> {
    let name = config.queue_name.as_deref().unwrap_or_default();
    let passive = QueueDeclareOptions::default().passive();
    let asks = connection.create_channel().await?;
    let queue = asks.queue_declare(name.into(), passive, FieldTable::default());
    if !found(queue.await.map(drop))? {
        return Ok(false);
    }
    exchange_stands(config, &asks).await
}

/// Whether the exchange exists, whatever its type. A negative answer closes the channel.
pub(super) async fn exchange_stands(
    config: &RabbitMqConfig,
    asks: &Channel,
) -> Result<bool, RabbitMqFault> {
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    let exchange = config.exchange.as_str().into();
    let kind = kind(config.exchange_type);
    let exchange = asks.exchange_declare(exchange, kind, passive, FieldTable::default());
    found(exchange.await)
}

fn found(answer: lapin::Result<()>) -> Result<bool, RabbitMqFault> {
    match answer {
        Ok(()) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn kind(of: ExchangeType) -> ExchangeKind {
    match of {
        ExchangeType::Fanout => ExchangeKind::Fanout,
        ExchangeType::Topic => ExchangeKind::Topic,
        ExchangeType::Direct => ExchangeKind::Direct,
    }
}

fn arguments(config: &RabbitMqConfig) -> FieldTable {
    let mut arguments = FieldTable::default();
    if let Some(expires) = config.expires() {
        let millis = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(millis));
    }
    arguments
}
