//! What a second tier needs of the thing that holds its records: [`Store`].
//!
//! Records are bytes here; `record` knows what they mean. Each method is a trip to a
//! network or a disk; deadlines and a breaker are the caller's. Decision: a store is told in
//! spans and answers in spans: a write says how long the record lives, a read says how much
//! of that is left. What the record itself says of its age stands beside that, and the
//! greater age counts ([`ResponseRecord::seen_at`](crate::record::ResponseRecord::seen_at)).

mod index;
mod persistence;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, watch};

use crate::key::{KeyId, PurgeHash};
use crate::purge::{PurgeOrder, numbered};

pub use index::{IndexMember, IndexNote, IndexPage, IndexedUrl};
pub use persistence::{Durability, FsyncPolicy, Persistence, SnapshotRule};

/// A cache key as stores know it. The record carries the whole key and is bound to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StoreKey {
    /// The first 128 bits of the key's SHA-256.
    pub id: [u8; 16],
    /// The key without its variant, by its short name: what has the same home can be
    /// touched by one script, wherever a store spreads its keys.
    pub home: KeyId,
}

/// A record and how long it has left to live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundRecord {
    pub record: Bytes,
    pub left: Duration,
}

/// A place in the purge log of a store. The orders of two generations can't be compared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LogPlace {
    pub generation: u64,
    /// A number of that log, as [`numbered`](crate::purge::numbered) writes it.
    pub order: PurgeOrder,
}

/// A record to be written.
#[derive(Clone, Debug)]
pub struct StorePut<'a> {
    pub key: &'a StoreKey,
    pub record: Bytes,
    /// How long it lives from now on.
    pub life: Duration,
    /// Where its load stood in the order of purges, without the local step.
    pub born: LogPlace,
    /// Write only while this is held; it has the same home.
    pub lease: Option<&'a Lease>,
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StorePutOutcome {
    Stored,
    /// A tombstone or a record of a later load is there, or the generation of the log that it
    /// was born in has ended, so that nobody would show it.
    Overtaken,
    /// The lease is another's now.
    NotOwner,
}

/// A purge as the log holds it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LoggedPurge {
    /// As [`crate::purge::Selector`] writes itself.
    pub selector: String,
    pub soft: bool,
}

/// A purge that reaches nothing: by it the log is asked for a number.
pub fn nothing() -> LoggedPurge {
    LoggedPurge {
        selector: "route:".to_owned(),
        soft: false,
    }
}

/// A purge with its place in the order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PurgeLogEntry {
    /// The first number that it stands for: one that reaches nothing may stand for several.
    pub since: u64,
    pub number: u64,
    pub purge: LoggedPurge,
}

/// A stretch of the purge log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PurgeLogRange {
    /// Random, made when the log was: another one tells that the old log was lost.
    pub generation: u64,
    pub newest: u64,
    /// False: of what came after the number asked for, some is not there any more.
    pub whole: bool,
    /// In ascending order.
    pub purges: Vec<PurgeLogEntry>,
    /// What the store found wrong with the log when it was asked. Where that was more than
    /// single purges, the store has begun a new generation.
    pub fault: Option<LogFault>,
}

/// Why a purge log, or a part of it, is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFault {
    /// It is gone, or another one has begun.
    Lost,
    /// It ends before what a node has read of it, holds other purges there, or is of a generation
    /// that had ended: the store came back with an older state.
    RolledBack,
    /// Its numbers are none that a log of ours can have.
    Numbers,
    /// Something of another type stands in its place.
    Foreign,
    /// Its generation was not made by a node that knows the secret.
    Replayed,
    /// Purges between two numbers are not there.
    Missing,
    /// A purge has not the form of one, or does not bear the seal of a node that knows the secret.
    Unsealed,
}

/// The right to load one key for all nodes, once it was acquired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    pub key: StoreKey,
    /// Never the same twice, on whichever node.
    pub token: [u8; 16],
}

impl Lease {
    /// One to ask for.
    pub fn of(key: StoreKey) -> Self {
        static TURN: AtomicU64 = AtomicU64::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let half = || RandomState::new().hash_one(turn).to_be_bytes();
        let mut token = [0; 16];
        token[..8].copy_from_slice(&half());
        token[8..].copy_from_slice(&half());
        Self { key, token }
    }
}

/// Who may load. An error of the call is the third answer: nobody knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseAcquisition {
    Owned,
    Busy,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached.
    #[error("not reachable: {0}")]
    Down(String),
    #[error("no answer in time")]
    Timeout,
    /// It answered that it won't, in its own words.
    #[error("refused: {1}")]
    Refused(StoreRefusal, String),
    /// What it holds under our name is somebody else's: of another type, or without an end.
    #[error("not ours: {0}")]
    Foreign(String),
    /// What it holds is damaged.
    #[error("damaged: {0}")]
    Corrupt(String),
    #[error("{size} bytes, over the limit of {limit}")]
    TooLarge { size: usize, limit: usize },
}

