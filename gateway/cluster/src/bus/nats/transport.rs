//! What both modes of NATS have in common as a transport: one connection after another, without
//! end, and publishing on the present one.
//!
//! A mode is a [`NatsSession`]: what it does with a connection, and how it publishes. Pauses between
//! attempts grow and are jittered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::ServerAddr;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tokio::time::sleep;

use super::config::NatsConfig;
use super::link::{NatsConnection, connect};
use super::replacement::replacement;
use crate::backoff::{self, OutageTracker};
use crate::bus::description::TransportDescription;
use crate::bus::transport::{
    BusTransport, ConnectionCutter, Guarantee, PublishError, PublishOutcome, ReconnectTask,
    TransportEvent, TransportEventSender,
};

/// NATS in one of its modes.
pub(super) struct NatsTransport<S> {
    session: Arc<S>,
    reconnecting: ReconnectTask,
}

/// What a mode of NATS does with its connections.
pub(super) trait NatsSession: Send + Sync + 'static {
    /// What is needed to publish on one connection.
    type Publisher: Clone + Send + Sync;

    fn config(&self) -> &NatsConfig;

    fn standing(&self) -> &NatsConnectionState<Self::Publisher>;

    /// Consumes on one connection until it can't be used any more. Returns why.
    fn consume(
        &self,
        line: &NatsConnection,
        mail: &TransportEventSender,
    ) -> impl Future<Output = String> + Send;

    /// See [`BusTransport::publish`].
    fn publish(
        &self,
        publisher: Self::Publisher,
        messages: &[Bytes],
    ) -> impl Future<Output = PublishOutcome> + Send;

    /// See [`BusTransport::whisper`].
    fn whisper(
        &self,
        publisher: Self::Publisher,
        messages: &[Bytes],
    ) -> impl Future<Output = PublishOutcome> + Send {
        self.publish(publisher, messages)
    }
}

/// The state of the present connection. `P` is what is needed to publish on it.
pub(super) struct NatsConnectionState<P> {
    publisher: RwLock<Result<P, String>>,
    knife: ConnectionCutter,
    /// The largest message in bytes that the server takes, as it said at the last connect; 0: it
    /// has not said yet.
    max_message_bytes: AtomicUsize,
}

/// The pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A connection that lived this long does not count as a failure.
const GOOD: Duration = Duration::from_secs(5);

impl<S> NatsTransport<S> {
    pub(super) fn new(session: S) -> Self {
        Self {
            session: Arc::new(session),
            reconnecting: ReconnectTask::default(),
        }
    }
}

impl<S: NatsSession> BusTransport for NatsTransport<S> {
    fn kind(&self) -> &'static str {
        self.session.config().kind()
    }

    fn guarantee(&self) -> Guarantee {
        self.session.config().guarantee()
    }

    fn publish<'a>(&'a self, messages: &'a [Bytes]) -> BoxFuture<'a, PublishOutcome> {
        Box::pin(async move {
            match self.session.standing().publisher() {
                Ok(publisher) => self.session.publish(publisher, messages).await,
                Err(why) => (0, Some(PublishError::Down(why))),
            }
        })
    }

    fn whisper<'a>(&'a self, messages: &'a [Bytes]) -> BoxFuture<'a, PublishOutcome> {
        Box::pin(async move {
            match self.session.standing().publisher() {
                Ok(publisher) => self.session.whisper(publisher, messages).await,
                Err(why) => (0, Some(PublishError::Down(why))),
            }
        })
    }

    fn max_message_bytes(&self) -> Option<usize> {
        self.session.standing().max_message_bytes()
    }

    fn run(&self, mail: TransportEventSender) {
        self.reconnecting
            .start(keep(Arc::clone(&self.session), mail));
    }

    fn cut(&self) {
        self.session.standing().knife.cut();
    }
}

impl<P: Clone> NatsConnectionState<P> {
    pub(super) fn new() -> Self {
        Self {
            publisher: RwLock::new(Err("not connected yet".to_owned())),
            knife: ConnectionCutter::default(),
            max_message_bytes: AtomicUsize::new(0),
        }
    }

