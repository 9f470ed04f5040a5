//! One connection from its opening to its end, with a channel to consume and one to publish.
//!
//! Invariant: a link that is open consumes. Whatever ends consuming (the connection ends, a channel
//! ends, the broker cancels or is silent) ends the link.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery as Came;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::acks::AckTracker;
use super::config::RabbitMqConfig;
use super::declare::{DeclaredQueues, bind, declare};
use super::fault::RabbitMqFault;
use super::line::{RabbitMqSocket, dial};
use super::publish::{BrokerSizeLimit, RabbitMqPublisher};
use super::target::RabbitMqTarget;
use crate::bus::transport::{IncomingMessage, TransportEvent, TransportEventSender};
use crate::knock::knock;

/// A connection that consumes.
pub(super) struct RabbitMqLink {
    config: Arc<RabbitMqConfig>,
    pub(super) publisher: Arc<RabbitMqPublisher>,
    channel: Channel,
    declared: DeclaredQueues,
    consumer: Consumer,
    /// The consumer of transient messages, if they come by a queue of their own.
    whispers: Option<Consumer>,
    // Last, so that the socket is cut after the others were closed.
    line: RabbitMqSocket,
}

/// The time between two checks whether the binding exists. Until the check, a node whose binding is
/// gone hears nothing and does not know it.
const PULSE: Duration = Duration::from_secs(1);
/// The time limit for a proper close.
const CLOSE: Duration = Duration::from_secs(1);

impl RabbitMqLink {
    pub(super) async fn open(
        config: &Arc<RabbitMqConfig>,
        target: &RabbitMqTarget,
        attempt: usize,
        largest: &Arc<BrokerSizeLimit>,
    ) -> Result<Self, RabbitMqFault> {
        let limit = config.connect_timeout.0;
        let line = RabbitMqSocket::default();
        let opened = timeout(limit, async {
            // lapin says what is wrong with a server that refuses.
            let first = knock(&target.places(attempt), limit).await.unwrap_or(0);
            let connection = dial(target, attempt + first, limit, &line).await?;
            let ready = consume(config, &connection).await?;
            let publisher =
                RabbitMqPublisher::open(Arc::clone(config), connection, Arc::clone(largest))
                    .await?;
            Ok::<_, RabbitMqFault>((ready, publisher))
        });
        let late = |_| RabbitMqFault::Silent("connecting");
        let (ready, publisher) = opened.await.map_err(late)??;
        Ok(Self {
            config: Arc::clone(config),
            publisher: Arc::new(publisher),
            channel: ready.channel,
            declared: ready.declared,
            consumer: ready.consumer,
            whispers: ready.whispers,
            line,
        })
    }

    /// The value for `TransportEvent::Up`.
    pub(super) fn behind(&self) -> Option<u64> {
        self.declared.behind
    }

    /// Passes on what arrives, until the link ends. Returns why it ended, or Ok if the receiver is
    /// gone.
    pub(super) async fn serve(
        mut self,
        mail: &TransportEventSender,
        stop: &CancellationToken,
    ) -> Result<(), RabbitMqFault> {
        let mut acks = AckTracker::new(self.config.max_redeliveries);
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let until_nobody_listens = async {
            loop {
                let word = self.next(mail, &mut acks, &mut pulse).await?;
                if let Some(word) = word
                    && !mail.tell(word).await
                {
                    return Ok::<_, RabbitMqFault>(());
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            ended = until_nobody_listens => ended?,
        }
        self.close().await;
        Ok(())
    }

    /// The next event to report; none if it was reported already, or if there was nothing.
    async fn next(
        &mut self,
        mail: &TransportEventSender,
        acks: &mut AckTracker,
        pulse: &mut Interval,
    ) -> Result<Option<TransportEvent>, RabbitMqFault> {
        tokio::select! {
            came = self.consumer.next() => {
                let came = came.ok_or(RabbitMqFault::Cancelled)??;
                Ok(Some(acks.receive(came)))
            }
            heard = hear(&mut self.whispers) => {
                let gone = || {
                    let why = "the temporary queue of this connection is gone";
                    RabbitMqFault::Broken(why.to_owned())
                };
                pass_on(mail, heard.ok_or_else(gone)??);
                Ok(None)
            }
            word = acks.next() => Ok(Some(word)),
            () = self.publisher.lost.notified() => {
                let exchange = &self.config.exchange;
                Err(RabbitMqFault::Refused(format!("there is no exchange {exchange}")))
            }
            _ = pulse.tick() => self.look().await.map(|()| None),
        }
    }

    /// Renews the binding: when an exchange is deleted, its bindings go with it, and consumers are
    /// not told. Of a connection that it has blocked the broker reads nothing, and so answers
    /// nothing; it delivers as before.
    async fn look(&self) -> Result<(), RabbitMqFault> {
        if self.publisher.is_blocked() {
            return Ok(());
        }
        let bound = bind(&self.config, &self.channel, &self.declared);
        match timeout(self.config.connect_timeout.0, bound).await {
            Ok(bound) => bound,
            Err(_) if self.publisher.is_blocked() => Ok(()),
            Err(_) => Err(RabbitMqFault::Silent("checking the binding")),
        }
    }

    async fn close(self) {
        let close = self.publisher.connection().close(200, "OK".into());
        // The socket is cut in any case.
        let _ = timeout(CLOSE, close).await;
        drop(self.line);
    }
}

struct ConsumerSetup {
    channel: Channel,
    declared: DeclaredQueues,
    consumer: Consumer,
    whispers: Option<Consumer>,
}

async fn consume(
    config: &RabbitMqConfig,
    connection: &Connection,
) -> Result<ConsumerSetup, RabbitMqFault> {
    let channel = connection.create_channel().await?;
    let declared = declare(config, connection, &channel).await?;
    // The limit applies to each consumer.
    channel
        .basic_qos(config.prefetch, BasicQosOptions::default())
        .await?;
    let whispers = match &declared.moment {
        Some(queue) => Some(consumer(&channel, queue).await?),
        None => None,
    };
    Ok(ConsumerSetup {
        consumer: consumer(&channel, &declared.queue).await?,
        whispers,
        channel,
        declared,
    })
}

async fn consumer(channel: &Channel, queue: &ShortString) -> lapin::Result<Consumer> {
    // If two nodes shared one queue, each would get half of the messages, and nobody would notice.
    let options = BasicConsumeOptions {
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let (tag, none) = (ShortString::default(), FieldTable::default());
    channel
        .basic_consume(queue.clone(), tag, options, none)
        .await
}

async fn hear(whispers: &mut Option<Consumer>) -> Option<lapin::Result<Came>> {
    match whispers {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

/// A transient message is passed on at once or dropped.
fn pass_on(mail: &TransportEventSender, heard: Came) {
    let _ = heard.acker.ack(BasicAckOptions::default()).now_or_never();
    mail.try_tell(TransportEvent::Message(IncomingMessage {
        bytes: heard.data.into(),
        receipt: None,
    }));
}
