//! What a second tier needs of whatever holds its records: [`Store`].
//!
//! Records are bytes here; `record` knows what they mean. Each method is a trip to a network or a
//! disk; the caller adds deadlines and a breaker. Decision: stores use durations, not points in
//! time. A write says how long the record lives, and a read says how much of that is left. What the
//! record itself says about its age is compared with that, and the greater age counts
//! ([`ResponseRecord::seen_at`](crate::record::ResponseRecord::seen_at)).

mod error;
mod index;
mod persistence;
mod place;
mod purges;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, watch};

use crate::key::{KeyId, PurgeHash};

pub use error::{StoreError, StoreRefusal, StoreRight};
pub use index::{IndexMember, IndexNote, IndexPage, IndexedUrl};
pub use persistence::{Durability, FsyncPolicy, Persistence, SnapshotRule};
pub use place::{LogNumber, LogOrder, LogPlace};
pub use purges::{LogFault, LoggedPurge, PurgeLogEntry, PurgeLogRange, nothing};

/// A cache key in the form that stores use. The record contains the whole key and is bound to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StoreKey {
    /// The first 128 bits of the key's SHA-256.
    pub id: [u8; 16],
    /// The short name of the key without its variant. One script can touch everything with the same
    /// home, however a store spreads its keys.
    pub home: KeyId,
}

/// A record and how long it will still live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundRecord {
    pub record: Bytes,
    pub left: Duration,
}

/// A record that is to be written.
#[derive(Clone, Debug)]
pub struct StorePut<'a> {
    pub key: &'a StoreKey,
    pub record: Bytes,
    /// How long it lives from now on.
    pub life: Duration,
    /// The place in the order of purges at which its load began, without the local step.
    pub born: LogPlace,
    /// Write only while this lease is held; it has the same home.
    pub lease: Option<&'a Lease>,
}

/// The outcome of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StorePutOutcome {
    Stored,
    /// A tombstone or a record of a later load is there, or the generation of the log in which it
    /// was born has ended, so that no node would show it.
    Overtaken,
    /// Another node has the lease now.
    NotOwner,
}

/// The right to load one key for all nodes, after it was acquired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    pub key: StoreKey,
    /// Unique on all nodes.
    pub token: [u8; 16],
}

impl Lease {
    /// A new lease, to be acquired.
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

/// Who may load. An error of the call is the third case: nobody knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseAcquisition {
    Owned,
    Busy,
}

