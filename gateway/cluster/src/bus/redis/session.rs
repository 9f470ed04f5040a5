//! A pair of connections to Redis, from their opening to the end of either one.
//!
//! Decision: we ask all the time whether we are subscribed, because fred reports only that a
//! SUBSCRIBE was written, drops the server's refusal, and drops the notice that a slot, and the
//! subscriptions with it, moved to another server. With RESP2 a PING on a subscriber's connection
//! has another answer than on any other connection (`pong` and a text, in place of `PONG`).
//! Decision: PUBLISH is sent to the node that holds the channel's slot, although any node would
//! take it: fred would choose a random node each time, and the messages would lose their order.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use lamina_base::redis::driver::Client;
use lamina_base::redis::driver::redis_keyslot;
use lamina_base::redis::driver::{ClientLike, EventInterface, PubsubInterface};
use lamina_base::redis::driver::{ClusterHash, CustomCommand, Message, Value};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use crate::bus::transport::{PublishError, TransportEventSender};
use crate::redis::{RedisConnection, RedisConnector, RedisError, ping, unanswered};

/// The most messages that the task which passes them on may be behind.
const BEHIND: usize = 4_096;
/// The most messages that are sent before the first answer is awaited.
const BATCH: usize = 256;

/// The channel to which nodes publish and subscribe.
#[derive(Clone)]
pub(super) struct PubSubChannel {
    name: Arc<str>,
    sharded: bool,
    /// Who may use it.
    user: Arc<str>,
}

/// A connection that subscribes, and one that publishes.
pub(super) struct PubSubSession {
    channel: PubSubChannel,
    plan: RedisConnector,
    listening: RedisConnection,
    publishing: RedisConnection,
    messages: Receiver<Message>,
    max_message_bytes: Option<usize>,
}

/// Publishes to the channel.
#[derive(Clone)]
pub(super) struct PubSubPublisher {
    channel: PubSubChannel,
    client: Client,
    max_message_bytes: Option<usize>,
}

impl PubSubChannel {
    pub(super) fn new(name: &str, sharded: bool, user: &str) -> Self {
        Self {
            name: name.into(),
            sharded,
            user: user.into(),
        }
    }

    /// The slot to whose node messages are published.
    fn slot(&self) -> ClusterHash {
        ClusterHash::Custom(redis_keyslot(self.name.as_bytes()))
    }

    /// The slot to whose node fred sends subscriptions.
    fn ear(&self, client: &Client) -> ClusterHash {
        if self.sharded {
            return self.slot();
        }
        ClusterHash::Custom(redis_keyslot(client.id().as_bytes()))
    }

    /// Subscribes, and waits until the subscription exists.
    async fn subscribe(&self, client: &Client) -> Result<(), RedisError> {
        let name = self.name.to_string();
        let said = if self.sharded {
            client.ssubscribe(name).await
        } else {
            client.subscribe(name).await
        };
        said.map_err(|error| RedisError::from(&error))?;
        match subscribed(ping(client, &self.ear(client)).await) {
            Err(RedisError::Refused(_)) => Err(RedisError::Refused(self.not_subscribed())),
            outcome => outcome,
        }
    }

    /// The server does not say why, and there is hardly another reason.
    fn not_subscribed(&self) -> String {
        let (user, name) = (&self.user, &self.name);
        let listen = if self.sharded {
            "ssubscribe"
        } else {
            "subscribe"
        };
        let sharded = match self.sharded {
            true => " (or Redis is older than version 7, which has no sharded channels)",
            false => "",
        };
        format!(
            "Redis did not subscribe this node: the user {user} has no permission for the channel \
             {name}{sharded}; to grant it: ACL SETUSER {user} +{listen} &{name}"
        )
    }
}

