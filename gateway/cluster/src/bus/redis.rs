//! Redis Pub/Sub as the event bus: at most once, to the nodes that are connected.
//!
//! Inside: `config`; `description`; `session` (two connections and their use). Decision: one connection subscribes
//! and another one publishes. They are opened and closed together, so that *up* means both, and a
//! publisher learns at once when there is no connection.

pub mod config;
mod description;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tokio::time::sleep;

use super::transport::{
    BusTransport, ConnectionCutter, Guarantee, PublishError, PublishOutcome, ReconnectTask,
    TransportEvent, TransportEventSender,
};
use crate::redis::{RedisConnector, RedisError};
pub use config::RedisBusOpenError;
use session::{PubSubChannel, PubSubPublisher, PubSubSession};

/// Its name in metrics, logs and `lamina doctor`.
const KIND: &str = "redis";

struct PubSub {
    inner: Arc<PubSubState>,
    keeper: ReconnectTask,
}

struct PubSubState {
    plan: RedisConnector,
    channel: PubSubChannel,
    /// The publisher, or why there is none.
    standing: RwLock<Result<PubSubPublisher, String>>,
    /// The largest message in bytes that reaches subscribers, as Redis said at the last connect; 0:
    /// it has not said.
    max_message_bytes: AtomicUsize,
    knife: ConnectionCutter,
}

/// Makes a transport that connects by itself, first in `run` and again whenever a connection is
/// lost.
///
/// # Errors
/// When the configuration is not valid for Redis. A server that is down is not an error.
pub fn open(config: &config::RedisBusConfig) -> Result<Arc<dyn BusTransport>, RedisBusOpenError> {
    description::check(config)?;
    Ok(Arc::new(PubSub {
        inner: Arc::new(PubSubState {
            plan: RedisConnector::new(&config.connection())?,
            channel: PubSubChannel::new(
                &config.channel,
                config.sharded,
                config.username.as_deref().unwrap_or("default"),
            ),
            standing: RwLock::new(Err("not connected yet".to_owned())),
            max_message_bytes: AtomicUsize::new(0),
            knife: ConnectionCutter::default(),
        }),
        keeper: ReconnectTask::default(),
    }))
}

impl BusTransport for PubSub {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn publish<'a>(&'a self, messages: &'a [Bytes]) -> BoxFuture<'a, PublishOutcome> {
        Box::pin(async move {
            let mouth = self.inner.standing.read().clone();
            match mouth {
                Ok(mouth) => mouth.publish(messages).await,
                Err(why) => (0, Some(PublishError::Down(why))),
            }
        })
    }

    fn max_message_bytes(&self) -> Option<usize> {
        let bytes = self.inner.max_message_bytes.load(Ordering::Acquire);
        (bytes > 0).then_some(bytes)
    }

    fn run(&self, mail: TransportEventSender) {
        self.keeper.start(keep(Arc::clone(&self.inner), mail));
    }

    fn cut(&self) {
        self.inner.knife.cut();
    }
}

/// Connects again and again until the receiver of events is gone.
async fn keep(inner: Arc<PubSubState>, mail: TransportEventSender) {
    let mut pauses = inner.plan.pauses();
    loop {
        let (why, listened) = match PubSubSession::begin(&inner.plan, &inner.channel).await {
            Ok(session) => {
                if let Some(after_seconds) = pauses.connected() {
                    tracing::info!(bus = KIND, after_seconds, "connected to Redis");
                }
                inner.live(session, &mail).await
            }
            Err(why) => {
                *inner.standing.write() = Err(why.to_string());
                (why, true)
            }
        };
        if !listened {
            return;
        }
        if pauses.failed() {
            tracing::warn!(bus = KIND, error = %why, "no connection to Redis; reconnecting");
        }
        sleep(pauses.next()).await;
    }
}

impl PubSubState {
    /// Runs one session from *up* to *down*. Returns why it ended, and whether the receiver of
    /// events is still there.
    async fn live(
        &self,
        session: PubSubSession,
        mail: &TransportEventSender,
    ) -> (RedisError, bool) {
        let largest = session.max_message_bytes().unwrap_or(0);
        self.max_message_bytes.store(largest, Ordering::Release);
        *self.standing.write() = Ok(session.mouth());
        let told = mail.tell(TransportEvent::Up { behind: None }).await;
        let why = if told {
            tokio::select! {
                why = session.hold(mail) => why,
                why = self.knife.falls() => RedisError::Down(why.to_owned()),
            }
        } else {
            RedisError::Down("the receiver of events has ended".to_owned())
        };
        *self.standing.write() = Err(why.to_string());
        let told = told && mail.tell(TransportEvent::Down(why.to_string())).await;
        (why, told)
    }
}
