//! One connection to Redis (to a Cluster: one to each node), until it ends.
//!
//! Decision: fred neither retries nor reconnects here, since its queue would hold commands of
//! callers who left long ago. When a connection ends, so does its client and all commands that wait
//! in it. Attempts follow one another with growing, jittered pauses ([`RedisReconnectBackoff`]).

use std::io;
use std::time::{Duration, Instant};

use crate::redis::driver::Client;
use crate::redis::driver::ClientLike;
use crate::redis::driver::config::{
    Config as Fred, ConnectionConfig, PerformanceConfig, ServerConfig, TcpConfig,
    UnresponsiveConfig,
};
use crate::redis::driver::{ClusterHash, ConnectHandle, CustomCommand, Value};
use tokio::task::JoinError;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::target::{servers, target};
use super::{RedisConnectionSettings, RedisError, RedisTargetError};
use crate::backoff::{self, OutageTracker};
use crate::knock::knock;

/// How connections are made.
#[derive(Clone)]
pub struct RedisConnector {
    target: Fred,
    /// The servers of the URL, whose return is noticed earlier than fred would.
    servers: Vec<(String, u16)>,
    connect: Duration,
    silence: Duration,
    pause_max: Duration,
    /// Whether a command without an answer means that the connection has failed.
    answers: bool,
    /// Messages that may wait for a listener that is slow.
    messages: usize,
}

/// A connection that was made, and may have ended since. Dropping it ends it.
pub struct RedisConnection {
    pub client: Client,
    routing: ConnectionTaskGuard,
}

/// Ends the task of a connection when it is dropped.
struct ConnectionTaskGuard(ConnectHandle);

/// The pauses between attempts to connect.
pub struct RedisReconnectBackoff {
    failures: u32,
    max: Duration,
    began: Option<Instant>,
    outages: OutageTracker,
}

/// Commands that may wait for the socket; further ones are refused.
const QUEUE: usize = 1_024;
/// Messages that may wait unless the caller listens and says how many. fred reserves the memory of
/// so many for each of its nine kinds of events, with each attempt to connect.
const MESSAGES: usize = 16;
/// The time between two pings.
const PULSE: Duration = Duration::from_millis(500);
/// The pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// After a connection that lived this long, the pauses start from the shortest again.
const GOOD: Duration = Duration::from_secs(5);
/// The share of the time of silence for which the peer's kernel may leave unconfirmed what was sent:
/// packets are lost then, and TCP would send them again at intervals that double. A server that
/// stands still does not lose them.
const UNCONFIRMED: f64 = 0.75;
/// TCP probes a silent peer after this long, so that a listener also notices its death.
const KEEPALIVE: Duration = Duration::from_secs(10);

impl RedisConnector {
    /// Reads the certificates; does not connect yet.
    ///
    /// # Errors
    /// When the URL is malformed, or the certificates cannot be read.
    pub fn new(settings: &RedisConnectionSettings<'_>) -> Result<Self, RedisTargetError> {
        Ok(Self {
            target: target(settings)?,
            servers: servers(settings)?,
            connect: settings.connect_timeout,
            silence: settings.silence_timeout,
            pause_max: settings.reconnect_max.max(PAUSE_MIN),
            answers: true,
            messages: MESSAGES,
        })
    }

    /// For commands that wait on the server, so that silence is not a failure.
    pub fn waiting(mut self) -> Self {
        self.answers = false;
        self
    }

    /// For a listener for which so many messages may wait.
    pub fn messages(mut self, behind: usize) -> Self {
        self.messages = behind;
        self
    }

    /// A connection that gives no answer for this long counts as failed.
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// The pauses between attempts, as they are before anything has failed.
    pub fn pauses(&self) -> RedisReconnectBackoff {
        let max = self.pause_max;
        RedisReconnectBackoff {
            failures: 0,
            max,
            began: None,
            outages: OutageTracker::default(),
        }
    }

