//! Allowances that nodes share, in the Redis of the second tier.
//!
//! One key for each allowance, with the moment at which it is full again by Redis's own clock. A
//! script gives a node several requests at once.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lamina_base::redis::driver::{Client, ClusterHash, Error, Script, Value};
use lamina_base::redis::{
    RedisConnection, RedisConnectionSettings, RedisConnector, RedisError, RedisTargetError,
    is_demotion, run_script, unanswered,
};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::bucket::BucketTerms;

/// How long Redis may take to answer. Requests do not wait that long.
const PATIENCE: Duration = Duration::from_millis(100);

/// How to reach the Redis of the second tier, and where in it keys begin.
pub struct LimitRedisSettings {
    connector: RedisConnector,
    prefix: String,
}

/// The connection to the shared allowances.
pub struct LimitRedis {
    link: Arc<LimitRedisLink>,
    prefix: String,
    _keeper: AbortOnDropHandle<()>,
}

/// A connection that is kept up.
struct LimitRedisLink {
    client: RwLock<Option<Client>>,
    reset: Notify,
}

/// What Redis says of an allowance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseGrant {
    /// So many requests may be admitted, and so many are still free.
    Leased { tokens: u64, free: u64 },
    /// There is none for so long.
    Nothing { wait: Duration },
}

/// Keys: allowance. Arguments: µs for one request, burst, how many are wanted. Returns how many are
/// given and how many are left; or 0 and the µs until there is one. What is not a number of ours, or
/// is further in the future than the whole burst takes, counts as used up and no more.
static LEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local found = redis.pcall('GET', KEYS[1])
local full = type(found) == 'string' and tonumber(found) or now
local latest = now + interval * burst
full = math.min(math.max(full, now), latest)
local free = math.floor((latest - full) / interval + 0.000001)
if free < 1 then
  return {0, math.ceil(full + interval - latest)}
end
local given = math.min(wanted, free)
full = full + given * interval
redis.call('SET', KEYS[1], string.format('%.2f', full), 'PX', string.format('%.0f', (full - now) / 1000 + 1000))
return {given, free - given}",
    )
});

impl LimitRedisSettings {
    /// # Errors
    /// If the settings can't describe a Redis.
    pub fn new(
        settings: &RedisConnectionSettings<'_>,
        prefix: String,
    ) -> Result<Self, RedisTargetError> {
        let connector = RedisConnector::new(settings)?;
        Ok(Self { connector, prefix })
    }
}

impl LimitRedis {
    /// Connects by itself, now and whenever the connection is lost. Needs a tokio runtime.
    pub fn open(settings: &LimitRedisSettings) -> Self {
        let link = Arc::new(LimitRedisLink {
            client: RwLock::default(),
            reset: Notify::new(),
        });
        let kept = keep(Arc::clone(&link), settings.connector.clone());
        Self {
            link,
            prefix: settings.prefix.clone(),
            _keeper: AbortOnDropHandle::new(tokio::spawn(kept)),
        }
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.link.client.read().is_some()
    }

    /// Leases requests of one allowance of a limit.
    ///
    /// # Errors
    /// If Redis does not answer as it should.
    pub async fn lease(
        &self,
        limit: &str,
        allowance: &str,
        terms: BucketTerms,
        wanted: u64,
    ) -> Result<LeaseGrant, RedisError> {
        let client = self.link.client.read().clone();
        let client = client.ok_or_else(|| RedisError::Down("no connection".to_owned()))?;
        // The limit's hash tag: a Cluster keeps its allowances together.
        let key = format!("{}{{limit:{limit}}}:{allowance}", self.prefix);
        let micros = terms.interval as f64 / 1_000.0;
        let micros = format!("{micros}");
        let arguments = vec![micros.into(), number(terms.burst), number(wanted)];
        let answer = timeout(PATIENCE, run_script(&LEASE, &client, vec![key], arguments)).await;
        let answer = answer.map_err(|_| RedisError::Timeout)?;
        let answer = answer.map_err(|error| self.failed(&error))?;
        read(answer).ok_or_else(|| RedisError::Corrupt("a foreign answer".to_owned()))
    }

    /// The failure of a command. A server that is no master any more is left for another one.
    fn failed(&self, error: &Error) -> RedisError {
        if is_demotion(error) {
            self.link.reset.notify_waiters();
        }
        RedisError::from(error)
    }
}

fn number(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

fn read(answer: Value) -> Option<LeaseGrant> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let mut parts = parts.iter().map(|part| part.as_i64()?.try_into().ok());
    let (tokens, more) = (parts.next()??, parts.next()??);
    Some(match tokens {
        0 => LeaseGrant::Nothing {
            wait: Duration::from_micros(more),
        },
        tokens => LeaseGrant::Leased { tokens, free: more },
    })
}

/// Keeps a connection up, for ever.
async fn keep(link: Arc<LimitRedisLink>, connector: RedisConnector) {
    let mut pauses = connector.pauses();
    loop {
        let why = match connector.connect().await {
            Ok(connection) => {
                if let Some(seconds) = pauses.connected() {
                    tracing::info!(after_s = seconds, "shared rate limits are connected");
                }
                *link.client.write() = Some(connection.client.clone());
                hold(&link, &connector, connection).await
            }
            Err(why) => why,
        };
        *link.client.write() = None;
        if pauses.failed() {
            tracing::warn!(
                %why,
                "shared rate limits are not connected; each node admits its part of the rate"
            );
        }
        sleep(pauses.next()).await;
    }
}

/// Waits until a connection is of no use any more. Returns why.
async fn hold(
    link: &LimitRedisLink,
    connector: &RedisConnector,
    mut connection: RedisConnection,
) -> RedisError {
    let client = connection.client.clone();
    tokio::select! {
        why = connection.ended() => why,
        () = link.reset.notified() => RedisError::Down("the connection was given up".to_owned()),
        why = unanswered(&client, ClusterHash::Random, connector.silence(), |_| Ok(())) => why,
    }
}
