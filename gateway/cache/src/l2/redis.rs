//! The second tier that nodes share: a single Redis server, Sentinel, or a Cluster.
//!
//! Inside: `config`, `description` with `crash` (what a crash may undo), `link` (a connection that is kept up), `script`, `log` (the purge log),
//! `lease`, `freed` (messages about released leases), `note` (notes of invalidations), `index`,
//! `names`, `seals`, `fault`, `server` (settings of the server), `rights` (what our user may not do), `writes` (whether it takes writes); connecting is in `crate::redis`.
//! Decision: every write is a script that checks before it writes, so that a late write never
//! overrides a purge, a newer record or the owner of a lease. No command ever scans the keys.
//! Invariant: nothing here waits for a connection.

pub mod config;
mod crash;
mod description;
mod fault;
mod freed;
mod index;
mod lease;
mod link;
mod log;
mod names;
mod note;
mod rights;
mod script;
mod seals;
mod server;
mod shared;
mod values;
mod writes;

use crate::l2::store::LogNumber;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lamina_base::redis::driver::Client;
use lamina_base::redis::driver::Error;
use lamina_base::redis::driver::Script;
use lamina_base::redis::driver::Value;
use parking_lot::Mutex;
use tokio::sync::futures::Notified;
use tokio::sync::{broadcast, watch};

use super::description::SharedStoreSettings;
use super::store::{
    Durability, FoundRecord, IndexNote, IndexPage, Lease, LeaseAcquisition, LogPlace, LoggedPurge,
    PurgeLogRange, Store, StoreError, StoreKey, StorePut, StorePutOutcome, StoreRight,
};
use crate::key::PurgeHash;
use crate::l2::store::LogOrder;
use crate::redis::{RedisConnector, SharedOutage, is_demotion, run_script};
pub use config::RedisStoreOpenError;
use fault::{fault, knows_no_flags, unexpected};
use link::{RedisLinkRole, RedisStoreLink};
use names::RedisKeyNames;
use script::InvalidationScript;
use seals::RedisSeals;
pub use shared::SharedRedis;
use values::{done, found, millis, size, stamp};
use writes::{WriteProbe, WriteWatch};

/// How long a deleted key keeps out what was born before: longer than any load.
const TOMBSTONE: Duration = Duration::from_secs(600);

/// The least time before connections are given up again to find another master.
const LEAVE_AGAIN: Duration = Duration::from_secs(1);

/// The store in Redis.
struct RedisStore {
    names: RedisKeyNames,
    /// Connections for commands that are answered at once.
    asking: Vec<RedisStoreLink>,
    turn: AtomicUsize,
    /// The connection for commands that wait on the server.
    waiting: RedisStoreLink,
    listening: RedisStoreLink,
    freed: broadcast::Sender<StoreKey>,
    purge_log_length: u64,
    /// 0: there is no index.
    index_shards: u16,
    /// None: there is no secret, so everything that has the right form is trusted.
    seals: Option<RedisSeals>,
    /// The longest life of a record.
    max_life: Duration,
    /// What is known of the purge log's generation.
    generation: log::KnownGeneration,
    /// Leases of other nodes, as they were observed.
    watched: lease::ObservedLeases,
    /// The server is too old for flags in scripts.
    is_flagless: AtomicBool,
    /// When connections were last given up because the server is not a master.
    left: Mutex<Option<Instant>>,
    connects: watch::Sender<u64>,
    writing: WriteWatch,
    probing: OnceLock<WriteProbe>,
}

/// Opens a store that connects by itself, now and whenever the connection is lost. It needs a tokio
/// runtime.
///
/// # Errors
/// When the configuration can't describe a Redis. A Redis that is down is not an error.
pub fn open(config: &config::RedisTierConfig) -> Result<Arc<dyn Store>, RedisStoreOpenError> {
    open_for(config, SharedStoreSettings::default())
}

/// Like [`open`], for nodes that have these settings in common.
///
/// # Errors
/// The same as for [`open`].
pub fn open_for(
    config: &config::RedisTierConfig,
    common: SharedStoreSettings<'_>,
) -> Result<Arc<dyn Store>, RedisStoreOpenError> {
    description::check(config)?;
    let plan = RedisConnector::new(&config.connection())?;
    let names = RedisKeyNames::new(config.prefix_for(common.namespace));
    let (freed, _) = broadcast::channel(freed::BEHIND);
    let outage = Arc::new(SharedOutage::default());
    let connects = watch::Sender::new(0);
    let link =
        |duty| RedisStoreLink::open(plan.clone(), duty, Arc::clone(&outage), connects.clone());
    let store = Arc::new(RedisStore {
        asking: (0..config.connections)
            .map(|_| link(RedisLinkRole::Ask))
            .collect(),
        turn: AtomicUsize::new(0),
        waiting: link(RedisLinkRole::Wait),
        listening: link(RedisLinkRole::Listen(freed::greeting(
            names.freed(),
            freed.clone(),
        ))),
        freed,
        names,
        purge_log_length: config.purge_log_length.max(1),
        index_shards: match config.index.enabled {
            true => config.index.shards,
            false => 0,
        },
        seals: common
            .secret
            .map(|secret| RedisSeals::new(secret.as_bytes())),
        max_life: common.max_life,
        generation: log::KnownGeneration::default(),
        watched: lease::ObservedLeases::default(),
        is_flagless: AtomicBool::new(false),
        left: Mutex::default(),
        connects,
        writing: WriteWatch::new(),
        probing: OnceLock::new(),
    });
    let probe = WriteProbe::start(&store);
    // It is the first one.
    let _ = store.probing.set(probe);
    Ok(store)
}

