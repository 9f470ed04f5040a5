//! The second tier: what outlives L1, and what nodes share.
//!
//! Inside: `store` (the trait), `redis` (what nodes share), `disk` (for one node), `guard`
//! (deadline, breaker, gate), `writer` (write-behind), `removals`, `feed` (the purge log of
//! the store), `lease` (one load a key among nodes). What a record is, `record` knows.
//!
//! Invariant: whatever happens here, the request goes on: a failure, a damaged or foreign
//! record, and what can't be judged for want of the purge log, are misses. Nothing is
//! read or written before the log was read, and nothing of another log's generation is
//! believed.

mod breaker;
pub mod config;
pub mod disk;
mod feed;
mod guard;
mod lease;
pub mod redis;
mod removals;
pub mod store;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::oneshot;

use crate::cache::entry::Entry;
use crate::cache::freshness::Freshness;
use crate::cache::key::{Key, KeyBuf};
use crate::cache::purge::{Kind, Order, PurgeLog, Selector, shared};
use crate::cache::record::{self, Compression, Corrupt, Limits, Record, Seal, Stored};
use crate::http::vary::Vary;
use feed::Feed;
use guard::{Call, Failed, Guard};
use removals::Removals;
use store::{Lease, Put, Store, StoreKey, Written};
use writer::Writer;

pub use lease::{Held, Turn};

/// The tier.
pub struct L2 {
    guard: Guard,
    writer: Writer,
    removals: Removals,
    feed: Feed,
    codec: record::Options,
    max_life: Duration,
    lease: config::LeaseRules,
    results: IntCounterVec,
}

/// What was found below L1.
pub struct Below {
    pub entry: Entry,
    pub vary: Vary,
}

/// A record on its way to the store.
pub(super) struct Write {
    key: StoreKey,
    whole_key: Arc<[u8]>,
    record: Record,
    life: Duration,
    born: Order,
}

/// Field lists of one key that are looked under at most.
const LISTS: usize = 4;
/// Writes under way at once.
const WRITERS: usize = 4;
/// Records from this size on are encoded off the runtime's threads.
const LARGE: usize = 32 << 10;

impl L2 {
    /// The tier over `store`. Call [`run`](Self::run) to set it to work.
    ///
    /// # Errors
    /// When the registry has a second tier already.
    pub fn new(
        store: Arc<dyn Store>,
        config: &config::L2,
        seal: Seal,
        max_object_bytes: usize,
        log: Arc<PurgeLog>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let results = IntCounterVec::new(
            Opts::new(
                "lamina_l2_lookups_total",
                "Look-ups in the second tier by result.",
            ),
            &["result"],
        )?;
        registry.register(Box::new(results.clone()))?;
        let codec = record::Options {
            compression: compression(config.compress),
            limits: Limits::for_objects(max_object_bytes),
            seal,
        };
        Ok(Self {
            guard: Guard::new(store, config, registry)?,
            writer: Writer::new(config.write_queue.as_usize(), registry)?,
            removals: Removals::new(registry)?,
            feed: Feed::new(log, registry)?,
            codec,
            max_life: config.max_life.into(),
            lease: config.lease,
            results,
        })
    }

    /// Writes behind, appends purges and follows the log, on the runtime that calls it.
    pub fn run(self: &Arc<Self>) {
        for _ in 0..WRITERS {
            let tier = Arc::clone(self);
            tokio::spawn(async move { tier.write_behind().await });
        }
        let tier = Arc::clone(self);
        tokio::spawn(async move { tier.feed.append(&tier.guard).await });
        let tier = Arc::clone(self);
        tokio::spawn(async move { tier.feed.follow(&tier.guard).await });
    }