    /// The largest message that the server takes, as it said at the present or the last connect.
    fn max_message_bytes(&self) -> Option<usize> {
        let bytes = self.max_message_bytes.load(Ordering::Acquire);
        (bytes > 0).then_some(bytes)
    }

    /// Sets the largest message that the server takes.
    pub(super) fn limit_messages(&self, bytes: usize) {
        self.max_message_bytes.store(bytes, Ordering::Release);
    }

    /// What is needed to publish, or why there is no connection.
    fn publisher(&self) -> Result<P, String> {
        self.publisher.read().clone()
    }

    /// Consuming begins now. False: the receiver of events is gone.
    pub(super) async fn up(
        &self,
        publisher: P,
        behind: Option<u64>,
        mail: &TransportEventSender,
    ) -> bool {
        *self.publisher.write() = Ok(publisher);
        mail.tell(TransportEvent::Up { behind }).await
    }

    /// Consuming has ended; reports it if it was up. False: the receiver of events is gone.
    async fn down(&self, why: &str, mail: &TransportEventSender) -> bool {
        let was = std::mem::replace(&mut *self.publisher.write(), Err(why.to_owned()));
        was.is_err() || mail.tell(TransportEvent::Down(why.to_owned())).await
    }
}

/// How the use of a connection ended.
enum NatsConnectionEnd {
    Broken(String),
    /// It was silent, and this one answers.
    Replaced(NatsConnection),
}

/// Connects again and again until the receiver of events is gone.
async fn keep<S: NatsSession>(session: Arc<S>, mail: TransportEventSender) {
    let config = session.config();
    let mut discovered = Vec::new();
    let mut failures: u32 = 0;
    let mut outages = OutageTracker::default();
    let mut fresh = None;
    loop {
        let mut began = None;
        let connected = match fresh.take() {
            Some(line) => Ok(line),
            None => connect(config, &mut discovered).await,
        };
        let why = match connected {
            Ok(line) => {
                if let Some(after_seconds) = outages.end().line() {
                    tracing::info!(
                        bus = "nats",
                        mode = ?config.mode,
                        after_seconds,
                        "connected to NATS"
                    );
                }
                began = Some(Instant::now());
                let end = live(&*session, &line, &mut discovered, &mail).await;
                let why = match end {
                    NatsConnectionEnd::Broken(why) => why,
                    NatsConnectionEnd::Replaced(line) => {
                        fresh = Some(line);
                        "the server does not answer on this connection".to_owned()
                    }
                };
                // The end of the connection explains more than the operation that failed because of
                // it. Publishers that use the connection are told, since they will get no answers
                // any more.
                line.end(&why);
                line.why().unwrap_or(why)
            }
            Err(why) => why,
        };
        if began.is_some_and(|began| began.elapsed() > GOOD) {
            failures = 0;
        }
        if outages.fails(failures == 0) {
            tracing::warn!(bus = "nats", error = %why, "no connection to NATS; reconnecting");
        }
        if !session.standing().down(&why, &mail).await {
            return;
        }
        if fresh.is_some() {
            continue;
        }
        failures = failures.saturating_add(1);
        let max = config.reconnect_max.0.max(PAUSE_MIN);
        sleep(backoff::pause(failures, PAUSE_MIN, max)).await;
    }
}

/// Uses a connection until it can't be used any more, or another one is better.
async fn live<S: NatsSession>(
    session: &S,
    line: &NatsConnection,
    discovered: &mut Vec<ServerAddr>,
    mail: &TransportEventSender,
) -> NatsConnectionEnd {
    tokio::select! {
        why = session.consume(line, mail) => NatsConnectionEnd::Broken(why),
        why = session.standing().knife.falls() => NatsConnectionEnd::Broken(why.to_owned()),
        fresh = replacement(session.config(), line, discovered) => NatsConnectionEnd::Replaced(fresh),
    }
}
