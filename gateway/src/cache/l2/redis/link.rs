//! One connection to Redis (to a Cluster: one to each node), kept up for ever.
//!
//! Decision: fred neither retries nor reconnects here, its queue would hold commands of
//! callers who left long ago. When a connection ends, so does its client and all that
//! waited in it; calls answer *down* at once until the next client stands. Attempts follow
//! one another with growing, jittered pauses. A ping tells a server that stands still.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{
    Config as Fred, ConnectionConfig, PerformanceConfig, TcpConfig, UnresponsiveConfig,
};
use fred::types::{ClusterHash, ConnectHandle, CustomCommand, Value};
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::config::Redis;
use super::fault::fault;
use crate::cache::l2::store::StoreError;

/// A connection that is kept up.
pub(super) struct Link {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

/// How a link's connections are made.
#[derive(Clone)]
pub(super) struct Plan {
    target: Fred,
    duty: Duty,
    connect: Duration,
    silence: Duration,
    pause_max: Duration,
}

/// What a connection is for.
#[derive(Clone)]
pub(super) enum Duty {
    /// Commands that answer at once; silence is a failure.
    Ask,
    /// Commands that wait on the server.
    Wait,
    /// Listens; told each new client.
    Listen(Greeting),
}

pub(super) type Greeting =
    Arc<dyn Fn(Client) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>;

struct Shared {
    standing: RwLock<Standing>,
    reset: Notify,
}

enum Standing {
    Up(Client),
    Down(StoreError),
}

/// Commands that wait for the socket at most; more are refused.
const QUEUE: usize = 1_024;
/// Messages that a listener may be behind.
const MESSAGES: usize = 1_024;
/// Between two pings.
const PULSE: Duration = Duration::from_millis(500);
/// The pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A connection that lived so long was no failure.
const GOOD: Duration = Duration::from_secs(5);
/// TCP asks a silent peer after this long, so that a listener too learns of its death.
const KEEPALIVE: Duration = Duration::from_secs(10);

impl Plan {
    pub(super) fn new(target: &Fred, config: &Redis, duty: Duty) -> Self {
        Self {
            target: target.clone(),
            duty,
            connect: config.connect_timeout.0,
            silence: config.silence_timeout.0,
            pause_max: config.reconnect_max.0.max(PAUSE_MIN),
        }
    }

    fn client(&self) -> Client {
        let waits = matches!(self.duty, Duty::Wait);
        let keepalive = fred::socket2::TcpKeepalive::new()
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
                ..TcpConfig::default()
            },
            unresponsive: UnresponsiveConfig {
                max_timeout: (!waits).then_some(self.silence),
                interval: PULSE,
            },
            ..ConnectionConfig::default()
        };
        let performance = PerformanceConfig {
            broadcast_channel_capacity: MESSAGES,
            ..PerformanceConfig::default()
        };
        Client::new(
            self.target.clone(),
            Some(performance),
            Some(connection),
            None,
        )
    }
}

impl Link {
    /// Begins to connect; needs a tokio runtime.
    pub(super) fn open(plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            standing: RwLock::new(Standing::Down(StoreError::Down(
                "not connected yet".to_owned(),
            ))),
            reset: Notify::new(),
        });
        let keeper = tokio::spawn(keep(Arc::clone(&shared), plan));
        Self { shared, keeper }
    }

    /// The client, or why there is none.
    pub(super) fn client(&self) -> Result<Client, StoreError> {
        match &*self.shared.standing.read() {
            Standing::Up(client) => Ok(client.clone()),
            Standing::Down(why) => Err(why.clone()),
        }
    }

    /// Gives the connection up and makes another one.
    pub(super) fn reset(&self) {
        self.shared.reset.notify_waiters();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    fn set(&self, standing: Standing) {
        *self.standing.write() = standing;
    }
}

/// Ends a connection's task when the keeper does.
struct Routing(ConnectHandle);

impl Drop for Routing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep(shared: Arc<Shared>, plan: Plan) {
    let mut failures: u32 = 0;
    loop {
        let why = match connect(&plan).await {
            Ok((client, routing)) => {
                let began = Instant::now();
                tracing::info!(store = "redis", "connected");
                shared.set(Standing::Up(client.clone()));
                let why = hold(&shared, &plan, &client, routing).await;
                if began.elapsed() > GOOD {
                    failures = 0;
                }
                why
            }
            Err(why) => why,
        };
        // Once, not with every attempt.
        if failures == 0 {
            tracing::warn!(store = "redis", error = %why, "not connected");
        }
        shared.set(Standing::Down(why));
        failures = failures.saturating_add(1);
        sleep(pause(failures, plan.pause_max, dice())).await;
    }
}

async fn connect(plan: &Plan) -> Result<(Client, Routing), StoreError> {
    let client = plan.client();
    let mut routing = Routing(client.connect());
    let up = async {
        tokio::select! {
            up = client.wait_for_connect() => up.map_err(|e| fault(&e)),
            end = &mut routing.0 => Err(ended(end)),
        }
    };
    // Sentinel: one attempt may ask several of them in turn.
    timeout(plan.connect * 4, up)
        .await
        .map_err(|_| StoreError::Down("no answer while connecting".to_owned()))??;
    if let Duty::Listen(greet) = &plan.duty {
        timeout(plan.silence, greet(client.clone()))
            .await
            .map_err(|_| StoreError::Timeout)??;
    }
    Ok((client, routing))
}

/// Until the connection is no good any more; answers why.
async fn hold(shared: &Shared, plan: &Plan, client: &Client, mut routing: Routing) -> StoreError {
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reset = shared.reset.notified();
    tokio::pin!(reset);
    loop {
        tokio::select! {
            end = &mut routing.0 => return ended(end),
            () = &mut reset => return StoreError::Down("the connection was given up".to_owned()),
            _ = pulse.tick(), if matches!(plan.duty, Duty::Ask) => {
                // Any answer is one, a refusal too; a broken connection ends its task.
                if timeout(plan.silence, ping(client)).await.is_err() {
                    return StoreError::Down("no answer to a ping".to_owned());
                }
            }
        }
    }
}

async fn ping(client: &Client) {
    let command = CustomCommand::new_static("PING", ClusterHash::Random, false);
    let _ = client.custom::<Value, Value>(command, Vec::new()).await;
}

fn ended(end: Result<Result<(), fred::error::Error>, tokio::task::JoinError>) -> StoreError {
    match end {
        Ok(Err(error)) => fault(&error),
        Ok(Ok(())) | Err(_) => StoreError::Down("the connection ended".to_owned()),
    }
}

/// Doubled with each failure, of which 50 to 100 % by the dice.
fn pause(failures: u32, max: Duration, dice: u32) -> Duration {
    let full = PAUSE_MIN
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(max);
    full.mul_f64(0.5 + 0.5 * f64::from(dice) / f64::from(u32::MAX))
}

fn dice() -> u32 {
    RandomState::new().hash_one(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_attempts_grow_to_their_bound() {
        let max = Duration::from_secs(2);
        assert_eq!(pause(1, max, u32::MAX), PAUSE_MIN);
        assert_eq!(pause(2, max, u32::MAX), PAUSE_MIN * 2);
        assert_eq!(pause(1_000, max, u32::MAX), max);
        assert_eq!(pause(1_000, max, 0), max / 2);
    }
}
