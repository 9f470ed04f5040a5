//! What carries events between nodes. A transport sends and receives opaque bytes, and reports the
//! state of its connection honestly.
//!
//! A transport supervises itself: it connects and subscribes, and after any failure it does both
//! again, without end, with growing and jittered pauses, whether or not its server was there at the
//! start. It knows nothing of events: numbering, duplicates, retries and gaps are handled once for
//! all transports, in `outbox` and `inbox`.
//!
//! Invariant: *up* means that this node is subscribed and consuming, not that a socket is open.
//! Invariant: whatever may have been lost is reported as [`TransportEvent::Lost`], before anything
//! that came after the loss.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// The connection to all other nodes over one broker. Dropping it ends its tasks and connections.
pub trait BusTransport: Send + Sync {
    /// Its name in metrics, logs and `lamina doctor`.
    fn kind(&self) -> &'static str;

    /// What it guarantees with its present configuration.
    fn guarantee(&self) -> Guarantee;

    /// Publishes messages in their order. Returns how many of the first messages the broker has
    /// taken (a durable broker: confirmed), and why it has not taken the next one. Never waits for
    /// a connection: without one it returns `(0, Some(Down))` at once. The caller sets a deadline
    /// for the whole call and drops the future when it passes; then each message may or may not
    /// have been sent.
    fn publish<'a>(&'a self, messages: &'a [Bytes]) -> BoxFuture<'a, PublishOutcome>;

    /// Like [`publish`](Self::publish), for transient messages other than values (which nodes are
    /// there, what they have applied). A durable transport does not keep them for nodes that are
    /// away, so that streams and queues don't grow because of them, and does not wait for a
    /// confirmation. Such a message may be lost, and may overtake what was published.
    fn whisper<'a>(&'a self, messages: &'a [Bytes]) -> BoxFuture<'a, PublishOutcome> {
        self.publish(messages)
    }

    /// Like [`whisper`](Self::whisper), for values that were just loaded. One that the broker
    /// refuses harms no message of another kind.
    fn whisper_values<'a>(&'a self, values: &'a [Bytes]) -> BoxFuture<'a, PublishOutcome> {
        self.whisper(values)
    }

    /// The largest message in bytes that the broker takes, if it has said so: when this node
    /// connected, or when it refused a message.
    fn max_message_bytes(&self) -> Option<usize> {
        None
    }

    /// Begins to connect and to consume. Events arrive at the receiver until the transport is
    /// dropped. Called once, in a tokio runtime. The channel is bounded, in events and in bytes.
    /// When it is full, the transport waits with durable messages; where it can't wait, it reports
    /// a loss ([`TransportEventSender::forward`]).
    fn run(&self, mail: TransportEventSender);

    /// Ends the present connections without a good-bye, as a network failure does; the reconnector
    /// then makes new ones. For `lamina doctor`, which measures how long that takes.
    fn cut(&self);

    /// For so long another process with the name of this node may have what only one connection may
    /// have: one of both takes the place of the other.
    fn expect_namesake_for(&self, _span: Duration) {}

    /// Another process takes the place of this one, and what only one connection may have, as a
    /// queue of a broker, is given up to it for good. Afterwards nothing may be published or
    /// received here.
    fn give_up_queue(&self) {}
}

/// How many of the first messages the broker has taken, and why it has not taken the next one.
pub type PublishOutcome = (usize, Option<PublishError>);

/// Cuts connections on request.
#[derive(Default)]
pub struct ConnectionCutter(Notify);

/// The task that keeps a transport connected. It ends when this is dropped.
#[derive(Default)]
pub(super) struct ReconnectTask(Mutex<Option<JoinHandle<()>>>);

/// Where a transport puts its events.
#[derive(Clone)]
pub struct TransportEventSender {
    words: mpsc::Sender<BudgetedEvent>,
    room: Arc<Semaphore>,
}

/// The other end of [`TransportEventSender`].
pub struct TransportEventReceiver {
    letters: mpsc::Receiver<BudgetedEvent>,
}

/// An event, and the budget in bytes that it takes until it is read.
struct BudgetedEvent {
    word: TransportEvent,
    _room: Option<OwnedSemaphorePermit>,
}

