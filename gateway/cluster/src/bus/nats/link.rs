//! Connections to NATS, one after another, without end.
//!
//! Decision: async-nats reconnects by itself, then sends messages that their callers have long
//! given up, and confirms messages that were lost with the old socket. Therefore each client lives
//! for one connection: once it is connected, its list of servers is replaced by an address where
//! nobody listens ([`NOWHERE`]), and when the connection ends, the client and everything that waits
//! in it end as well. Pauses between attempts grow and are jittered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::client::{self, PublishErrorKind};
use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::NatsOpenError;
use super::config::NatsConfig;
use crate::backoff::{self, OutageTracker};
use crate::bus::transport::{ConnectionCutter, PublishError, TransportEvent, TransportEventSender};

/// One connection.
#[derive(Clone)]
pub(super) struct NatsConnection {
    pub(super) client: Client,
    events: Arc<NatsClientEvents>,
}

/// What the client reports about its connection.
struct NatsClientEvents {
    /// Why the connection can't be used any more.
    end: watch::Sender<Option<String>>,
    /// The last message that the server refused to take from us.
    refusal: Mutex<Option<String>>,
    dropped: AtomicBool,
    dropping: Notify,
}

/// The state of the present connection. `W` is what a publisher needs of it.
pub(super) struct NatsConnectionState<W> {
    way: RwLock<Result<W, String>>,
    knife: ConnectionCutter,
    /// The largest message in bytes that the server takes, as it said at the last connect; 0: it
    /// has not said yet.
    max_message_bytes: AtomicUsize,
}

/// What a mode of NATS does with its connections.
pub(super) trait NatsSession: Send + Sync + 'static {
    type Way: Clone + Send + Sync;

    fn config(&self) -> &NatsConfig;

    fn standing(&self) -> &NatsConnectionState<Self::Way>;

    /// Consumes on one connection until it can't be used any more. Returns why.
    fn consume(
        &self,
        line: &NatsConnection,
        mail: &TransportEventSender,
    ) -> impl Future<Output = String> + Send;
}

/// Port 0, where nobody listens.
const NOWHERE: &str = "nats://127.0.0.1:0";
/// The most servers of a cluster that are remembered in addition to the configured ones.
const DISCOVERED: usize = 64;
/// The most commands that wait for the socket; further callers wait until there is room.
const COMMANDS: usize = 256;
/// The most messages that wait for the task that passes them on.
const BUFFER: usize = 4_096;
/// The pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A connection that lived this long does not count as a failure.
const GOOD: Duration = Duration::from_secs(5);

/// A server's address as it is written in the configuration.
pub(super) fn address(text: &str) -> Result<ServerAddr, NatsOpenError> {
    let wrong = || NatsOpenError::Server(text.to_owned());
    if text.contains('@') {
        return Err(NatsOpenError::InUrl);
    }
    let address: ServerAddr = text.parse().map_err(|_| wrong())?;
    let speaks = matches!(address.scheme(), "nats" | "tls");
    (speaks && !address.host().is_empty() && address.port() != 0)
        .then_some(address)
        .ok_or_else(wrong)
}

impl<W: Clone> NatsConnectionState<W> {
    pub(super) fn new() -> Self {
        Self {
            way: RwLock::new(Err("not connected yet".to_owned())),
            knife: ConnectionCutter::default(),
            max_message_bytes: AtomicUsize::new(0),
        }
    }

    /// The largest message that the server takes, as it said at the present or the last connect.
    pub(super) fn max_message_bytes(&self) -> Option<usize> {
        let bytes = self.max_message_bytes.load(Ordering::Acquire);
        (bytes > 0).then_some(bytes)
    }

    /// Sets the largest message that the server takes.
    pub(super) fn limit_messages(&self, bytes: usize) {
        self.max_message_bytes.store(bytes, Ordering::Release);
    }

    /// Cuts the present connection.
    pub(super) fn cut(&self) {
        self.knife.cut();
    }