/// Why a store won't: each asks for another remedy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreRefusal {
    OutOfMemory,
    /// A replica: another server is the master now.
    ReadOnly,
    /// It has just started and reads its data.
    Loading,
    /// No password, a wrong one, or a user without the right.
    NoAccess,
    /// The disk, or our part of it, has no room.
    DiskFull,
    /// The disk does not read or write.
    Disk,
    Other,
}

/// Holds records, the purge log and leases.
pub trait Store: Send + Sync + 'static {
    /// `redis` or `disk`: the word in metrics and logs.
    fn kind(&self) -> &'static str;

    /// Whether several nodes use it, so that leases and word of purges have a meaning.
    fn is_shared(&self) -> bool {
        true
    }

    /// Why it takes no writes, as that changes; none while it takes them. None at all: it does
    /// not tell, but answers each write.
    fn writes(&self) -> Option<watch::Receiver<Option<StoreError>>> {
        None
    }

    /// The policy by which it may evict its purge log; none: by none, or it does not say.
    fn evicting(&self) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// What is there again after a crash of its server; none: it has no server. Not every
    /// server tells it.
    fn durability(&self) -> BoxFuture<'_, Result<Option<Durability>, StoreError>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// The record of `key`, if it has at most `max` bytes; a longer one is not fetched.
    fn get<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
    ) -> BoxFuture<'a, Result<Option<FoundRecord>, StoreError>>;

    /// Writes, unless something later is there.
    fn put<'a>(&'a self, put: StorePut<'a>) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>>;

    /// As [`get`](Self::get), with the newest invalidation that is noted for `number`, 0 where
    /// there is none: a record that was born before it is not to be shown. From now on, for a
    /// while, invalidations of the number are noted.
    fn get_noted<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
        _number: PurgeHash,
    ) -> BoxFuture<'a, Result<(Option<FoundRecord>, PurgeOrder), StoreError>> {
        async move { Ok((self.get(key, max).await?, 0)) }.boxed()
    }

    /// As [`put`](Self::put); invalidations of these numbers are noted as long as the record
    /// lives.
    fn put_noted<'a>(
        &'a self,
        put: StorePut<'a>,
        _numbers: &'a [PurgeHash],
    ) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>> {
        self.put(put)
    }

    /// Notes that what bears this number and was born before `at` is not to be shown. False:
    /// there is nothing of the kind and nobody looked for it, so nothing is noted. A place of a
    /// generation that has ended is refused.
    fn invalidate<'a>(
        &'a self,
        _number: PurgeHash,
        _at: LogPlace,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async { Ok(false) }.boxed()
    }

    /// The newest invalidation that is noted for any of these numbers.
    fn invalidated<'a>(
        &'a self,
        _numbers: &'a [PurgeHash],
    ) -> BoxFuture<'a, Result<PurgeOrder, StoreError>> {
        async { Ok(0) }.boxed()
    }

    /// Removes the record of `key`, unless its load began after `at`, and keeps out, for a
    /// while, what was born before `at`. Nothing is shown of a generation that has ended, so
    /// for a place of such a one nothing is done.
    fn delete<'a>(
        &'a self,
        key: &'a StoreKey,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Appends to the purge log, with the next number. Answers with all that came after
    /// `last`, the new purge included; where that is of another generation, with all of it.
    fn append<'a>(
        &'a self,
        purge: &'a LoggedPurge,
        last: u64,
    ) -> BoxFuture<'a, Result<PurgeLogRange, StoreError>>;

    /// What came after `after`, a number of the generation that was told last; of another
    /// generation, all.
    fn read_log(&self, after: u64) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>>;

    /// As [`read_log`](Self::read_log), once something came or `patience` is over.
    fn watch_log(
        &self,
        after: u64,
        patience: Duration,
    ) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>>;

    /// Asks for a lease, for `ttl`. One that another has, and that was not seen to be renewed
    /// for so long, is taken over. After an error it may be ours all the same, and is to be
    /// given back.
    fn acquire<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseAcquisition, StoreError>>;

    /// Prolongs a lease. False: it is another's now, or nobody's.
    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Gives a lease back, if it is ours, and says so to those who wait. False: it is another's,
    /// or nobody's.
    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Keys whose leases were given back, by whichever node. A hint: some may be missed.
    fn freed(&self) -> Option<broadcast::Receiver<StoreKey>> {
        None
    }

    /// Returns when all that was written survives a crash of the process and the machine.
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// How many shards its index of records has; 0: it keeps none, and refuses the calls
    /// below. No record is read, written or removed by way of the index but by
    /// [`clear`](Self::clear).
    fn index_shards(&self) -> u16 {
        0
    }

    /// Notes records of one shard that were written, and drops some that have expired.
    fn note<'a>(
        &'a self,
        _shard: u16,
        _records: &'a [IndexNote],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        unindexed()
    }

    /// About `size` members of a shard, from a place that a page named; 0 is the beginning.
    /// A member that is there all the while is on some page, and may be on two.
    fn page(
        &self,
        _shard: u16,
        _from: u64,
        _size: usize,
    ) -> BoxFuture<'_, Result<IndexPage, StoreError>> {
        unindexed()
    }

    /// How long each record has left to live; none: it is not there. It changes nothing.
    fn left<'a>(
        &'a self,
        _keys: &'a [StoreKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Duration>>, StoreError>> {
        unindexed()
    }

    /// Removes those records of one shard that were born before `before`, and from the
    /// index what is gone by then; without tombstones. Answers how many it removed: none where
    /// the generation of `before` has ended.
    fn clear<'a>(
        &'a self,
        _shard: u16,
        _keys: &'a [StoreKey],
        _before: LogPlace,
    ) -> BoxFuture<'a, Result<usize, StoreError>> {
        unindexed()
    }
}

