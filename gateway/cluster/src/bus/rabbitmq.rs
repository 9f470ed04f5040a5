//! RabbitMQ as the event bus: one exchange, and a queue for each node that is bound to it.
//!
//! Inside: `config`, with its `check`; `description`, with its `promises`; `target` (what a
//! connection needs of the configuration); `keeper` (reconnects); `link` (one connection); `line` (its socket); `declare` (exchange, queue,
//! binding); `acks` (acknowledgements); `publish`; and `trial` (with a queue that no gateway uses).
//!
//! Decision: every message is acknowledged, in plain mode too, because the prefetch limit is what
//! bounds memory, and it does not apply to messages that need no acknowledgement. The modes differ
//! in the queue: in plain mode it ends with the connection; in durable mode it keeps what arrives
//! while the node is away.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::description::TransportDescription;
use super::inbox::ExpectedNamesake;
use super::transport::{
    BusTransport, ConnectionCutter, Guarantee, PublishError, PublishOutcome, TransportEventSender,
};

mod acks;
mod check;
pub mod config;
mod declare;
mod description;
mod fault;
mod keeper;
mod line;
mod link;
mod promises;
mod publish;
mod target;
mod trial;

pub use config::{ExchangeType, RabbitMqConfig, RabbitMqOpenError};

use keeper::{RabbitMqLinkState, RabbitMqReconnector};
use publish::BrokerSizeLimit;
use target::RabbitMqTarget;

/// Its name in metrics, logs and `lamina doctor`.
const KIND: &str = "rabbitmq";

struct RabbitMq {
    config: Arc<RabbitMqConfig>,
    target: Arc<RabbitMqTarget>,
    standing: Arc<RabbitMqLinkState>,
    knife: Arc<ConnectionCutter>,
    largest: Arc<BrokerSizeLimit>,
    namesake: Arc<ExpectedNamesake>,
    /// Dropped with the transport; the reconnector then closes the connection properly.
    stop: DropGuard,
}

/// Makes the transport, which does not connect before [`BusTransport::run`]. Never waits.
///
/// # Errors
/// When a setting is not valid, or certificates can't be read.
pub fn open(config: &RabbitMqConfig) -> Result<Arc<dyn BusTransport>, RabbitMqOpenError> {
    Ok(Arc::new(RabbitMq {
        target: Arc::new(RabbitMqTarget::new(config)?),
        config: Arc::new(config.clone()),
        standing: Arc::new(RabbitMqLinkState::new()),
        knife: Arc::default(),
        largest: Arc::default(),
        namesake: Arc::default(),
        stop: CancellationToken::new().drop_guard(),
    }))
}

impl BusTransport for RabbitMq {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn guarantee(&self) -> Guarantee {
        TransportDescription::guarantee(&*self.config)
    }

    fn publish<'a>(&'a self, messages: &'a [Bytes]) -> BoxFuture<'a, PublishOutcome> {
        Box::pin(async move {
            match self.standing.publisher() {
                Ok(publisher) => publisher.publish(messages).await,
                Err(why) => (0, Some(PublishError::Down(why))),
            }
        })
    }

    fn whisper<'a>(&'a self, messages: &'a [Bytes]) -> BoxFuture<'a, PublishOutcome> {
        Box::pin(async move {
            match self.standing.publisher() {
                Ok(publisher) => publisher.whisper(messages).await,
                Err(why) => (0, Some(PublishError::Down(why))),
            }
        })
    }

    fn whisper_values<'a>(&'a self, values: &'a [Bytes]) -> BoxFuture<'a, PublishOutcome> {
        Box::pin(async move {
            match self.standing.publisher() {
                Ok(publisher) => publisher.whisper_values(values).await,
                Err(why) => (0, Some(PublishError::Down(why))),
            }
        })
    }

    fn max_message_bytes(&self) -> Option<usize> {
        self.largest.get()
    }

    fn run(&self, mail: TransportEventSender) {
        let keeper = RabbitMqReconnector {
            config: Arc::clone(&self.config),
            target: Arc::clone(&self.target),
            standing: Arc::clone(&self.standing),
            knife: Arc::clone(&self.knife),
            largest: Arc::clone(&self.largest),
            namesake: Arc::clone(&self.namesake),
            stop: self.stop.token().clone(),
            mail,
        };
        tokio::spawn(keeper.keep());
    }

    fn cut(&self) {
        self.knife.cut();
    }

    fn expect_namesake_for(&self, span: Duration) {
        self.namesake.expect_for(span);
    }

    fn give_up_queue(&self) {
        if self.config.queue_name.is_some() {
            self.stop.token().cancel();
        }
    }
}