    /// What a publisher needs of the connection, or why there is none.
    pub(super) fn get(&self) -> Result<W, PublishError> {
        self.way.read().clone().map_err(PublishError::Down)
    }

    /// Consuming begins now. False: the receiver of events is gone.
    pub(super) async fn up(
        &self,
        way: W,
        behind: Option<u64>,
        mail: &TransportEventSender,
    ) -> bool {
        *self.way.write() = Ok(way);
        mail.tell(TransportEvent::Up { behind }).await
    }

    /// Consuming has ended; reports it if it was up. False: the receiver of events is gone.
    async fn down(&self, why: &str, mail: &TransportEventSender) -> bool {
        let was = std::mem::replace(&mut *self.way.write(), Err(why.to_owned()));
        was.is_err() || mail.tell(TransportEvent::Down(why.to_owned())).await
    }
}

/// The task that reconnects; it ends when this is dropped.
#[derive(Default)]
pub(super) struct NatsReconnector(Mutex<Option<JoinHandle<()>>>);

impl NatsReconnector {
    pub(super) fn start<S: NatsSession>(&self, session: &Arc<S>, mail: TransportEventSender) {
        let task = tokio::spawn(keep(Arc::clone(session), mail));
        *self.0.lock() = Some(task);
    }
}

impl Drop for NatsReconnector {
    fn drop(&mut self) {
        if let Some(task) = self.0.lock().take() {
            task.abort();
        }
    }
}

/// Connects again and again until the receiver of events is gone.
async fn keep<S: NatsSession>(session: Arc<S>, mail: TransportEventSender) {
    let config = session.config();
    let mut discovered = Vec::new();
    let mut failures: u32 = 0;
    let mut outages = OutageTracker::default();
    loop {
        let mut began = None;
        let why = match connect(config, &mut discovered).await {
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
                let why = tokio::select! {
                    why = session.consume(&line, &mail) => why,
                    why = session.standing().knife.falls() => why.to_owned(),
                };
                // The end of the connection explains more than the operation that failed because of
                // it. Publishers that use the connection are told, since they will get no answers
                // any more.
                line.events.end(&why);
                line.why().unwrap_or(why)
            }
            Err(why) => why,
        };
        if began.is_some_and(|began| began.elapsed() > GOOD) {
            failures = 0;
        }
        // Logged once, not for every attempt.
        outages.fails(failures == 0);
        if failures == 0 {
            tracing::warn!(bus = "nats", error = %why, "no connection to NATS; reconnecting");
        }
        if !session.standing().down(&why, &mail).await {
            return;
        }
        failures = failures.saturating_add(1);
        let max = config.reconnect_max.0.max(PAUSE_MIN);
        sleep(backoff::pause(failures, PAUSE_MIN, max)).await;
    }
}

impl NatsConnection {
    /// Waits until the connection can't be used any more. Returns why.
    pub(super) async fn ended(&self) -> String {
        let mut end = self.events.end.subscribe();
        let end = end.wait_for(Option::is_some).await;
        // The sender lives in `self`, so it is not gone.
        end.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// Why the client could not even send a message.
    pub(super) fn refused(&self, error: &client::PublishError) -> PublishError {
        let said = chain(error);
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge {
                limit: Some(self.client.max_payload()),
                said,
            },
            PublishErrorKind::InvalidSubject => PublishError::Refused(said),
            PublishErrorKind::Send => PublishError::Down(said),
        }
    }

    /// The last refusal of something that was published since the previous call.
    pub(super) fn refusal(&self) -> Option<String> {
        self.events.refusal.lock().take()
    }

    /// Waits until the client has dropped messages that were not read from it in time.
    pub(super) async fn dropped(&self) {
        while !self.events.dropped.swap(false, Ordering::AcqRel) {
            self.events.dropping.notified().await;
        }
    }

    fn why(&self) -> Option<String> {
        self.events.end.borrow().clone()
    }
}

