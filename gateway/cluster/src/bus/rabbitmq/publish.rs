//! Publishing on a channel with publisher confirms.
//!
//! Decision: a publish takes the idle channel and puts it back only when every confirm has come. A
//! publish that fails, or whose future is dropped, drops its channel, and with it everything that
//! lapin keeps of unanswered messages; the next publish opens another channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::config::RabbitMqConfig;
use super::declare::moment;
use super::fault::{RabbitMqFault, is_missing};
use crate::bus::transport::{PublishError, PublishOutcome};

/// The publishing side of a connection.
pub(super) struct RabbitMqPublisher {
    config: Arc<RabbitMqConfig>,
    connection: Connection,
    idle: Mutex<Option<Channel>>,
    /// Channels without confirms, for transient messages. Values have one of their own: the broker
    /// ends the channel of a value that is larger than it takes, and drops what comes after it.
    words: Mutex<Option<Channel>>,
    values: Mutex<Option<Channel>>,
    /// Notified when the exchange no longer exists: everything must be declared again.
    pub(super) lost: Notify,
    largest: Arc<BrokerSizeLimit>,
}

/// The largest message in bytes that the broker takes. The broker says so only when it refuses one,
/// so the value is kept for later connections; 0: it has not said yet.
#[derive(Default)]
pub(super) struct BrokerSizeLimit(AtomicUsize);

impl BrokerSizeLimit {
    pub(super) fn get(&self) -> Option<usize> {
        let bytes = self.0.load(Ordering::Acquire);
        (bytes > 0).then_some(bytes)
    }

    fn learn(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Release);
    }
}

/// What a negative confirm means.
const NOT_KEPT: &str = "the broker could not keep the message: a queue of the exchange is full \
                        and rejects (max-length with overflow reject-publish), or it had an \
                        internal error";

/// The delivery modes of `basic.properties`.
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

impl RabbitMqPublisher {
    pub(super) async fn open(
        config: Arc<RabbitMqConfig>,
        connection: Connection,
        largest: Arc<BrokerSizeLimit>,
    ) -> Result<Self, RabbitMqFault> {
        let channel = with_confirms(&connection).await?;
        Ok(Self {
            config,
            connection,
            idle: Mutex::new(Some(channel)),
            words: Mutex::new(None),
            values: Mutex::new(None),
            lost: Notify::new(),
            largest,
        })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns how many of the first messages the broker confirmed, and why not the next one.
    pub(super) async fn publish(&self, messages: &[Bytes]) -> PublishOutcome {
        if let Some(why) = self.blocked() {
            return (0, Some(why));
        }
        let deadline = self.deadline();
        let channel = match timeout_at(deadline, self.channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return (0, Some(self.failed(error))),
            Err(_) => return (0, Some(PublishError::Timeout)),
        };
        let mut batch = SentBatch::default();
        self.send(&channel, messages, deadline, &mut batch).await;
        let (taken, why) = self.settle(batch, messages, deadline).await;
        if why.is_none() {
            *self.idle.lock() = Some(channel);
        }
        (taken, why)
    }

    /// Publishes messages other than values without confirms. Returns how many of the first
    /// messages were sent, and why not the next one.
    pub(super) async fn whisper(&self, messages: &[Bytes]) -> PublishOutcome {
        self.send_unconfirmed(&self.words, messages).await
    }

    /// The same for values.
    pub(super) async fn whisper_values(&self, messages: &[Bytes]) -> PublishOutcome {
        self.send_unconfirmed(&self.values, messages).await
    }

    async fn send_unconfirmed(
        &self,
        kept: &Mutex<Option<Channel>>,
        messages: &[Bytes],
    ) -> PublishOutcome {
        if let Some(why) = self.blocked() {
            return (0, Some(why));
        }
        let open = kept.lock().take();
        let open = open.filter(|channel| channel.status().connected());
        let deadline = self.deadline();
        let work = async {
            let channel = match open {
                Some(channel) => channel,
                None => self.connection.create_channel().await?,
            };
            for message in messages {
                let exchange = moment(&self.config).into();
                let key = self.config.routing_key.as_str().into();
                let options = BasicPublishOptions::default();
                let properties = properties(TRANSIENT);
                channel
                    .basic_publish(exchange, key, options, message, properties)
                    .await?;
            }
            Ok(channel)
        };
        match timeout_at(deadline, work).await {
            Ok(Ok(channel)) => {
                *kept.lock() = Some(channel);
                (messages.len(), None)
            }
            Ok(Err(error)) => (0, Some(self.failed(error))),
            Err(_) => (0, Some(PublishError::Timeout)),
        }
    }

    /// Whether the broker has an alarm, and has noticed that this connection publishes.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.config.confirm_timeout.0
    }

