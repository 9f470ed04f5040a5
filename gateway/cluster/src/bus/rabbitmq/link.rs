//! One connection, from dialling to its end: a channel to consume, one to publish.
//!
//! Invariant: a link that is open consumes. Whatever ends that (the connection, either
//! channel, a cancel by the broker, silence) ends the link.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery as Came;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::declare::{Declared, bind, declare};
use super::desk::Desk;
use super::fault::Fault;
use super::line::{Line, dial};
use super::publish::{Largest, Publisher};
use super::target::Target;
use crate::bus::transport::{Delivery, Mail, Word};

/// A connection that consumes.
pub(super) struct Link {
    config: Arc<Config>,
    pub(super) publisher: Arc<Publisher>,
    channel: Channel,
    declared: Declared,
    consumer: Consumer,
    /// Of what is of the moment, where that comes by a queue of its own.
    whispers: Option<Consumer>,
    // Last: cut when the others have said good-bye.
    line: Line,
}

/// Between two looks whether the binding stands.
const PULSE: Duration = Duration::from_secs(5);
/// To say good-bye.
const CLOSE: Duration = Duration::from_secs(1);

impl Link {
    pub(super) async fn open(
        config: &Arc<Config>,
        target: &Target,
        attempt: usize,
        largest: &Arc<Largest>,
    ) -> Result<Self, Fault> {
        let limit = config.connect_timeout.0;
        let line = Line::default();
        let opened = timeout(limit, async {
            let connection = dial(target, attempt, limit, &line).await?;
            let ready = consume(config, &connection).await?;
            let publisher =
                Publisher::open(Arc::clone(config), connection, Arc::clone(largest)).await?;
            Ok::<_, Fault>((ready, publisher))
        });
        let late = |_| Fault::Silent("connecting");
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

    /// As `Word::Up` says it.
    pub(super) fn behind(&self) -> Option<u64> {
        self.declared.behind
    }

    /// Tells what comes, until the end: why it came to it, or Ok if nobody wants more.
    pub(super) async fn serve(
        mut self,
        mail: &Mail,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let mut desk = Desk::new(self.config.max_redeliveries);
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let until_nobody_listens = async {
            loop {
                let word = self.next(mail, &mut desk, &mut pulse).await?;
                if let Some(word) = word
                    && !mail.tell(word).await
                {
                    return Ok::<_, Fault>(());
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

    /// What is to be told next, or none where it is already, or there was nothing.
    async fn next(
        &mut self,
        mail: &Mail,
        desk: &mut Desk,
        pulse: &mut Interval,
    ) -> Result<Option<Word>, Fault> {
        tokio::select! {
            came = self.consumer.next() => {
                let came = came.ok_or(Fault::Cancelled)??;
                Ok(Some(desk.receive(came)))
            }
            heard = hear(&mut self.whispers) => {
                let gone = || Fault::Broken("the queue of the moment is gone".to_owned());
                pass_on(mail, heard.ok_or_else(gone)??);
                Ok(None)
            }
            word = desk.next() => Ok(Some(word)),
            () = self.publisher.lost.notified() => {
                let exchange = &self.config.exchange;
                Err(Fault::Refused(format!("there is no exchange {exchange}")))
            }
            _ = pulse.tick() => self.look().await.map(|()| None),
        }
    }

    /// An exchange that was deleted takes bindings along without a word to consumers.
    async fn look(&self) -> Result<(), Fault> {
        let bound = bind(&self.config, &self.channel, &self.declared);
        let limit = self.config.connect_timeout.0;
        let late = |_| Fault::Silent("looking at the binding");
        timeout(limit, bound).await.map_err(late)?
    }

    async fn close(self) {
        let close = self.publisher.connection().close(200, "OK".into());
        // Cut in any case.
        let _ = timeout(CLOSE, close).await;
        drop(self.line);
    }
}

struct Ready {
    channel: Channel,
    declared: Declared,
    consumer: Consumer,
    whispers: Option<Consumer>,
}

async fn consume(config: &Config, connection: &Connection) -> Result<Ready, Fault> {
    let channel = connection.create_channel().await?;
    let declared = declare(config, connection, &channel).await?;
    // For each consumer.
    channel
        .basic_qos(config.prefetch, BasicQosOptions::default())
        .await?;
    let whispers = match &declared.moment {
        Some(queue) => Some(consumer(&channel, queue).await?),
        None => None,
    };
    Ok(Ready {
        consumer: consumer(&channel, &declared.queue).await?,
        whispers,
        channel,
        declared,
    })
}

async fn consumer(channel: &Channel, queue: &ShortString) -> lapin::Result<Consumer> {
    // Two nodes on one queue would each get half of the messages, and nobody would know.
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

/// A whisper is of use at once or not at all.
fn pass_on(mail: &Mail, heard: Came) {
    let _ = heard.acker.ack(BasicAckOptions::default()).now_or_never();
    mail.try_tell(Word::Message(Delivery {
        bytes: heard.data.into(),
        receipt: None,
    }));
}