impl PubSubSession {
    /// Opens both connections, and subscribes.
    pub(super) async fn begin(
        plan: &RedisConnector,
        channel: &PubSubChannel,
    ) -> Result<Self, RedisError> {
        let listening = plan.clone().messages(BEHIND);
        let (listening, publishing) = tokio::try_join!(listening.connect(), plan.connect())?;
        let messages = listening.client.message_rx();
        timeout(plan.silence(), channel.subscribe(&listening.client))
            .await
            .map_err(|_| RedisError::Down("no answer to the subscription".to_owned()))??;
        let limit = timeout(plan.silence(), buffer_limit(&publishing.client, channel));
        Ok(Self {
            max_message_bytes: limit.await.ok().flatten().map(|bytes| bytes / 2),
            channel: channel.clone(),
            plan: plan.clone(),
            listening,
            publishing,
            messages,
        })
    }

    pub(super) fn mouth(&self) -> PubSubPublisher {
        PubSubPublisher {
            channel: self.channel.clone(),
            client: self.publishing.client.clone(),
            max_message_bytes: self.max_message_bytes,
        }
    }

    /// The largest message in bytes that reaches the subscribers: Redis accepts a larger one, and
    /// then disconnects the subscribers whose output buffer is full, including this node. None: it
    /// did not say.
    pub(super) fn max_message_bytes(&self) -> Option<usize> {
        self.max_message_bytes
    }

    /// Passes messages on until a connection can't be used any more. Returns why.
    pub(super) async fn hold(self, mail: &TransportEventSender) -> RedisError {
        let (mut listening, mut publishing) = (self.listening, self.publishing);
        let (ear, mouth) = (listening.client.clone(), publishing.client.clone());
        let (slot, patience) = (self.channel.slot(), self.plan.silence());
        let messages = bodies(self.messages, Arc::clone(&self.channel.name));
        tokio::select! {
            biased;
            why = listening.ended() => why,
            why = publishing.ended() => why,
            why = unanswered(&ear, self.channel.ear(&ear), patience, subscribed) => why,
            why = unanswered(&mouth, slot, patience, |_| Ok(())) => why,
            () = mail.forward(messages) => RedisError::Down("the subscription ended".to_owned()),
        }
    }
}

impl PubSubPublisher {
    pub(super) async fn publish(&self, messages: &[Bytes]) -> (usize, Option<PublishError>) {
        let mut sent = 0;
        while sent < messages.len() {
            let batch = self.batch(&messages[sent..]);
            let (taken, error) = self.publish_batch(batch).await;
            sent += taken;
            if error.is_some() {
                return (sent, error);
            }
        }
        (sent, None)
    }

    /// The first messages, as many as the subscribers' buffers hold at once; at least one.
    fn batch<'a>(&self, messages: &'a [Bytes]) -> &'a [Bytes] {
        let mut room = self.max_message_bytes.unwrap_or(usize::MAX);
        let fits = messages.iter().take(BATCH).take_while(|message| {
            let left = room.checked_sub(message.len());
            room = left.unwrap_or(0);
            left.is_some()
        });
        &messages[..fits.count().max(1)]
    }

    /// Sends all messages, and then reads the answers.
    async fn publish_batch(&self, messages: &[Bytes]) -> (usize, Option<PublishError>) {
        let name = if self.channel.sharded {
            "SPUBLISH"
        } else {
            "PUBLISH"
        };
        let pipeline = self.client.pipeline();
        for message in messages {
            let command = CustomCommand::new_static(name, self.channel.slot(), false);
            let channel = Value::from(&*self.channel.name);
            let arguments = vec![channel, Value::Bytes(message.clone())];
            // A pipeline only collects commands; the answers come later.
            if let Err(error) = pipeline.custom::<Value, Value>(command, arguments).await {
                return (0, Some(refusal(RedisError::from(&error))));
            }
        }
        let answers = pipeline.try_all::<Value>().await;
        let taken = answers.iter().take_while(|answer| answer.is_ok()).count();
        let error = answers.into_iter().find_map(Result::err);
        match error {
            Some(error) => (taken, Some(refusal(RedisError::from(&error)))),
            None if taken == messages.len() => (taken, None),
            None => (
                taken,
                Some(PublishError::Down(
                    "the server did not answer every command".to_owned(),
                )),
            ),
        }
    }
}