/// What a transport reports.
#[derive(Debug)]
pub enum TransportEvent {
    /// A message was received.
    Message(IncomingMessage),
    /// The transport consumes from now on; before, it did not. `behind`: this many messages that
    /// were kept for this node come next, and nothing was lost. None: whatever was published during
    /// the outage may be lost.
    Up { behind: Option<u64> },
    /// The transport does not consume any more, and why. Reported once for each outage.
    Down(String),
    /// Messages were lost while the transport was up: this node consumed too slowly, a receiver
    /// lagged, or a message was given up after too many deliveries.
    Lost(&'static str),
    /// The broker is up and lacks messages that it had taken, or had delivered here: other nodes
    /// may not get them. It has logged what it lacks.
    Forgot,
}

/// A message, and the way to acknowledge it.
pub struct IncomingMessage {
    pub bytes: Bytes,
    /// None where the broker needs no acknowledgement.
    pub receipt: Option<Box<dyn DeliveryAck>>,
}

/// Tells a durable broker the outcome of a message. If it is dropped without being used, the broker
/// delivers the message again.
pub trait DeliveryAck: Send {
    /// The message was applied, or is of no use to any node.
    fn done(self: Box<Self>);
    /// The message could not be applied. It is to be delivered again, a bounded number of times.
    fn again(self: Box<Self>);
}

/// What a transport guarantees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guarantee {
    /// Each message comes once or not at all; `inbox` and `cluster` notice losses.
    AtMostOnce,
    /// Kept for this node while it is away, and delivered until this node acknowledges that it was
    /// applied.
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
    /// The broker never takes a message of this size, however often it is sent. `limit`: the
    /// largest size that it takes, if it said so. If it did not, the error is about the first
    /// message that was not taken.
    #[error("refused as too large: {said}")]
    TooLarge { limit: Option<usize>, said: String },
}

/// Events that wait to be read, at most.
const WAITING: usize = 8_192;
/// Bytes of the messages among them, at most; a larger message takes the whole budget.
const ROOM: u32 = 32 << 20;

impl ConnectionCutter {
    /// Cuts the connections that wait in [`falls`](Self::falls) now; later ones are not cut.
    pub fn cut(&self) {
        self.0.notify_waiters();
    }

    /// Waits for the next cut. Returns why the connection ended.
    pub async fn falls(&self) -> &'static str {
        self.0.notified().await;
        "the connection was cut"
    }
}

impl ReconnectTask {
    /// Starts the task, once.
    pub(super) fn start(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.0.lock() = Some(tokio::spawn(work));
    }
}

impl Drop for ReconnectTask {
    fn drop(&mut self) {
        if let Some(task) = self.0.lock().take() {
            task.abort();
        }
    }
}

impl TransportEventSender {
    /// Makes the channel of a transport.
    pub fn new() -> (Self, TransportEventReceiver) {
        let (words, letters) = mpsc::channel(WAITING);
        let room = Arc::new(Semaphore::new(ROOM as usize));
        (Self { words, room }, TransportEventReceiver { letters })
    }

    /// Sends an event, and waits for room. False: the receiver is gone.
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

    /// Sends an event without waiting. False: there is no room, or the receiver is gone; the event
    /// is lost then.
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

    /// Passes on messages of a transport that keeps none, without letting them wait: messages
    /// without room are dropped, and a loss is reported. None in the stream: messages were lost
    /// before. Returns when the stream ends or the receiver is gone.
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
            // Goes on dropping messages until the loss is reported, so that the report covers them
            // all.
            let told = std::pin::pin!(self.tell(TransportEvent::Lost(
                "messages arrived faster than they were read"
            )));
            let dropping = messages.by_ref().for_each(|_| std::future::ready(()));
            let left = futures_util::future::select(told, dropping).await;
            if !matches!(left, futures_util::future::Either::Left((true, _))) {
                return;
            }
        }
    }
}

impl TransportEventReceiver {
    /// The next event; none when the transport is gone.
    pub async fn recv(&mut self) -> Option<TransportEvent> {
        self.letters.recv().await.map(|letter| letter.word)
    }
}

fn need(word: &TransportEvent) -> u32 {
    match word {
        TransportEvent::Message(delivery) => {
            u32::try_from(delivery.bytes.len()).map_or(ROOM, |n| n.min(ROOM))
        }
        TransportEvent::Up { .. }
        | TransportEvent::Down(_)
        | TransportEvent::Lost(_)
        | TransportEvent::Forgot => 0,
    }
}

impl std::fmt::Debug for IncomingMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