impl RedisStore {
    /// A connected client; the connections take turns.
    fn client(&self) -> Result<Client, StoreError> {
        self.client_and_end().map(|(client, _)| client)
    }

    /// The same, and the end of its connection.
    fn client_and_end(&self) -> Result<(Client, Notified<'_>), StoreError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let links = (0..self.asking.len()).map(|i| &self.asking[(turn + i) % self.asking.len()]);
        let mut down = StoreError::Down("no connection".to_owned());
        for link in links {
            let ended = link.ended();
            match link.client() {
                Ok(client) => return Ok((client, ended)),
                Err(why) => down = why,
            }
        }
        Err(down)
    }

    async fn run(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<Value, StoreError> {
        let about = keys.first().cloned().unwrap_or_default();
        let answer = self.run_until_ended(script, keys, arguments).await?;
        answer.map_err(|error| self.failed_about(&about, &error))
    }

    /// Runs a script, as long as there is its connection: what came just after its end may get no
    /// answer, not even an error.
    async fn run_until_ended(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<Result<Value, Error>, StoreError> {
        let (client, ended) = self.client_and_end()?;
        tokio::select! {
            biased;
            answer = run_script(script, &client, keys, arguments) => Ok(answer),
            () = ended => {
                let why = "the connection ended before there was an answer".to_owned();
                Err(StoreError::Down(why))
            }
        }
    }

    /// Runs a script that carries invalidations, even when the server's memory is used up.
    async fn carry(
        &self,
        script: &InvalidationScript,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<Value, StoreError> {
        if !self.is_flagless.load(Ordering::Relaxed) {
            let asked = (keys.clone(), arguments.clone());
            let answer = self.run_until_ended(&script.flagged, asked.0, asked.1);
            match answer.await? {
                Err(error) if knows_no_flags(&error) => {
                    self.is_flagless.store(true, Ordering::Relaxed);
                }
                answer => {
                    return answer.map_err(|error| {
                        let about = keys.first().map_or("", String::as_str);
                        self.failed_about(about, &error)
                    });
                }
            }
        }
        self.run(&script.plain, keys, arguments).await
    }

    /// Whether connections should be given up because the server is not a master. This is not done
    /// with each command, because a server that stays a replica is still of use for reading.
    fn leaves(&self) -> bool {
        let mut left = self.left.lock();
        let leaves = left.is_none_or(|at| at.elapsed() >= LEAVE_AGAIN);
        if leaves {
            *left = Some(Instant::now());
        }
        leaves
    }

    /// The failure of a command. If the master became a replica, its connections are given up for
    /// the new master.
    fn failed(&self, error: &Error) -> StoreError {
        if is_demotion(error) && self.leaves() {
            self.asking.iter().for_each(RedisStoreLink::reset);
            self.waiting.reset();
        }
        fault(error)
    }

    /// The failure of a command about a key.
    fn failed_about(&self, key: &str, error: &Error) -> StoreError {
        let failed = self.failed(error);
        self.writing.note_failure(key, &failed);
        failed
    }

    async fn read(&self, key: &StoreKey, max: usize) -> Result<Option<FoundRecord>, StoreError> {
        let keys = vec![self.names.record(key)];
        match self.run(&script::GET, keys, vec![size(max)]).await? {
            Value::Null => Ok(None),
            Value::Array(parts) => found(parts, max),
            _ => Err(unexpected("GET")),
        }
    }

    async fn write(&self, put: StorePut<'_>) -> Result<StorePutOutcome, StoreError> {
        if self.has_ended(put.born) {
            return Ok(StorePutOutcome::Overtaken);
        }
        let token = put
            .lease
            .map_or(Bytes::new(), |l| Bytes::copy_from_slice(&l.token));
        let keys = vec![
            self.names.record(put.key),
            self.names.born(put.key),
            self.names.tombstone(put.key),
            self.names
                .lease(put.lease.map_or(put.key, |lease| &lease.key)),
        ];
        let arguments = vec![
            Value::Bytes(put.record),
            millis(put.life).into(),
            stamp(put.born).into(),
            Value::Bytes(token),
            millis(self.max_life.max(put.life)).into(),
            millis(TOMBSTONE).into(),
        ];
        match self.run(&script::PUT, keys, arguments).await?.as_i64() {
            Some(1) => Ok(StorePutOutcome::Stored),
            Some(0) => Ok(StorePutOutcome::Overtaken),
            Some(-1) => Ok(StorePutOutcome::NotOwner),
            _ => Err(unexpected("SET")),
        }
    }

    /// Whether the place is of another generation than the log that was read last. Such a place
    /// must not be stamped with this generation: its order may be far above all that will come.
    fn has_ended(&self, place: LogPlace) -> bool {
        place.generation != self.generation.generation()
    }

    async fn bury(&self, key: &StoreKey, at: LogPlace) -> Result<(), StoreError> {
        if self.has_ended(at) {
            return Ok(());
        }
        let keys = vec![
            self.names.record(key),
            self.names.born(key),
            self.names.tombstone(key),
        ];
        let arguments = vec![
            stamp(at).into(),
            millis(self.max_life).into(),
            millis(TOMBSTONE).into(),
        ];
        let answer = self.carry(&script::DELETE, keys, arguments).await?;
        done(&answer, "UNLINK").map(drop)
    }
}

impl Store for RedisStore {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn writes(&self) -> Option<watch::Receiver<Option<StoreError>>> {
        Some(self.writing.changes())
    }

    fn connects(&self) -> Option<watch::Receiver<u64>> {
        Some(self.connects.subscribe())
    }

    fn get<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
    ) -> BoxFuture<'a, Result<Option<FoundRecord>, StoreError>> {
        self.read(key, max).boxed()
    }

    fn put<'a>(&'a self, put: StorePut<'a>) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>> {
        self.write(put).boxed()
    }

