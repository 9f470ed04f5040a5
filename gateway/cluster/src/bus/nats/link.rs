//! One connection to NATS, from its beginning to its end.
//!
//! Decision: async-nats reconnects by itself, then sends messages that their callers have long
//! given up, and confirms messages that were lost with the old socket. Therefore each client lives
//! for one connection: once it is connected, its list of servers is replaced by an address where
//! nobody listens ([`NOWHERE`]), and when the connection ends, the client and everything that waits
//! in it end as well.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::client::{self, PublishErrorKind};
use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerError};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::config::{NatsConfig, NatsOpenError};
use super::{certificates, credentials};
use crate::bus::transport::{PublishError, PublishOutcome};
use crate::knock::knock;
use crate::random;

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
    /// The words with which the server refused messages of ours. They wait until somebody asks for them.
    refusals: Mutex<VecDeque<String>>,
    refused: Notify,
    dropped: AtomicBool,
    dropping: Notify,
}

/// Port 0, where nobody listens.
const NOWHERE: &str = "nats://127.0.0.1:0";
/// The most servers of a cluster that are remembered in addition to the configured ones.
const DISCOVERED: usize = 64;
/// The most commands that wait for the socket; further callers wait until there is room.
const COMMANDS: usize = 256;
/// The most messages that wait for the task that passes them on.
const BUFFER: usize = 4_096;
/// The most refusals that wait for somebody who asks for them.
const REFUSALS: usize = 16;

/// Returns true if the server says this of a message that was published to the subject.
fn is_about(said: &str, subject: &str) -> bool {
    said.contains(&format!("\"{subject}\""))
}

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

impl NatsConnection {
    /// Waits until the connection can't be used any more. Returns why.
    pub(super) async fn ended(&self) -> String {
        let mut end = self.events.end.subscribe();
        let end = end.wait_for(Option::is_some).await;
        // The sender lives in `self`, so it is not gone.
        end.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// Gives the messages to the client, until it refuses one.
    pub(super) async fn send(&self, subject: &str, messages: &[Bytes]) -> PublishOutcome {
        for (sent, message) in messages.iter().enumerate() {
            let taken = self.client.publish(subject.to_owned(), message.clone());
            if let Err(error) = taken.await {
                return (sent, Some(self.not_sent(&error)));
            }
        }
        (messages.len(), None)
    }

    /// Why the client could not even send a message.
    fn not_sent(&self, error: &client::PublishError) -> PublishError {
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

    /// The refusal of something that was published to this subject since the previous call.
    pub(super) fn refusal(&self, subject: &str) -> Option<String> {
        let mut refusals = self.events.refusals.lock();
        let last = refusals
            .iter()
            .rfind(|said| is_about(said, subject))
            .cloned();
        refusals.retain(|said| !is_about(said, subject));
        last
    }

    /// Waits until something that was published to this subject is refused. Returns what the server
    /// says.
    pub(super) async fn refused(&self, subject: &str) -> String {
        loop {
            // Registered before the check, so that no refusal is missed.
            let refused = self.events.refused.notified();
            if let Some(said) = self.refusal(subject) {
                return said;
            }
            refused.await;
        }
    }

    /// Waits until the client has dropped messages that were not read from it in time.
    pub(super) async fn dropped(&self) {
        while !self.events.dropped.swap(false, Ordering::AcqRel) {
            self.events.dropping.notified().await;
        }
    }

    /// Ends the use of the connection, for this reason unless there was one before.
    pub(super) fn end(&self, why: &str) {
        self.events.end(why);
    }

    /// Why the connection can't be used any more. None: it can.
    pub(super) fn why(&self) -> Option<String> {
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
                if said.to_lowercase().contains("violation for publish") =>
            {
                self.refuse(said);
            }
            Event::ServerError(error) => self.end(&error.to_string()),
            Event::Connected | Event::LameDuckMode | Event::Draining | Event::ClientError(_) => {}
        }
    }

    fn refuse(&self, said: String) {
        let mut refusals = self.refusals.lock();
        if refusals.len() >= REFUSALS {
            refusals.pop_front();
        }
        refusals.push_back(said);
        drop(refusals);
        self.refused.notify_waiters();
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
    let mut servers = servers(config, discovered)?;
    let events = Arc::new(NatsClientEvents {
        end: watch::Sender::new(None),
        refusals: Mutex::default(),
        refused: Notify::new(),
        dropped: AtomicBool::new(false),
        dropping: Notify::new(),
    });
    let places: Vec<_> = servers
        .iter()
        .map(|server| (server.host().to_owned(), server.port()))
        .collect();
    match knock(&places, config.connect_timeout.0).await {
        Ok(first) => servers.rotate_left(first),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err("no answer while connecting".to_owned());
        }
        // The client says what is wrong with a server that refuses.
        Err(_) => {}
    }
    let options = options(config, servers.len(), Arc::clone(&events))?;
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
    let turn = random::number() as usize % servers.len().max(1);
    servers.rotate_left(turn);
    let new = discovered
        .iter()
        .filter(|server| !config.servers.iter().any(|s| s == server.as_url_str()));
    servers.extend(new.cloned());
    Ok(servers)
}

fn options(
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
    // Files are looked at before each connection, because they may have been replaced.
    if let Some(file) = &config.ca_file {
        certificates(file).map_err(|e| format!("{}: {e}", file.display()))?;
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
        let wrong = |e: String| format!("{}: {e}", file.display());
        let text = credentials(file).map_err(wrong)?;
        options = options
            .credentials(&text)
            .map_err(|e| wrong(e.to_string()))?;
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