impl NatsClientEvents {
    fn hear(&self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.end("the connection ended"),
            Event::SlowConsumer(_) => {
                self.dropped.store(true, Ordering::Release);
                self.dropping.notify_one();
            }
            // A missing right to publish affects only that message.
            Event::ServerError(ServerError::Other(said))
                if said.to_lowercase().contains("publish") =>
            {
                *self.refusal.lock() = Some(said);
            }
            Event::ServerError(error) => self.end(&error.to_string()),
            Event::Connected | Event::LameDuckMode | Event::Draining | Event::ClientError(_) => {}
        }
    }

    /// The first reason is kept.
    fn end(&self, why: &str) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert_with(|| why.to_owned());
            first
        });
    }
}

pub(super) async fn connect(
    config: &NatsConfig,
    discovered: &mut Vec<ServerAddr>,
) -> Result<NatsConnection, String> {
    let servers = servers(config, discovered)?;
    let events = Arc::new(NatsClientEvents {
        end: watch::Sender::new(None),
        refusal: Mutex::new(None),
        dropped: AtomicBool::new(false),
        dropping: Notify::new(),
    });
    let options = options(config, servers.len(), Arc::clone(&events)).await?;
    let client = options
        .connect(servers.as_slice())
        .await
        .map_err(|error| chain(&error))?;
    let line = NatsConnection { client, events };
    timeout(config.connect_timeout.0, bind(&line, discovered))
        .await
        .map_err(|_| "no answer after connecting".to_owned())??;
    Ok(line)
}

/// Notes the servers that are known now, and binds the client to this connection.
async fn bind(line: &NatsConnection, discovered: &mut Vec<ServerAddr>) -> Result<(), String> {
    let pool = line.client.server_pool().await.map_err(|e| chain(&e))?;
    let found = pool.into_iter().filter(|server| server.is_discovered);
    for server in found.map(|server| server.addr) {
        if discovered.len() < DISCOVERED && !discovered.contains(&server) {
            discovered.push(server);
        }
    }
    let bound = line.client.set_server_pool(NOWHERE).await;
    bound.map_err(|e| chain(&e))
}

/// The configured servers, beginning at a random one, and then those that they reported.
fn servers(config: &NatsConfig, discovered: &[ServerAddr]) -> Result<Vec<ServerAddr>, String> {
    let configured: Result<Vec<_>, _> = config.servers.iter().map(|s| address(s)).collect();
    let mut servers = configured.map_err(|error| error.to_string())?;
    let turn = backoff::random() as usize % servers.len().max(1);
    servers.rotate_left(turn);
    let new = discovered
        .iter()
        .filter(|server| !config.servers.iter().any(|s| s == server.as_url_str()));
    servers.extend(new.cloned());
    Ok(servers)
}

async fn options(
    config: &NatsConfig,
    servers: usize,
    events: Arc<NatsClientEvents>,
) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new()
        .name(config.name.as_deref().unwrap_or("lamina"))
        .connection_timeout(config.connect_timeout.0)
        .request_timeout(None)
        .ping_interval(config.ping_interval.0)
        .custom_inbox_prefix(&config.inbox_prefix)
        .client_capacity(COMMANDS)
        .subscription_capacity(BUFFER)
        .retain_servers_order()
        .max_reconnects(servers)
        .reconnect_delay_callback(|_| Duration::ZERO)
        .event_callback(move |event| {
            events.hear(event);
            std::future::ready(())
        });
    // The addresses of servers that others report have no scheme.
    if config.servers.iter().all(|s| s.starts_with("tls://")) {
        options = options.require_tls(true);
    }
    if let Some(file) = &config.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    if let Some(user) = &config.username {
        let password = config.password.clone().unwrap_or_default();
        options = options.user_and_password(user.clone(), password);
    }
    if let Some(token) = &config.token {
        options = options.token(token.clone());
    }
    if let Some(file) = &config.credentials_file {
        let read = options.credentials_file(file).await;
        options = read.map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(options)
}

/// The text of an error together with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text
}