    /// Makes one attempt to connect. Needs a tokio runtime.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(&self) -> Result<RedisConnection, RedisError> {
        let first = match knock(&self.servers, self.connect).await {
            Ok(first) => first,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(RedisError::Down("no answer while connecting".to_owned()));
            }
            // fred says what is wrong with a server that refuses.
            Err(_) => 0,
        };
        let client = self.client(first);
        let mut routing = ConnectionTaskGuard(client.connect());
        let up = async {
            tokio::select! {
                up = client.wait_for_connect() => up.map_err(|e| RedisError::from(&e)),
                end = &mut routing.0 => Err(ended(end)),
            }
        };
        // With Sentinel, one attempt may ask several of its servers in turn.
        timeout(self.connect * 4, up)
            .await
            .map_err(|_| RedisError::Down("no answer while connecting".to_owned()))??;
        Ok(RedisConnection { client, routing })
    }

    /// A client that asks this one of the servers first.
    fn client(&self, first: usize) -> Client {
        let mut target = self.target.clone();
        match &mut target.server {
            ServerConfig::Sentinel { hosts, .. } | ServerConfig::Clustered { hosts, .. } => {
                hosts.rotate_left(first);
            }
            ServerConfig::Centralized { .. } => {}
        }
        let keepalive = crate::redis::driver::TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
        let connection = ConnectionConfig {
            connection_timeout: self.connect,
            internal_command_timeout: self.connect,
            max_command_attempts: 1,
            max_command_buffer_len: QUEUE,
            tcp: TcpConfig {
                nodelay: Some(true),
                keepalive: Some(keepalive),
                user_timeout: Some(self.silence.mul_f64(UNCONFIRMED)),
                ..TcpConfig::default()
            },
            unresponsive: UnresponsiveConfig {
                max_timeout: self.answers.then_some(self.silence),
                interval: PULSE,
            },
            ..ConnectionConfig::default()
        };
        let performance = PerformanceConfig {
            broadcast_channel_capacity: self.messages,
            ..PerformanceConfig::default()
        };
        Client::new(target, Some(performance), Some(connection), None)
    }
}

impl RedisConnection {
    /// Waits until the connection has ended; returns why. Must not be called again after that.
    pub async fn ended(&mut self) -> RedisError {
        ended((&mut self.routing.0).await)
    }
}

impl Drop for ConnectionTaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RedisReconnectBackoff {
    /// Notes that a connection is up. Returns the seconds that there was none, if they are to be
    /// logged.
    pub fn connected(&mut self) -> Option<f64> {
        self.began = Some(Instant::now());
        self.outages.end().line()
    }

    /// Notes that there is no connection, or no longer. Returns whether this is news: true once for
    /// each outage, not with every attempt.
    pub fn failed(&mut self) -> bool {
        if self
            .began
            .take()
            .is_some_and(|began| began.elapsed() > GOOD)
        {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.outages.fails(self.failures == 1)
    }

    /// How long to wait before the next attempt.
    pub fn next(&self) -> Duration {
        backoff::pause(self.failures, PAUSE_MIN, self.max)
    }
}

/// Pings the node that holds `slot` until no answer comes within `patience`, or `right` rejects
/// an answer; returns why.
pub async fn unanswered(
    client: &Client,
    slot: ClusterHash,
    patience: Duration,
    right: impl Fn(Result<Value, RedisError>) -> Result<(), RedisError>,
) -> RedisError {
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        let checked = match timeout(patience, ping(client, &slot)).await {
            Ok(answer) => right(answer),
            Err(_) => Err(RedisError::Down("no answer to a ping".to_owned())),
        };
        if let Err(why) = checked {
            return why;
        }
    }
}

/// Sends one ping to the node that holds `slot`. The caller limits the time.
///
/// # Errors
/// The error that came in place of an answer.
pub async fn ping(client: &Client, slot: &ClusterHash) -> Result<Value, RedisError> {
    let ping = CustomCommand::new_static("PING", slot.clone(), false);
    let answer = client.custom::<Value, Value>(ping, Vec::new()).await;
    answer.map_err(|error| RedisError::from(&error))
}

fn ended(end: Result<Result<(), crate::redis::driver::Error>, JoinError>) -> RedisError {
    match end {
        Ok(Err(error)) => RedisError::from(&error),
        Ok(Ok(())) | Err(_) => RedisError::Down("the connection ended".to_owned()),
    }
}
