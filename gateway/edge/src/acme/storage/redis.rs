//! The Redis of the second tier as the storage that nodes share.
//!
//! Decision: everything that is written is sealed, and whoever writes under a lease shows its value
//! in the script that writes, so that a former owner writes nothing. All keys have one hash tag, so
//! that a Cluster keeps them together.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::FutureExt;
use lamina_base::redis::driver::{Client, ClusterHash, Error, KeysInterface, Script, Value};
use lamina_base::redis::{
    RedisConnection, RedisConnectionSettings, RedisConnector, RedisError, RedisTargetError,
    is_demotion, run_script, unanswered,
};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::seal::RecordSeal;
use super::{AcmeLease, AcmeRecordKey, AcmeStorage, AcmeStorageError, AcmeStored, new_token};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How to reach the Redis of the second tier, and where in it keys begin.
pub struct AcmeRedisSettings {
    pub connector: RedisConnector,
    pub prefix: String,
}

/// The storage in Redis.
pub struct AcmeRedis {
    link: Arc<RedisLink>,
    prefix: String,
    seal: RecordSeal,
    _keeper: AbortOnDropHandle<()>,
}

/// A connection that is kept up.
struct RedisLink {
    client: RwLock<Result<Client, RedisError>>,
    reset: Notify,
}

/// Keys: lease, number. Arguments: token, ms. Returns the number, or 0 if another one has it. A
/// lease that outlives its time is not one of ours.
static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local left = redis.call('PTTL', KEYS[1])
if left > 0 and left <= tonumber(ARGV[2]) then return 0 end
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], number .. ' ' .. ARGV[1], 'PX', ARGV[2])
return number",
    )
});

/// Keys: lease. Arguments: its value, ms. Returns whether it is ours.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// Keys: lease. Arguments: its value.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])",
    )
});

/// Keys: record, lease, version. Arguments: record, ms or 0, the lease's value or nothing, 1 if the
/// version changes. Returns 0 if the lease is not ours.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "if ARGV[3] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
if ARGV[4] == '1' then redis.call('INCR', KEYS[3]) end
return 1",
    )
});

/// Keys: record, version. Arguments: 1 if the version changes.
static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "local removed = redis.call('DEL', KEYS[1])
if removed == 1 and ARGV[1] == '1' then redis.call('INCR', KEYS[2]) end
return removed",
    )
});

impl AcmeRedisSettings {
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

impl AcmeRedis {
    /// Opens a storage that connects by itself, now and whenever the connection is lost.
    ///
    /// # Errors
    /// If the seal can't be made.
    pub fn open(settings: AcmeRedisSettings, secret: &str) -> Result<Self, AcmeStorageError> {
        let link = Arc::new(RedisLink {
            client: RwLock::new(Err(RedisError::Down("not connected yet".to_owned()))),
            reset: Notify::new(),
        });
        let kept = keep(Arc::clone(&link), settings.connector);
        Ok(Self {
            link,
            prefix: format!("{}{{acme}}:", settings.prefix),
            seal: RecordSeal::new(secret.as_bytes())?,
            _keeper: AbortOnDropHandle::new(tokio::spawn(kept)),
        })
    }

    fn key(&self, key: &AcmeRecordKey) -> String {
        format!("{}{key}", self.prefix)
    }

    fn lease(&self, name: &str) -> String {
        format!("{}leases/{name}", self.prefix)
    }

    fn version_key(&self) -> String {
        format!("{}version", self.prefix)
    }

    fn client(&self) -> Result<Client, AcmeStorageError> {
        self.link.client.read().clone().map_err(unusable)
    }