    /// The kind of store.
    pub fn kind(&self) -> &'static str {
        self.guard.store.kind()
    }

    /// Whether it can be read: its purge log is known.
    pub fn is_known(&self) -> bool {
        self.feed.generation().is_some()
    }

    /// Looks a request up. What comes back was not compared with purges.
    pub async fn find(&self, primary: &KeyBuf, request: &HeaderMap) -> Option<Below> {
        let below = match self.read(primary.as_bytes()).await? {
            Record::Entry(stored) => Some((primary.to_key(), stored)),
            Record::Varies(lists) => self.variant(primary, &lists, request).await,
        };
        let Some((key, stored)) = below else {
            self.count("miss");
            return None;
        };
        let vary = Vary::parse(&stored.headers);
        self.count("hit");
        Some(Below {
            entry: entry(key, stored),
            vary,
        })
    }

    async fn variant(
        &self,
        primary: &KeyBuf,
        lists: &[Vec<HeaderName>],
        request: &HeaderMap,
    ) -> Option<(Key, Stored)> {
        for fields in lists.iter().take(LISTS) {
            let key = primary.variant(fields, request);
            if let Some(Record::Entry(stored)) = self.read(key.as_bytes()).await {
                return Some((key.to_key(), stored));
            }
        }
        None
    }

    /// The record under a whole key: what waits to be written, else what the store has.
    async fn read(&self, key: &[u8]) -> Option<Record> {
        let generation = self.feed.generation()?;
        let name = StoreKey::of(key);
        if self.removals.hides(&name) {
            return None;
        }
        if let Some(waiting) = self.writer.waiting(&name) {
            return Some(waiting.record.clone());
        }
        let found = self
            .guard
            .call(Call::Get, |store| {
                store.get(&name, self.codec.limits.encoded)
            })
            .await;
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.count("miss");
                return None;
            }
            Err(error) => {
                self.count(if matches!(error, Failed::Store(_)) {
                    "error"
                } else {
                    "skipped"
                });
                return None;
            }
        };
        match decode(key, found.record, &self.codec).await {
            Ok(Record::Entry(stored)) if stored.generation != generation => {
                self.count("outdated");
                None
            }
            Ok(Record::Entry(stored)) => Some(Record::Entry(resided(stored, found.left))),
            Ok(varies) => Some(varies),
            Err(corrupt) => {
                tracing::debug!(reason = corrupt.as_str(), "a record is not ours or damaged");
                self.count("corrupt");
                None
            }
        }
    }

    /// Takes an entry in, to be written by and by. `lists` are the key's field lists.
    pub fn put(&self, primary: &Key, lists: &[Vec<HeaderName>], entry: &Entry, lifetime: Duration) {
        let Some(writes) = self.writes(primary, lists, entry, lifetime) else {
            return;
        };
        writes.into_iter().for_each(|write| self.writer.push(write));
    }

    /// Writes an entry that was loaded under a lease, and gives the lease back.
    pub async fn publish(
        &self,
        primary: &Key,
        lists: &[Vec<HeaderName>],
        entry: &Entry,
        lifetime: Duration,
        held: Held,
    ) {
        if let Some(writes) = self.writes(primary, lists, entry, lifetime) {
            for write in writes {
                self.write(&Arc::new(write), Some(held.lease())).await;
            }
        }
    }

    fn writes(
        &self,
        primary: &Key,
        lists: &[Vec<HeaderName>],
        entry: &Entry,
        lifetime: Duration,
    ) -> Option<Vec<Write>> {
        let generation = self.feed.generation()?;
        let stored = stored(entry, lifetime, generation, self.max_life)?;
        let life = stored.life;
        let write = |key: &Key, record| Write {
            key: StoreKey::of(key.as_bytes()),
            whole_key: key.shared(),
            record,
            life,
            born: shared(entry.born),
        };
        let mut writes = vec![write(&entry.key, Record::Entry(stored))];
        if entry.key != *primary {
            writes.push(write(primary, Record::Varies(lists.to_vec())));
        }
        Some(writes)
    }

    async fn write_behind(&self) {
        loop {
            let write = self.writer.next().await;
            self.write(&write, None).await;
        }
    }

    async fn write(&self, write: &Arc<Write>, lease: Option<&Lease>) {
        let Some(record) = encode(write, &self.codec).await else {
            return self.count("write-too-large");
        };
        let put = Put {
            key: &write.key,
            record,
            life: write.life,
            born: write.born,
            lease: lease.filter(|lease| lease.key == write.key),
        };
        match self.guard.call(Call::Put, |store| store.put(put)).await {
            Ok(Written::Stored) => {}
            Ok(Written::Overtaken) => self.count("write-overtaken"),
            Ok(Written::NotOwner) => self.count("write-not-owner"),
            Err(error) => tracing::debug!(%error, "not written to the second tier"),
        }
    }

    /// Removes the record of `key`, behind the caller. It is hidden here at once.
    pub fn forget(self: &Arc<Self>, key: &Key, at: Order) {
        let name = StoreKey::of(key.as_bytes());
        if !self.removals.begin(name) {
            drop(self.purge(&Selector::Key(key.id()), Kind::Hard));
            return;
        }
        let tier = Arc::clone(self);
        tokio::spawn(async move {
            let at = shared(at);
            tier.removals.carry_out(&tier.guard, name, at).await;
        });
    }

    /// Tells all nodes of a purge that holds here already. The receiver gets its number.
    pub fn purge(&self, selector: &Selector, kind: Kind) -> oneshot::Receiver<u64> {
        self.feed.push(selector, kind)
    }

    fn count(&self, result: &str) {
        self.results.with_label_values(&[result]).inc();
    }
}

