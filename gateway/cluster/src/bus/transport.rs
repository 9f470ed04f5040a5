//! What carries events between nodes: opaque bytes out, bytes in, and an honest word on
//! how it stands.
//!
//! A transport supervises itself: it connects, subscribes, and after any failure does both
//! again, for ever, with growing and jittered pauses, whether or not its server was there at the
//! start. It knows nothing of events: numbering, duplicates, retry and gaps stand once,
//! above it, in `outbox` and `inbox`.
//!
//! Invariant: *up* means that this node is subscribed and consuming, not that a socket is open.
//! Invariant: whatever may have been lost is told as [`TransportEvent::Lost`], before anything that
//! came after the loss.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

/// A way to all nodes. Dropping it ends its tasks and connections.
pub trait BusTransport: Send + Sync {
    /// Its name in metrics, logs and `lamina doctor`.
    fn kind(&self) -> &'static str;

    /// What it guarantees as it is configured.
    fn guarantee(&self) -> Guarantee;

    /// Publishes messages in their order and answers how many of the first of them the
    /// broker has taken (for a durable one: confirmed), and why the next was not. Never
    /// waits for a connection: while there is none the answer is at once
    /// `(0, Some(Down))`. The caller bounds the whole by a deadline and drops the future
    /// then, after which each message may or may not have been sent.
    fn publish<'a>(&'a self, messages: &'a [Bytes])
    -> BoxFuture<'a, (usize, Option<PublishError>)>;

    /// As [`publish`](Self::publish), for what is of the moment (who is there, what was just
    /// loaded): a durable transport keeps it for nobody who is away, so that streams and
    /// queues don't grow by it, and waits for no confirmation. It may be lost, and may
    /// overtake what was published.
    fn whisper<'a>(
        &'a self,
        messages: &'a [Bytes],
    ) -> BoxFuture<'a, (usize, Option<PublishError>)> {
        self.publish(messages)
    }

    /// Bytes of a message that the broker takes at most, as far as it has told: when this node
    /// connected, or when it refused one.
    fn max_message_bytes(&self) -> Option<usize> {
        None
    }

    /// Begins to connect and to consume; words come by the receiver until the transport is
    /// dropped. Called once, in a tokio runtime. The channel is bounded, in words and in bytes; a
    /// transport that finds it full waits with what is durable, and tells of a loss where it
    /// can't wait ([`TransportEventSender::forward`]).
    fn run(&self, mail: TransportEventSender);

    /// Ends the connections that stand without a good-bye, as a network does; what keeps them up
    /// makes others. For `lamina doctor`, which looks how long that takes.
    fn cut(&self);
}

/// Cuts connections when it is told to.
#[derive(Default)]
pub struct ConnectionCutter(Notify);

/// Where a transport puts what it has to tell.
#[derive(Clone)]
pub struct TransportEventSender {
    words: mpsc::Sender<BudgetedEvent>,
    room: Arc<Semaphore>,
}

/// The other end of [`TransportEventSender`].
pub struct TransportEventReceiver {
    letters: mpsc::Receiver<BudgetedEvent>,
}

/// A word, and the room that it takes until it is read.
struct BudgetedEvent {
    word: TransportEvent,
    _room: Option<OwnedSemaphorePermit>,
}

/// What a transport tells.
#[derive(Debug)]
pub enum TransportEvent {
    /// A message came.
    Message(IncomingMessage),
    /// Consuming from now on, where it was not before. `behind`: so many messages that
    /// were kept for this node come next, and nothing was lost; none: whatever was
    /// published while it was down may be lost.
    Up { behind: Option<u64> },
    /// Not consuming any more, and why; told once for each time.
    Down(String),
    /// Messages were lost while up: a slow consumer, a lagging receiver, one that was given
    /// up after too many deliveries.
    Lost(&'static str),
}

/// A message, and how to say what became of it.
pub struct IncomingMessage {
    pub bytes: Bytes,
    /// None where the broker wants no word.
    pub receipt: Option<Box<dyn DeliveryAck>>,
}

/// Says to a durable broker what became of a message. Dropped without a word, it is
/// delivered again.
pub trait DeliveryAck: Send {
    /// It was applied, or is of no use to anybody.
    fn done(self: Box<Self>);
    /// It could not be applied: again, a bounded number of times.
    fn again(self: Box<Self>);
}

/// What a transport guarantees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guarantee {
    /// Each message comes once or not at all; losses are noticed above.
    AtMostOnce,
    /// Kept for this node while it is away, and delivered until it says that it was applied.
    Durable,
}