    async fn run(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<i64, AcmeStorageError> {
        let client = self.client()?;
        let answer = timeout(PATIENCE, run_script(script, &client, keys, arguments)).await;
        let answer = answer.map_err(|_| unusable(RedisError::Timeout))?;
        let answer = answer.map_err(|error| self.failed(&error))?;
        let number = answer.as_i64();
        number.ok_or_else(|| unusable(RedisError::Corrupt("a foreign answer".to_owned())))
    }

    async fn get(&self, key: String) -> Result<Option<Vec<u8>>, AcmeStorageError> {
        let client = self.client()?;
        let answer = timeout(PATIENCE, client.get::<Value, _>(key)).await;
        let answer = answer.map_err(|_| unusable(RedisError::Timeout))?;
        let answer = answer.map_err(|error| self.failed(&error))?;
        Ok(answer.into_bytes().map(|octets| octets.to_vec()))
    }

    /// The failure of a command. A server that is no master any more is left for another one.
    fn failed(&self, error: &Error) -> AcmeStorageError {
        if is_demotion(error) {
            self.link.reset.notify_waiters();
        }
        unusable(RedisError::from(error))
    }
}

impl AcmeStorage for AcmeRedis {
    fn is_shared(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, key: &'a AcmeRecordKey) -> AcmeStored<'a, Option<Vec<u8>>> {
        async move {
            let place = self.key(key);
            let found = self.get(place.clone()).await?;
            found
                .map(|sealed| self.seal.open(&place, &sealed))
                .transpose()
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a AcmeRecordKey,
        record: Vec<u8>,
        life: Option<Duration>,
        lease: Option<&'a AcmeLease>,
    ) -> AcmeStored<'a, ()> {
        async move {
            let place = self.key(key);
            let sealed = self.seal.seal(&place, record)?;
            let keys = vec![
                place,
                self.lease(lease.map_or("", |lease| &lease.name)),
                self.version_key(),
            ];
            let arguments = vec![
                Value::Bytes(sealed.into()),
                life.map_or(0, millis).into(),
                lease.map_or(String::new(), value_of).into(),
                i64::from(key.kind.is_watched()).into(),
            ];
            match self.run(&WRITE, keys, arguments).await? {
                1 => Ok(()),
                _ => Err(AcmeStorageError::LeaseLost),
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, key: &'a AcmeRecordKey) -> AcmeStored<'a, ()> {
        async move {
            let keys = vec![self.key(key), self.version_key()];
            let watched = i64::from(key.kind.is_watched());
            self.run(&REMOVE, keys, vec![watched.into()])
                .await
                .map(drop)
        }
        .boxed()
    }

    fn version(&self) -> AcmeStored<'_, Vec<u8>> {
        async move { Ok(self.get(self.version_key()).await?.unwrap_or_default()) }.boxed()
    }

    fn acquire<'a>(&'a self, name: &'a str, life: Duration) -> AcmeStored<'a, Option<AcmeLease>> {
        async move {
            let token = new_token()?;
            let keys = vec![self.lease(name), format!("{}numbers/{name}", self.prefix)];
            let arguments = vec![token.as_str().into(), millis(life).into()];
            let number = self.run(&ACQUIRE, keys, arguments).await?;
            let number = u64::try_from(number).unwrap_or(0);
            Ok((number > 0).then(|| AcmeLease {
                name: name.to_owned(),
                number,
                token,
            }))
        }
        .boxed()
    }

    fn renew<'a>(&'a self, lease: &'a AcmeLease, life: Duration) -> AcmeStored<'a, bool> {
        async move {
            let arguments = vec![value_of(lease).into(), millis(life).into()];
            let renewed = self.run(&RENEW, vec![self.lease(&lease.name)], arguments);
            Ok(renewed.await? == 1)
        }
        .boxed()
    }

    fn release<'a>(&'a self, lease: &'a AcmeLease) -> AcmeStored<'a, ()> {
        async move {
            let arguments = vec![value_of(lease).into()];
            let released = self.run(&RELEASE, vec![self.lease(&lease.name)], arguments);
            released.await.map(drop)
        }
        .boxed()
    }
}

/// What stands under the key of a lease.
fn value_of(lease: &AcmeLease) -> String {
    format!("{} {}", lease.number, lease.token)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX).max(1)
}

fn unusable(error: RedisError) -> AcmeStorageError {
    AcmeStorageError::Unusable(format!("redis: {error}"))
}

/// Keeps a connection up, for ever.
async fn keep(link: Arc<RedisLink>, connector: RedisConnector) {
    let mut pauses = connector.pauses();
    loop {
        let why = match connector.connect().await {
            Ok(connection) => {
                if let Some(seconds) = pauses.connected() {
                    tracing::info!(
                        after_s = seconds,
                        "the storage of certificates is connected"
                    );
                }
                *link.client.write() = Ok(connection.client.clone());
                hold(&link, &connector, connection).await
            }
            Err(why) => why,
        };
        if pauses.failed() {
            tracing::warn!(%why, "the storage of certificates is not connected; certificates that are there are used");
        }
        *link.client.write() = Err(why);
        sleep(pauses.next()).await;
    }
}

/// Waits until a connection is of no use any more. Returns why.
async fn hold(
    link: &RedisLink,
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
