//! One connection of the store, which is reconnected for ever.
//!
//! Decision: until the next connection is ready, calls are answered with *down* at once
//! (`crate::redis::RedisConnection` explains why fred itself does not reconnect). A ping detects a
//! server that hangs.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use lamina_base::redis::driver::Client;
use lamina_base::redis::driver::ClusterHash;
use parking_lot::RwLock;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::freed;
use crate::l2::store::StoreError;
use crate::redis::{RedisConnection, RedisConnector, SharedOutage, unanswered};

/// A connection that is kept up.
pub(super) struct RedisStoreLink {
    shared: Arc<SharedLinkState>,
    keeper: JoinHandle<()>,
}

/// The purpose of a connection.
#[derive(Clone)]
pub(super) enum RedisLinkRole {
    /// Commands that are answered at once; silence is a failure.
    Ask,
    /// Commands that wait on the server.
    Wait,
    /// A listener. The function is called with each new client.
    Listen(OnRedisConnected),
}

pub(super) type OnRedisConnected =
    Arc<dyn Fn(Client) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>;

struct SharedLinkState {
    standing: RwLock<LinkState>,
    reset: Notify,
    ended: Notify,
}

enum LinkState {
    Up(Client),
    Down(StoreError),
}

/// How a connection's failures are logged.
enum LinkOutageLog {
    /// Logs when the store's connections are lost and when they work again.
    Shared(Arc<SharedOutage>),
    /// A listener is lost together with the other connections, which log that. If it may not
    /// listen, the store works without it, and its failure must not hide an outage.
    OfListener,
}

impl LinkOutageLog {
    fn of(duty: &RedisLinkRole, outage: Arc<SharedOutage>) -> Self {
        match duty {
            RedisLinkRole::Ask | RedisLinkRole::Wait => Self::Shared(outage),
            RedisLinkRole::Listen(_) => Self::OfListener,
        }
    }

    /// The connection is not ready: it was not made yet, or it has ended.
    fn lost(&self) {
        if let Self::Shared(outage) = self {
            outage.lacks_one();
        }
    }

    fn connected(&self) {
        if let Self::Shared(outage) = self {
            outage.connected();
        }
    }

    /// An attempt has failed; `is_news` is true for the first one of this connection.
    fn failed(&self, why: &StoreError, is_news: bool) {
        match self {
            Self::Shared(outage) => outage.failed(why, is_news),
            Self::OfListener => {
                tracing::debug!(%why, "notifications about released leases are not received");
            }
        }
    }
}

impl RedisStoreLink {
    /// Begins to connect, and counts each connection in `connects`. It needs a tokio runtime.
    pub(super) fn open(
        plan: RedisConnector,
        duty: RedisLinkRole,
        outage: Arc<SharedOutage>,
        connects: watch::Sender<u64>,
    ) -> Self {
        let plan = match duty {
            RedisLinkRole::Ask => plan,
            RedisLinkRole::Wait => plan.waiting(),
            RedisLinkRole::Listen(_) => plan.messages(freed::BEHIND),
        };
        let shared = Arc::new(SharedLinkState {
            standing: RwLock::new(LinkState::Down(StoreError::Down(
                "not connected yet".to_owned(),
            ))),
            reset: Notify::new(),
            ended: Notify::new(),
        });
        let told = LinkOutageLog::of(&duty, outage);
        told.lost();
        let keeper = tokio::spawn(keep(Arc::clone(&shared), plan, duty, (told, connects)));
        Self { shared, keeper }
    }

    /// The client, or the reason why there is none.
    pub(super) fn client(&self) -> Result<Client, StoreError> {
        match &*self.shared.standing.read() {
            LinkState::Up(client) => Ok(client.clone()),
            LinkState::Down(why) => Err(why.clone()),
        }
    }

    /// Waits until the connection that there is now has ended: what was asked for on it just before
    /// may get no answer, not even an error. Registered when this is called.
    pub(super) fn ended(&self) -> Notified<'_> {
        self.shared.ended.notified()
    }

    /// Drops the connection and makes a new one.
    pub(super) fn reset(&self) {
        self.shared.reset.notify_waiters();
    }
}

impl Drop for RedisStoreLink {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl SharedLinkState {
    fn set(&self, standing: LinkState) {
        let is_down = matches!(standing, LinkState::Down(_));
        *self.standing.write() = standing;
        if is_down {
            self.ended.notify_waiters();
        }
    }
}

async fn keep(
    shared: Arc<SharedLinkState>,
    plan: RedisConnector,
    duty: RedisLinkRole,
    (told, connects): (LinkOutageLog, watch::Sender<u64>),
) {
    let mut pauses = plan.pauses();
    loop {
        let ended = match connect(&plan, &duty).await {
            Ok(connection) => {
                // The log line is written when all connections are ready.
                let _ = pauses.connected();
                told.connected();
                shared.set(LinkState::Up(connection.client.clone()));
                connects.send_modify(|count| *count += 1);
                let ended = hold(&shared, &plan, &duty, connection).await;
                told.lost();
                ended
            }
            Err(why) => LinkEnd::Failed(why),
        };
        let why = match ended {
            LinkEnd::Failed(why) => {
                told.failed(&why, pauses.failed());
                why
            }
            LinkEnd::GivenUp => {
                let why = StoreError::Down("the gateway looks for another master".to_owned());
                told.failed(&why, false);
                why
            }
        };
        shared.set(LinkState::Down(why));
        sleep(pauses.next()).await;
    }
}

async fn connect(
    plan: &RedisConnector,
    duty: &RedisLinkRole,
) -> Result<RedisConnection, StoreError> {
    let connection = plan.connect().await?;
    if let RedisLinkRole::Listen(greet) = duty {
        timeout(plan.silence(), greet(connection.client.clone()))
            .await
            .map_err(|_| StoreError::Timeout)??;
    }
    Ok(connection)
}

/// Why there is no connection any more.
enum LinkEnd {
    Failed(StoreError),
    /// By us, and whoever did it says why.
    GivenUp,
}

/// Waits until the connection is unusable, and returns the reason.
async fn hold(
    shared: &SharedLinkState,
    plan: &RedisConnector,
    duty: &RedisLinkRole,
    mut connection: RedisConnection,
) -> LinkEnd {
    let client = connection.client.clone();
    let why = tokio::select! {
        why = connection.ended() => why,
        () = shared.reset.notified() => return LinkEnd::GivenUp,
        // Any answer is enough, even a refusal; a broken connection ends by itself.
        why = unanswered(&client, ClusterHash::Random, plan.silence(), |_| Ok(())),
            if matches!(duty, RedisLinkRole::Ask) => why,
    };
    LinkEnd::Failed(why.into())
}