/// What the store holds of an entry. None: it would be of no use there.
fn stored(
    entry: &Entry,
    lifetime: Duration,
    generation: u64,
    max_life: Duration,
) -> Option<Stored> {
    let now = Instant::now();
    let freshness = Freshness {
        lifetime,
        ..entry.freshness
    };
    let age = freshness.age(now);
    let gone = now.saturating_duration_since(freshness.received);
    let life = freshness
        .hard_life(entry.has_validator())
        .saturating_sub(gone)
        .min(max_life);
    (!life.is_zero()).then(|| Stored {
        status: entry.status,
        headers: entry.headers.clone(),
        body: entry.body.clone(),
        marks: entry.marks.clone(),
        born: shared(entry.born),
        generation,
        age,
        life,
        lifetime,
        while_revalidate: freshness.while_revalidate,
        if_error: freshness.if_error,
        must_revalidate: freshness.must_revalidate,
    })
}

/// Its age counts on while it lies in the store, by the store's own clock.
fn resided(stored: Stored, left: Duration) -> Stored {
    let gone = stored.life.saturating_sub(left);
    Stored {
        age: stored.age + gone,
        life: stored.life.min(left),
        ..stored
    }
}

fn entry(key: Key, stored: Stored) -> Entry {
    let freshness = Freshness {
        received: Instant::now(),
        initial_age: stored.age,
        lifetime: stored.lifetime,
        while_revalidate: stored.while_revalidate,
        if_error: stored.if_error,
        must_revalidate: stored.must_revalidate,
    };
    Entry::new(
        key,
        stored.status,
        stored.headers,
        stored.body,
        freshness,
        stored.marks,
        stored.born,
    )
}

/// None: it is too large for a record.
async fn encode(write: &Arc<Write>, options: &record::Options) -> Option<Bytes> {
    let encode = |write: &Write, options: &record::Options| {
        record::encode(&write.whole_key, &write.record, options).ok()
    };
    if write.size() < LARGE {
        return encode(write, options);
    }
    let (write, options) = (Arc::clone(write), options.clone());
    tokio::task::spawn_blocking(move || encode(&write, &options))
        .await
        .ok()?
}

async fn decode(key: &[u8], bytes: Bytes, options: &record::Options) -> Result<Record, Corrupt> {
    if bytes.len() < LARGE {
        return record::decode(key, &bytes, &options.limits, &options.seal);
    }
    let (key, options) = (key.to_vec(), options.clone());
    let decode = move || record::decode(&key, &bytes, &options.limits, &options.seal);
    tokio::task::spawn_blocking(decode)
        .await
        .unwrap_or(Err(Corrupt::Form))
}

fn compression(config: config::Compress) -> Option<Compression> {
    let codec = match config.codec {
        config::Codec::None => return None,
        config::Codec::Gzip => record::Codec::GZIP,
        config::Codec::Zstd => record::Codec::ZSTD,
    };
    Some(Compression {
        codec,
        min_bytes: config.min_bytes.as_usize(),
    })
}

impl Write {
    /// Bytes that it keeps while it waits.
    fn size(&self) -> usize {
        match &self.record {
            Record::Entry(stored) => stored.body.len() + 1_024,
            Record::Varies(_) => 256,
        }
    }
}