/// Holds records, the purge log and leases.
pub trait Store: Send + Sync + 'static {
    /// Its name in metrics and logs.
    fn kind(&self) -> &'static str;

    /// Whether several nodes use it, so that leases and the exchange of purges have a meaning.
    fn is_shared(&self) -> bool {
        true
    }

    /// Returns whether the process whose place this one takes still has the store, so that nothing
    /// can be read or written yet.
    fn awaits_predecessor(&self) -> bool {
        false
    }

    /// A channel with the reason why it accepts no writes; the value is None while it accepts them.
    /// Without a channel, the store does not report this.
    fn writes(&self) -> Option<watch::Receiver<Option<StoreError>>> {
        None
    }

    /// Counts the connections that were made to its server, so that who waits to try again may do so
    /// as soon as there is one. None: it has no connections.
    fn connects(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// The policy by which it may evict its purge log. None: it evicts no such key, or does not
    /// say.
    fn evicting(&self) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// What its server still has after a crash. None: it has no server. Not every server reports
    /// it.
    fn durability(&self) -> BoxFuture<'_, Result<Option<Durability>, StoreError>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// What this user of its server may not do. Empty for a store without users.
    fn lacks(&self) -> BoxFuture<'_, Result<Vec<StoreRight>, StoreError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }

    /// The record of `key`, if it has at most `max` bytes; a longer one is not fetched.
    fn get<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
    ) -> BoxFuture<'a, Result<Option<FoundRecord>, StoreError>>;

    /// Writes a record, unless something later is there.
    fn put<'a>(&'a self, put: StorePut<'a>) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>>;

    /// Like [`get`](Self::get), with the newest invalidation that is noted for `number`, or 0 if
    /// there is none. A record that was born before it must not be shown. From now on, for a while,
    /// invalidations of the number are noted.
    fn get_noted<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
        _number: PurgeHash,
    ) -> BoxFuture<'a, Result<(Option<FoundRecord>, LogOrder), StoreError>> {
        async move { Ok((self.get(key, max).await?, LogOrder::BEFORE_ALL)) }.boxed()
    }

    /// Like [`put`](Self::put). Invalidations of these numbers are noted as long as the record
    /// lives.
    fn put_noted<'a>(
        &'a self,
        put: StorePut<'a>,
        _numbers: &'a [PurgeHash],
    ) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>> {
        self.put(put)
    }

    /// Notes that what has this number and was born before `at` must not be shown. False: nothing
    /// with this number is stored and nobody looked for it, so nothing is noted. A place of a
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
    ) -> BoxFuture<'a, Result<LogOrder, StoreError>> {
        async { Ok(LogOrder::BEFORE_ALL) }.boxed()
    }

    /// Removes the record of `key`, unless its load began after `at`, and for a while keeps out
    /// what was born before `at`. If the generation of `at` has ended, nothing is done, because
    /// nothing of it is shown.
    fn delete<'a>(
        &'a self,
        key: &'a StoreKey,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Appends to the purge log, with the next number. Returns everything that came after `last`,
    /// the new purge included; if `last` is of another generation, the whole log.
    fn append<'a>(
        &'a self,
        purge: &'a LoggedPurge,
        last: LogNumber,
    ) -> BoxFuture<'a, Result<PurgeLogRange, StoreError>>;

    /// Returns everything that came after `after`, a number of the generation that was returned
    /// last; if the log has another generation, the whole log.
    fn read_log(&self, after: LogNumber) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>>;

    /// Like [`read_log`](Self::read_log), as soon as something came or when `patience` is over.
    fn watch_log(
        &self,
        after: LogNumber,
        patience: Duration,
    ) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>>;

    /// Requests a lease for `ttl`. A lease of another node that was not seen to be renewed for that
    /// long is taken over. After an error the lease may be ours nevertheless, and must be released.
    fn acquire<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseAcquisition, StoreError>>;

    /// Prolongs a lease. False: another node has it now, or nobody has it.
    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Releases a lease if it is ours, and informs those who wait for it. False: another node has
    /// it, or nobody has it.
    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// The keys of leases that any node released. This is a hint: some may be missed.
    fn freed(&self) -> Option<broadcast::Receiver<StoreKey>> {
        None
    }

    /// Returns when everything that was written survives a crash of the process and the machine.
    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Leaves to the next process what one process alone can have, after making it durable. The store
    /// is down then.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }

    /// The number of shards of its index of records. 0: it has no index and refuses the calls
    /// below. Of all calls that use the index, only [`clear`](Self::clear) changes records.
    fn index_shards(&self) -> u16 {
        0
    }

    /// What to do so that there is an index.
    fn index_remedy(&self) -> &'static str {
        "it can't keep one"
    }

    /// Notes written records of one shard in the index, and drops some members that have expired.
    fn note<'a>(
        &'a self,
        _shard: u16,
        _records: &'a [IndexNote],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        unindexed()
    }

    /// Returns about `size` members of a shard, from a place that an earlier page returned; 0 is
    /// the beginning. A member that exists the whole time is on at least one page, and may be on
    /// two.
    fn page(
        &self,
        _shard: u16,
        _from: u64,
        _size: usize,
    ) -> BoxFuture<'_, Result<IndexPage, StoreError>> {
        unindexed()
    }

    /// How long each record will still live. None: it does not exist. Nothing is changed.
    fn left<'a>(
        &'a self,
        _keys: &'a [StoreKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Duration>>, StoreError>> {
        unindexed()
    }

    /// Removes those records of one shard that were born before `before`, without tombstones, and
    /// removes from the index what no longer exists. Returns how many records it removed: none if
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

fn unindexed<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, StoreError>> {
    let error = StoreError::Refused(StoreRefusal::Other, "there is no index".to_owned());
    std::future::ready(Err(error)).boxed()
}

impl StoreKey {
    /// The store key of a cache key without a variant.
    pub fn of(key: &[u8]) -> Self {
        Self::with_home(KeyId::of(key), key)
    }

    /// The store key of the whole key of something that belongs to `home`.
    pub fn with_home(home: KeyId, key: &[u8]) -> Self {
        let digest = Sha256::digest(key);
        Self {
            id: std::array::from_fn(|i| digest[i]),
            home,
        }
    }

    /// The form in which it is sent to other nodes.
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