/// The most bytes that may wait for one subscriber before Redis closes its connection. None: there
/// is no limit, or this user may not read it.
async fn buffer_limit(client: &Client, channel: &PubSubChannel) -> Option<usize> {
    let ask = CustomCommand::new_static("CONFIG", channel.slot(), false);
    let asked = ["GET", "client-output-buffer-limit"].map(Value::from);
    let answer = client.custom::<Value, Value>(ask, asked.to_vec()).await;
    smallest_limit(&answer.ok()?.into_array().get(1)?.as_str()?)
}

/// The limit of subscribers, from `normal 0 0 0 slave … pubsub <hard> <soft> <seconds>`.
fn smallest_limit(said: &str) -> Option<usize> {
    let mut words = said.split_whitespace();
    words.find(|word| *word == "pubsub")?;
    let limits = words.take(2).filter_map(|bytes| bytes.parse().ok());
    limits.filter(|bytes| *bytes > 0).min()
}

fn refusal(fault: RedisError) -> PublishError {
    match fault {
        RedisError::Down(why) | RedisError::Corrupt(why) => PublishError::Down(why),
        RedisError::Timeout => PublishError::Timeout,
        RedisError::Refused(why) => PublishError::Refused(why),
    }
}

/// Checks that a PING was answered in the way that it is to a subscriber.
fn subscribed(answer: Result<Value, RedisError>) -> Result<(), RedisError> {
    match answer? {
        Value::Array(_) => Ok(()),
        _ => Err(RedisError::Refused(
            "the server has lost the subscription of this node".to_owned(),
        )),
    }
}

/// The content of the messages on `channel`; none where messages were lost. Ends with the client.
fn bodies(messages: Receiver<Message>, channel: Arc<str>) -> impl Stream<Item = Option<Bytes>> {
    stream::unfold((messages, channel), |(mut messages, channel)| async move {
        loop {
            let body = match messages.recv().await {
                Ok(message) if *message.channel != *channel => continue,
                Ok(message) => message.value.into_bytes(),
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return None,
            };
            return Some((body, (messages, channel)));
        }
    })
}

#[cfg(test)]
mod tests {
    use lamina_base::redis::driver::MessageKind;
    use lamina_base::redis::driver::config::Server;
    use tokio::sync::broadcast;

    use super::*;
    use crate::bus::transport::TransportEvent;

    #[test]
    fn the_limit_of_subscribers_is_read_from_what_redis_says() {
        let usual = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(smallest_limit(usual), Some(8_388_608));
        assert_eq!(
            smallest_limit("normal 0 0 0 pubsub 65536 0 0"),
            Some(65_536)
        );
        assert_eq!(smallest_limit("normal 0 0 0 pubsub 0 0 0"), None);
        assert_eq!(smallest_limit(""), None);
    }

    #[tokio::test]
    async fn what_a_lagging_receiver_lost_is_told_before_what_came_after_it() {
        let (sender, receiver) = broadcast::channel(4);
        for (channel, number) in [
            ("ours", 0),
            ("ours", 1),
            ("ours", 2),
            ("theirs", 3),
            ("ours", 4),
        ] {
            let message = Message {
                channel: channel.into(),
                value: Value::Bytes(Bytes::from(vec![number])),
                kind: MessageKind::Message,
                server: Server::new("a", 1),
            };
            sender.send(message).unwrap();
        }
        drop(sender);
        let (mail, mut words) = TransportEventSender::new();
        mail.forward(bodies(receiver, "ours".into())).await;
        drop(mail);
        let Some(TransportEvent::Lost(_)) = words.recv().await else {
            panic!("no loss is told");
        };
        for number in [1, 2, 4] {
            match words.recv().await {
                Some(TransportEvent::Message(message)) => assert_eq!(*message.bytes, [number]),
                other => panic!("{other:?}"),
            }
        }
        assert!(words.recv().await.is_none());
    }
}