/// Why messages were not published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    #[error("not connected: {0}")]
    Down(String),
    #[error("no answer in time")]
    Timeout,
    #[error("refused: {0}")]
    Refused(String),
    /// The broker takes no message of this size, however often it is sent. `limit`: where it
    /// said how large one may be; without it the first message that was not taken is meant.
    #[error("refused as too large: {said}")]
    TooLarge { limit: Option<usize>, said: String },
}

/// Words that wait to be read at most.
const WAITING: usize = 8_192;
/// Bytes of the messages among them at most; one that is larger takes it all.
const ROOM: u32 = 32 << 20;

impl ConnectionCutter {
    /// Those connections that wait for it; later ones not.
    pub fn cut(&self) {
        self.0.notify_waiters();
    }

    /// Waits for the next cut; answers why the connection ended.
    pub async fn falls(&self) -> &'static str {
        self.0.notified().await;
        "the connection was cut"
    }
}

impl TransportEventSender {
    /// The channel of a transport.
    pub fn new() -> (Self, TransportEventReceiver) {
        let (words, letters) = mpsc::channel(WAITING);
        let room = Arc::new(Semaphore::new(ROOM as usize));
        (Self { words, room }, TransportEventReceiver { letters })
    }

    /// Tells, waiting for room. False: nobody listens any more.
    pub async fn tell(&self, word: TransportEvent) -> bool {
        let room = match need(&word) {
            0 => None,
            // The semaphore is never closed.
            need => Arc::clone(&self.room).acquire_many_owned(need).await.ok(),
        };
        self.words
            .send(BudgetedEvent { word, _room: room })
            .await
            .is_ok()
    }

    /// Tells without waiting. False: there is no room, or nobody listens; what was to be
    /// told is lost then.
    pub fn try_tell(&self, word: TransportEvent) -> bool {
        let room = match need(&word) {
            0 => None,
            need => match Arc::clone(&self.room).try_acquire_many_owned(need) {
                Ok(room) => Some(room),
                Err(_) => return false,
            },
        };
        self.words
            .try_send(BudgetedEvent { word, _room: room })
            .is_ok()
    }

    /// Passes on messages that nobody keeps, never letting them wait: those without room
    /// are dropped, and so told as lost. None in the stream: some were lost before. Returns
    /// when the stream ends or nobody listens any more.
    pub async fn forward(&self, messages: impl Stream<Item = Option<Bytes>>) {
        let mut messages = std::pin::pin!(messages);
        while let Some(came) = messages.next().await {
            let passed = came.is_some_and(|bytes| {
                let receipt = None;
                self.try_tell(TransportEvent::Message(IncomingMessage { bytes, receipt }))
            });
            if passed {
                continue;
            }
            // Dropping all the while, so that what is told covers it.
            let told = std::pin::pin!(
                self.tell(TransportEvent::Lost("they came faster than they were read"))
            );
            let dropping = messages.by_ref().for_each(|_| std::future::ready(()));
            let left = futures_util::future::select(told, dropping).await;
            if !matches!(left, futures_util::future::Either::Left((true, _))) {
                return;
            }
        }
    }
}

impl TransportEventReceiver {
    /// The next word; none when the transport is gone.
    pub async fn recv(&mut self) -> Option<TransportEvent> {
        self.letters.recv().await.map(|letter| letter.word)
    }
}

fn need(word: &TransportEvent) -> u32 {
    match word {
        TransportEvent::Message(delivery) => {
            u32::try_from(delivery.bytes.len()).map_or(ROOM, |n| n.min(ROOM))
        }
        TransportEvent::Up { .. } | TransportEvent::Down(_) | TransportEvent::Lost(_) => 0,
    }
}

impl std::fmt::Debug for IncomingMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