    /// The error if the broker has blocked us: it then does not read what we send, and lapin would
    /// keep it all.
    fn blocked(&self) -> Option<PublishError> {
        self.is_blocked().then(|| {
            refused(
                "connection.blocked: RabbitMQ has a memory or disk alarm and accepts no messages",
            )
        })
    }

    async fn channel(&self) -> lapin::Result<Channel> {
        let idle = self.idle.lock().take();
        match idle.filter(|channel| channel.status().connected()) {
            Some(channel) => Ok(channel),
            None => with_confirms(&self.connection).await,
        }
    }

    async fn send(
        &self,
        channel: &Channel,
        messages: &[Bytes],
        deadline: Instant,
        batch: &mut SentBatch,
    ) {
        let mode = if self.config.is_persistent() {
            PERSISTENT
        } else {
            TRANSIENT
        };
        let properties = properties(mode);
        // Our own queue is bound, so a message that reaches no queue shows that something is wrong.
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        for message in messages {
            let exchange = self.config.exchange.as_str().into();
            let key = self.config.routing_key.as_str().into();
            let sent = channel.basic_publish(exchange, key, options, message, properties.clone());
            match timeout_at(deadline, sent).await {
                Ok(Ok(confirm)) => batch.sent.push(confirm),
                Ok(Err(error)) => batch.why = Some(self.failed(error)),
                Err(_) => batch.why = Some(PublishError::Timeout),
            }
            if batch.why.is_some() {
                return;
            }
        }
    }

    /// Waits for the confirms in their order. Continues after a refusal, since lapin may report a
    /// returned message with another message's confirm.
    async fn settle(
        &self,
        batch: SentBatch,
        messages: &[Bytes],
        deadline: Instant,
    ) -> PublishOutcome {
        let mut first = FirstFailure {
            taken: batch.sent.len(),
            why: batch.why,
        };
        for (at, confirm) in batch.sent.into_iter().enumerate() {
            let confirmation = match timeout_at(deadline, confirm).await {
                Ok(Ok(confirmation)) => confirmation,
                Ok(Err(error)) => {
                    first.note(at, self.failed(error));
                    break;
                }
                Err(_) => {
                    first.note(at, PublishError::Timeout);
                    break;
                }
            };
            if confirmation.is_nack() {
                first.note(at, refused(NOT_KEPT));
            }
            if let Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) =
                confirmation
            {
                let same = |message: &Bytes| message[..] == returned.data[..];
                let of = messages.iter().position(same).unwrap_or(at);
                first.note(of, refused(returned.reply_text.as_str()));
            }
        }
        (first.taken, first.why)
    }

    fn failed(&self, error: lapin::Error) -> PublishError {
        let is_lost = is_missing(&error);
        if is_lost {
            self.lost.notify_one();
        }
        match RabbitMqFault::from(error) {
            RabbitMqFault::TooLarge { limit, said } => {
                self.largest.learn(limit);
                PublishError::TooLarge {
                    limit: Some(limit),
                    said,
                }
            }
            // Only the channel has ended: the connection stands.
            fault @ RabbitMqFault::Refused(_)
                if !is_lost && self.connection.status().connected() =>
            {
                PublishError::Refused(fault.to_string())
            }
            fault => PublishError::Down(fault.to_string()),
        }
    }
}

/// Which messages of a batch were sent, and why not all.
#[derive(Default)]
struct SentBatch {
    sent: Vec<PublisherConfirm>,
    why: Option<PublishError>,
}

/// The first message that was not taken.
struct FirstFailure {
    taken: usize,
    why: Option<PublishError>,
}

impl FirstFailure {
    fn note(&mut self, at: usize, why: PublishError) {
        if at < self.taken {
            *self = Self {
                taken: at,
                why: Some(why),
            };
        }
    }
}

fn properties(mode: u8) -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/msgpack".into())
        .with_delivery_mode(mode)
}

fn refused(why: &str) -> PublishError {
    PublishError::Refused(why.to_owned())
}

async fn with_confirms(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_message_that_was_not_taken_counts() {
        let mut first = FirstFailure {
            taken: 5,
            why: None,
        };
        first.note(3, refused("b"));
        first.note(4, refused("c"));
        first.note(1, refused("a"));
        assert_eq!(first.taken, 1);
        assert_eq!(first.why.unwrap().to_string(), "refused: a");
    }
}