    fn get_noted<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
        number: PurgeHash,
    ) -> BoxFuture<'a, Result<(Option<FoundRecord>, LogOrder), StoreError>> {
        self.read_noted(key, max, number).boxed()
    }

    fn put_noted<'a>(
        &'a self,
        put: StorePut<'a>,
        numbers: &'a [PurgeHash],
    ) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>> {
        self.write_noted(put, numbers).boxed()
    }

    fn invalidate<'a>(
        &'a self,
        number: PurgeHash,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.change_note(number, at).boxed()
    }

    fn invalidated<'a>(
        &'a self,
        numbers: &'a [PurgeHash],
    ) -> BoxFuture<'a, Result<LogOrder, StoreError>> {
        self.notes(numbers).boxed()
    }

    fn delete<'a>(
        &'a self,
        key: &'a StoreKey,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.bury(key, at).boxed()
    }

    fn append<'a>(
        &'a self,
        purge: &'a LoggedPurge,
        last: LogNumber,
    ) -> BoxFuture<'a, Result<PurgeLogRange, StoreError>> {
        self.append_purge(purge, last).boxed()
    }

    fn read_log(&self, after: LogNumber) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>> {
        self.read_purges(after).boxed()
    }

    fn watch_log(
        &self,
        after: LogNumber,
        patience: Duration,
    ) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>> {
        self.watch_purges(after, patience).boxed()
    }

    fn acquire<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseAcquisition, StoreError>> {
        self.lease(lease, ttl).boxed()
    }

    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.prolong(lease, ttl).boxed()
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.give_back(lease).boxed()
    }

    fn freed(&self) -> Option<broadcast::Receiver<StoreKey>> {
        Some(self.freed.subscribe())
    }

    fn evicting(&self) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        self.eviction_policy().boxed()
    }

    fn durability(&self) -> BoxFuture<'_, Result<Option<Durability>, StoreError>> {
        async move { self.kept_after_a_crash().await.map(Some) }.boxed()
    }

    fn lacks(&self) -> BoxFuture<'_, Result<Vec<StoreRight>, StoreError>> {
        self.lacking().boxed()
    }

    /// Redis decides what survives (`appendonly`, replicas).
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn index_remedy(&self) -> &'static str {
        "set `cache.l2.redis.index.enabled: true` on every node; what is written from then on is listed"
    }

    fn index_shards(&self) -> u16 {
        self.index_shards
    }

    fn note<'a>(
        &'a self,
        shard: u16,
        records: &'a [IndexNote],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.note_records(shard, records).boxed()
    }

    fn page(
        &self,
        shard: u16,
        from: u64,
        size: usize,
    ) -> BoxFuture<'_, Result<IndexPage, StoreError>> {
        self.read_page(shard, from, size).boxed()
    }

    fn left<'a>(
        &'a self,
        keys: &'a [StoreKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Duration>>, StoreError>> {
        self.lives(keys).boxed()
    }

    fn clear<'a>(
        &'a self,
        shard: u16,
        keys: &'a [StoreKey],
        before: LogPlace,
    ) -> BoxFuture<'a, Result<usize, StoreError>> {
        self.clear_records(shard, keys, before).boxed()
    }
}