impl PurgeLogRange {
    /// The place of its newest purge.
    pub fn end(&self) -> LogPlace {
        LogPlace {
            generation: self.generation,
            order: numbered(self.newest),
        }
    }
}

fn unindexed<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, StoreError>> {
    let error = StoreError::Refused(StoreRefusal::Other, "there is no index".to_owned());
    std::future::ready(Err(error)).boxed()
}

impl StoreKey {
    /// The name of a key without variant.
    pub fn of(key: &[u8]) -> Self {
        Self::below(KeyId::of(key), key)
    }

    /// The name of the whole key of something that belongs to `home`.
    pub fn below(home: KeyId, key: &[u8]) -> Self {
        let digest = Sha256::digest(key);
        Self {
            id: std::array::from_fn(|i| digest[i]),
            home,
        }
    }

    /// As it travels.
    pub fn to_bytes(self) -> [u8; 24] {
        let home = self.home.0.to_be_bytes();
        std::array::from_fn(|i| if i < 16 { self.id[i] } else { home[i - 16] })
    }

    /// Reads what [`to_bytes`](Self::to_bytes) writes.
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        Self {
            id: std::array::from_fn(|i| bytes[i]),
            home: KeyId(u64::from_be_bytes(std::array::from_fn(|i| bytes[16 + i]))),
        }
    }
}

impl StoreError {
    /// The word in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Down(_) => "down",
            Self::Timeout => "timeout",
            Self::Refused(..) => "refused",
            Self::Foreign(_) => "foreign",
            Self::Corrupt(_) => "corrupt",
            Self::TooLarge { .. } => "too-large",
        }
    }
}

impl LogFault {
    pub const ALL: [Self; 7] = [
        Self::Lost,
        Self::RolledBack,
        Self::Numbers,
        Self::Foreign,
        Self::Replayed,
        Self::Missing,
        Self::Unsealed,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::RolledBack => "rolled-back",
            Self::Numbers => "numbers",
            Self::Foreign => "foreign",
            Self::Replayed => "replayed",
            Self::Missing => "missing",
            Self::Unsealed => "unsealed",
        }
    }

    /// The sentence in the log.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Lost => "it is gone, or another node has begun a new one",
            Self::RolledBack => {
                "the store came back with an older state (a crash, a failover, a restored backup), \
                 so that purges which this node had read there are gone; a new log was begun"
            }
            Self::Numbers => "its numbers are beyond what is believable",
            Self::Foreign => "something of another type stands in its place",
            Self::Replayed => "its generation was not made with this seal_key",
            Self::Missing => "purges between two numbers are not there",
            Self::Unsealed => "a purge has not the form, or not the seal, of one of ours",
        }
    }
}

impl StoreRefusal {
    /// Whether it is about this machine's disk.
    pub fn is_of_the_disk(self) -> bool {
        matches!(self, Self::DiskFull | Self::Disk)
    }

    pub const ALL: [Self; 7] = [
        Self::OutOfMemory,
        Self::ReadOnly,
        Self::Loading,
        Self::NoAccess,
        Self::DiskFull,
        Self::Disk,
        Self::Other,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out-of-memory",
            Self::ReadOnly => "read-only",
            Self::Loading => "loading",
            Self::NoAccess => "no-access",
            Self::DiskFull => "disk-full",
            Self::Disk => "disk",
            Self::Other => "other",
        }
    }
}
