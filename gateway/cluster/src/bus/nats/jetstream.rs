//! NATS with JetStream: messages are kept for each node until that node has applied them.
//!
//! Decision: each node has one durable pull consumer, and acknowledges each message. The server is
//! configured to deliver once more than our configuration says: that last delivery only tells us
//! that the message is given up, so that no message is dropped silently, however its deliveries
//! failed. Acknowledgements belong to the transport and not to a connection, so what was taken
//! before a disconnect is acknowledged after it and not delivered again.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind};
use async_nats::jetstream::{self, AckKind, Context, ErrorCode};
use async_nats::{Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::config::NatsConfig;
use super::link::{NatsConnection, chain};
use super::memory::StreamMemory;
use super::stream::{
    ConsumerPosition, GapDetection, PATIENCE, PendingSequences, StreamDifferenceLog,
    StreamKnowledge, UNANSWERED, find_or_make, recover_strays,
};
use super::transport::{NatsConnectionState, NatsSession};
use crate::bus::transport::{
    DeliveryAck, IncomingMessage, PublishError, PublishOutcome, TransportEvent,
    TransportEventSender,
};

pub(super) struct JetStreamSession {
    config: NatsConfig,
    standing: NatsConnectionState<JetStreamPublisher>,
    said: StreamDifferenceLog,
    memory: StreamMemory,
    hands: Arc<PendingSequences>,
    answers: mpsc::Sender<Acknowledgement>,
    answered: tokio::sync::Mutex<mpsc::Receiver<Acknowledgement>>,
}

#[derive(Clone)]
pub(super) struct JetStreamPublisher {
    line: NatsConnection,
    context: Context,
}

/// The acknowledgement of a message, with its kind.
struct Acknowledgement {
    to: Subject,
    kind: AckKind,
    _held: MessageInHand,
}

/// A message that this process holds and has not acknowledged yet.
struct MessageInHand {
    number: u64,
    hands: Arc<PendingSequences>,
}

/// Acknowledges a message.
struct JetStreamAck {
    to: Subject,
    delivered: u32,
    answers: mpsc::Sender<Acknowledgement>,
    held: MessageInHand,
}

/// The most messages that are being published to the stream at the same time.
const WINDOW: usize = 1_000;
/// The most messages that are requested at once.
const BATCH: usize = 256;
/// The most bytes that are requested at once, unless one message may be larger.
const BATCH_BYTES: usize = 16 << 20;
/// The pause before a message that could not be applied is delivered again; doubled each time.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(10);

impl NatsSession for JetStreamSession {
    type Publisher = JetStreamPublisher;

    fn config(&self) -> &NatsConfig {
        &self.config
    }

    fn standing(&self) -> &NatsConnectionState<JetStreamPublisher> {
        &self.standing
    }

    async fn consume(&self, line: &NatsConnection, mail: &TransportEventSender) -> String {
        let context = ContextBuilder::new()
            .timeout(PATIENCE)
            .ack_timeout(PATIENCE)
            .max_ack_inflight(WINDOW * 8)
            .build(line.client.clone());
        let begun = tokio::select! {
            begun = self.begin(&context) => begun,
            why = line.ended() => return why,
        };
        let (place, messages, whispers) = match begun {
            Ok(begun) => begun,
            Err(why) => return why,
        };
        let largest = line.client.max_payload();
        let largest = largest.min(place.max_message_bytes.unwrap_or(largest));
        self.standing.limit_messages(largest);
        let publisher = JetStreamPublisher {
            line: line.clone(),
            context: context.clone(),
        };
        if !self.standing.up(publisher, place.behind, mail).await {
            return "the receiver of events has ended".to_owned();
        }
        if let Some(what) = place.forgot {
            let stream = &self.config.jetstream.stream;
            tracing::warn!(
                bus = "jetstream",
                %stream,
                %what,
                "the stream lacks messages that were in it, as after a restore from a backup: \
                 stored entries are validated before they are served, and this node tells its \
                 purges again"
            );
            if !mail.tell(TransportEvent::Forgot).await {
                return "the receiver of events has ended".to_owned();
            }
        }
        tokio::select! {
            biased;
            why = line.ended() => why,
            why = self.answer(line) => why,
            why = self.pull(line, messages, place.track, mail) => why,
            why = recover_strays(&context, &place.consumer, &self.hands) => why,
            () = overhear(whispers, mail) => "the subscription ended".to_owned(),
        }
    }

    async fn publish(&self, publisher: JetStreamPublisher, messages: &[Bytes]) -> PublishOutcome {
        // A refusal of something that is not waited for any more.
        publisher.line.refusal(&self.config.subject);
        let mut taken = 0;
        for window in messages.chunks(WINDOW) {
            let (count, failed) = tokio::select! {
                biased;
                why = publisher.line.ended() => (0, Some(PublishError::Down(why))),
                // The stream confirms nothing of what its server has refused.
                said = publisher.line.refused(&self.config.subject) => {
                    (0, Some(PublishError::Refused(said)))
                }
                done = self.send(&publisher.context, window) => done,
            };
            taken += count;
            if failed.is_some() {
                return (taken, failed);
            }
        }
        (taken, None)
    }

    async fn whisper(&self, publisher: JetStreamPublisher, messages: &[Bytes]) -> PublishOutcome {
        let subject = self.whispered();
        let outcome = publisher.line.send(&subject, messages).await;
        // Nobody waits for an answer, so a refusal is one of what was sent before.
        match publisher.line.refusal(&subject) {
            Some(said) => (0, Some(PublishError::Refused(said))),
            None => outcome,
        }
    }
}

impl JetStreamSession {
    pub(super) fn new(config: NatsConfig) -> Self {
        // Twice as many, so that there is room for acknowledgements of what was taken before the
        // server forgot us.
        let (answers, answered) = mpsc::channel(2 * UNANSWERED as usize);
        Self {
            config,
            standing: NatsConnectionState::new(),
            said: StreamDifferenceLog::default(),
            memory: StreamMemory::default(),
            hands: Arc::default(),
            answers,
            answered: tokio::sync::Mutex::new(answered),
        }
    }

    /// The subject for transient messages, next to the stream's subject; the stream does not store
    /// it.
    fn whispered(&self) -> String {
        format!("{}.now", self.config.subject)
    }

    async fn send(&self, context: &Context, messages: &[Bytes]) -> PublishOutcome {
        let mut acks = Vec::with_capacity(messages.len());
        let mut failed = None;
        for message in messages {
            let subject = self.config.subject.clone();
            match context.publish(subject, message.clone()).await {
                Ok(ack) => acks.push(ack),
                Err(error) => {
                    failed = Some(refusal(&error, Some(context.client().max_payload())));
                    break;
                }
            }
        }
        let mut taken = 0;
        for ack in acks {
            match ack.await {
                Ok(ack) => self.memory.saw(ack.sequence),
                Err(error) => return (taken, Some(refusal(&error, None))),
            }
            taken += 1;
        }
        (taken, failed)
    }

    async fn begin(
        &self,
        context: &Context,
    ) -> Result<(ConsumerPosition, pull::Stream, Subscriber), String> {
        // First, so that the subscription exists when the server has answered the other requests.
        let whispers = context.client().subscribe(self.whispered()).await;
        let whispers = whispers.map_err(|e| chain(&e))?;
        let known = StreamKnowledge {
            hands: &self.hands,
            said: &self.said,
            memory: &self.memory,
        };
        let place = find_or_make(context, &self.config, known).await?;
        // A request that is left behind on a connection that was lost ends soon: until then the
        // server may answer it, and not the one of the next connection.
        let heartbeat = self.config.ping_interval.0 / 2;
        let largest = context.client().max_payload().saturating_mul(2);
        let messages = place
            .consumer
            .stream()
            .max_messages_per_batch(BATCH)
            .max_bytes_per_batch(BATCH_BYTES.max(largest))
            .expires(heartbeat.saturating_mul(3))
            .heartbeat(heartbeat)
            .messages()
            .await
            .map_err(|e| chain(&e))?;
        Ok((place, messages, whispers))
    }

    /// Sends acknowledgements to the server. Returns why it ended.
    async fn answer(&self, line: &NatsConnection) -> String {
        let mut answered = self.answered.lock().await;
        while let Some(answer) = answered.recv().await {
            let said = line.client.publish(answer.to, answer.kind.into()).await;
            if let Err(error) = said {
                return chain(&error);
            }
        }
        "the sender of acknowledgements has ended".to_owned()
    }

    async fn pull(
        &self,
        line: &NatsConnection,
        mut messages: pull::Stream,
        mut track: GapDetection,
        mail: &TransportEventSender,
    ) -> String {
        while let Some(message) = messages.next().await {
            let word = match message {
                Ok(message) => self.word(message, &mut track),
                Err(error) => return chain(&error),
            };
            let (lost, word) = match word {
                Ok(word) => word,
                Err(why) => return why,
            };
            for word in [
                lost.map(TransportEvent::Lost),
                word.map(TransportEvent::Message),
            ]
            .into_iter()
            .flatten()
            {
                if !mail.tell(word).await {
                    return "the receiver of events has ended".to_owned();
                }
            }
        }
        line.client.connection_state().to_string()
    }

    /// What to report for a message: a loss before it, and the message itself.
    fn word(
        &self,
        message: jetstream::Message,
        track: &mut GapDetection,
    ) -> Result<(Option<&'static str>, Option<IncomingMessage>), String> {
        let info = message.info().map_err(|e| e.to_string())?;
        let (number, delivered) = (info.stream_sequence, info.delivered);
        self.memory.saw(number);
        let delivered = u32::try_from(delivered).unwrap_or(u32::MAX);
        let to = message
            .reply
            .clone()
            .ok_or("a message without a reply subject")?;
        let Some(held) = MessageInHand::new(number, &self.hands) else {
            return Ok((None, None));
        };
        let taken = JetStreamAck {
            to,
            delivered,
            answers: self.answers.clone(),
            held,
        };
        if delivered > self.config.jetstream.max_deliver {
            taken.answer(AckKind::Term);
            return Ok((
                Some("a message was given up after too many deliveries"),
                None,
            ));
        }
        let lost = track.hole(number, delivered).then_some(
            "the stream dropped messages before this node read them, or another node uses the \
             same durable name",
        );
        let delivery = IncomingMessage {
            bytes: message.message.payload,
            receipt: Some(Box::new(taken)),
        };
        Ok((lost, Some(delivery)))
    }
}

impl JetStreamAck {
    /// If there is no room, the message is not acknowledged, and so it is delivered again.
    fn answer(self, kind: AckKind) {
        let (to, _held) = (self.to, self.held);
        let _ = self.answers.try_send(Acknowledgement { to, kind, _held });
    }
}

impl DeliveryAck for JetStreamAck {
    fn done(self: Box<Self>) {
        self.answer(AckKind::Ack);
    }

    fn again(self: Box<Self>) {
        let times = self.delivered.saturating_sub(1).min(16);
        let pause = AGAIN.saturating_mul(1 << times).min(AGAIN_MAX);
        self.answer(AckKind::Nak(Some(pause)));
    }
}

impl MessageInHand {
    /// None if the message is held already: its acknowledgement is still to come.
    fn new(number: u64, hands: &Arc<PendingSequences>) -> Option<Self> {
        hands.take(number).then(|| Self {
            number,
            hands: Arc::clone(hands),
        })
    }
}

impl Drop for MessageInHand {
    fn drop(&mut self) {
        self.hands.give(self.number);
    }
}

/// Passes on transient messages; those for which there is no room are dropped.
async fn overhear(mut whispers: Subscriber, mail: &TransportEventSender) {
    while let Some(message) = whispers.next().await {
        let (bytes, receipt) = (message.payload, None);
        let _ = mail.try_tell(TransportEvent::Message(IncomingMessage { bytes, receipt }));
    }
}

/// Why a message was not taken: for now, or permanently. `payload`: the largest message that the
/// server takes.
fn refusal(error: &jetstream::context::PublishError, payload: Option<usize>) -> PublishError {
    let said = chain(error);
    let server = error
        .source()
        .and_then(|s| s.downcast_ref::<jetstream::Error>());
    match error.kind() {
        PublishErrorKind::TimedOut => PublishError::Timeout,
        PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge {
            limit: payload,
            said,
        },
        // The stream's own limit was lowered after we read it.
        _ if server
            .is_some_and(|e| e.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) =>
        {
            PublishError::TooLarge { limit: None, said }
        }
        // This also happens while the servers elect the leader of the stream.
        PublishErrorKind::StreamNotFound | PublishErrorKind::BrokenPipe => PublishError::Down(said),
        // A limit of the stream whose oldest messages are not discarded; the server calls it a
        // failure of its own.
        _ if server.is_some_and(|e| e.error_code() == ErrorCode::STREAM_STORE_FAILED) => {
            PublishError::Refused(said)
        }
        _ if server.is_some_and(|error| error.code() >= 500) => PublishError::Down(said),
        _ => PublishError::Refused(said),
    }
}
