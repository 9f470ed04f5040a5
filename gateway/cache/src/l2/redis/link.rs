//! One connection of the store, kept up for ever.
//!
//! Decision: calls answer *down* at once until the next connection stands
//! (`crate::redis::RedisConnection` says why fred itself keeps none up). A ping tells a server
//! that stands still.

use std::sync::Arc;

use fred::clients::Client;
use fred::types::ClusterHash;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::l2::store::StoreError;
use crate::redis::{RedisConnection, RedisConnector, RedisError, SharedOutage, unanswered};

/// A connection that is kept up.
pub(super) struct RedisStoreLink {
    shared: Arc<SharedLinkState>,
    keeper: JoinHandle<()>,
}

/// What a connection is for.
#[derive(Clone)]
pub(super) enum RedisLinkRole {
    /// Commands that answer at once; silence is a failure.
    Ask,
    /// Commands that wait on the server.
    Wait,
    /// Listens; told each new client.
    Listen(OnRedisConnected),
}

pub(super) type OnRedisConnected =
    Arc<dyn Fn(Client) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>;

struct SharedLinkState {
    standing: RwLock<LinkState>,
    reset: Notify,
}

enum LinkState {
    Up(Client),
    Down(StoreError),
}

/// Names a connection in the lines of the log.
enum LinkOutageLog {
    /// That the store's connections are lost, and stand again.
    Shared(Arc<SharedOutage>),
    /// A listener is lost with the others, which tell that. Where it may not listen, the store
    /// works without it, and its failure must not hide an outage.
    OfListener,
}

impl LinkOutageLog {
    fn of(duty: &RedisLinkRole, outage: Arc<SharedOutage>) -> Self {
        match duty {
            RedisLinkRole::Ask | RedisLinkRole::Wait => Self::Shared(outage),
            RedisLinkRole::Listen(_) => Self::OfListener,
        }
    }

    /// The connection does not stand: it was not made yet, or it has ended.
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

    /// An attempt has failed; `is_news` for the first of this connection.
    fn failed(&self, why: &StoreError, is_news: bool) {
        match self {
            Self::Shared(outage) => outage.failed(why, is_news),
            Self::OfListener => {
                tracing::debug!(%why, "word of leases that are given back is not heard");
            }
        }
    }
}

impl RedisStoreLink {
    /// Begins to connect; needs a tokio runtime.
    pub(super) fn open(
        plan: RedisConnector,
        duty: RedisLinkRole,
        outage: Arc<SharedOutage>,
    ) -> Self {
        let plan = match duty {
            RedisLinkRole::Wait => plan.waiting(),
            RedisLinkRole::Ask | RedisLinkRole::Listen(_) => plan,
        };
        let shared = Arc::new(SharedLinkState {
            standing: RwLock::new(LinkState::Down(StoreError::Down(
                "not connected yet".to_owned(),
            ))),
            reset: Notify::new(),
        });
        let told = LinkOutageLog::of(&duty, outage);
        told.lost();
        let keeper = tokio::spawn(keep(Arc::clone(&shared), plan, duty, told));
        Self { shared, keeper }
    }

    /// The client, or why there is none.
    pub(super) fn client(&self) -> Result<Client, StoreError> {
        match &*self.shared.standing.read() {
            LinkState::Up(client) => Ok(client.clone()),
            LinkState::Down(why) => Err(why.clone()),
        }
    }

    /// Gives the connection up and makes another one.
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
        *self.standing.write() = standing;
    }
}

async fn keep(
    shared: Arc<SharedLinkState>,
    plan: RedisConnector,
    duty: RedisLinkRole,
    told: LinkOutageLog,
) {
    let mut pauses = plan.pauses();
    loop {
        let why = match connect(&plan, &duty).await {
            Ok(connection) => {
                // The line is due when all connections stand.
                let _ = pauses.connected();
                told.connected();
                shared.set(LinkState::Up(connection.client.clone()));
                let why = hold(&shared, &plan, &duty, connection).await.into();
                told.lost();
                why
            }
            Err(why) => why,
        };
        told.failed(&why, pauses.failed());
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

/// Until the connection is no good any more; answers why.
async fn hold(
    shared: &SharedLinkState,
    plan: &RedisConnector,
    duty: &RedisLinkRole,
    mut connection: RedisConnection,
) -> RedisError {
    let client = connection.client.clone();
    tokio::select! {
        why = connection.ended() => why,
        () = shared.reset.notified() => RedisError::Down("the connection was given up".to_owned()),
        // Any answer is one, a refusal too; a broken connection ends by itself.
        why = unanswered(&client, ClusterHash::Random, plan.silence(), |_| Ok(())),
            if matches!(duty, RedisLinkRole::Ask) => why,
    }
}
