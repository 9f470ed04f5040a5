//! Tests of the tier over a store that several nodes share and that can be made to fail.

mod holes;
mod holes_outage;
mod invalidations;
mod memory;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use prometheus::Registry;

use super::store::StoreKey;
use super::*;
use crate::entry::{Entry, PurgeAttributes};
use crate::freshness::{Freshness, FreshnessState};
use crate::http::vary::Vary;
use crate::key::{CacheKeyField, EntryKey, KeyBuf, KeyId, hash64};
use crate::purge::PurgeOrder;
use crate::record::{ClockReading, StoreRecord};
use crate::{Cache, Lookup};
use lamina_base::telemetry::metrics::assert_registered;
use memory::Memory;

const LIFE: Duration = Duration::from_secs(600);

/// One node over the store.
struct Node {
    cache: Cache,
    tier: Arc<L2>,
    registry: Registry,
}

impl Node {
    async fn over(store: &Arc<Memory>) -> Self {
        Self::with(store, |_| {}).await
    }

    async fn with(store: &Arc<Memory>, change: impl Fn(&mut config::L2Config)) -> Self {
        let mut config = crate::config::CacheConfig::default();
        config.l2.disk = Some(Default::default());
        change(&mut config.l2);
        let registry = Registry::new();
        let mut cache = Cache::new(&config, &registry).unwrap();
        let store: Arc<dyn Store> = Arc::clone(store) as _;
        let tier = cache
            .attach(store, &config, Seal::public(), &registry)
            .unwrap();
        tier.run();
        Self {
            cache,
            tier,
            registry,
        }
    }

    async fn known(store: &Arc<Memory>) -> Self {
        let node = Self::over(store).await;
        assert!(node.tier.known(LIFE).await);
        node
    }

    /// Writes what was loaded at `born`, and waits until it is written.
    async fn put(&self, entry: &Entry) {
        self.tier
            .put(&entry.key, &[], entry, entry.freshness.lifetime);
        self.tier.writer.settled().await;
    }

    async fn find(&self, key: &KeyBuf) -> Option<Arc<Entry>> {
        match self.tier.find(key, &HeaderMap::new()).await {
            L2Lookup::Found(below) => Some(Arc::new(below.entry)),
            L2Lookup::Miss | L2Lookup::Unknown => None,
        }
    }

    /// The state in which a request would be shown the entry.
    async fn shown(&self, key: &KeyBuf) -> Option<FreshnessState> {
        let entry = self.find(key).await?;
        self.cache.promote(key.to_key(), &Vary::None, &entry)
    }

    fn metric(&self, name: &str) -> f64 {
        assert_registered(&self.registry, name);
        let families = self.registry.gather();
        let samples = families.iter().filter(|family| family.name() == name);
        let samples = samples.flat_map(|family| family.get_metric());
        samples
            .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
            .sum()
    }

    async fn hears(&self, number: impl Into<LogNumber>) {
        let number = number.into();
        while self.tier.feed.applied() < number {
            tokio::task::yield_now().await;
        }
    }
}

fn key(text: &str) -> KeyBuf {
    let mut key = KeyBuf::default();
    key.push(CacheKeyField::Path, text.as_bytes());
    key
}

fn entry(key: &KeyBuf, age: Duration, born: impl Into<PurgeOrder>) -> Entry {
    let marks = PurgeAttributes {
        id: KeyId::of(key.as_bytes()).0,
        tags: Box::new([hash64(b"x")]),
        ..PurgeAttributes::default()
    };
    let freshness = Freshness {
        received: Instant::now(),
        initial_age: age,
        lifetime: LIFE,
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
        must_revalidate: false,
    };
    let body = Bytes::from_static(b"body");
    Entry::new(
        key.to_key(),
        StatusCode::OK,
        HeaderMap::new(),
        body,
        freshness,
        marks,
        born.into(),
    )
}

#[tokio::test]
async fn what_one_node_stored_another_finds_with_the_age_it_has() {
    let store = Arc::new(Memory::default());
    let (one, other) = (Node::known(&store).await, Node::known(&store).await);
    let old = Duration::from_secs(100);
    one.put(&entry(&key("a"), old, one.cache.order())).await;
    let found = other.find(&key("a")).await.unwrap();
    let age = found.freshness.age(Instant::now());
    assert!(age >= old && age < old + Duration::from_secs(5), "{age:?}");
    assert_eq!(found.body.bytes(), "body");
}

/// Guards against a queue in which waiting records do not age.
#[tokio::test]
async fn what_waited_to_be_written_is_older_by_that() {
    let waited = Duration::from_secs(40);
    let born = LogPlace::default();
    let stored = convert::stored(&entry(&key("a"), Duration::ZERO, 1), LIFE, born, LIFE).unwrap();
    let aged = stored.grown(waited, ClockReading::now()).unwrap();
    assert!(aged.age >= waited && aged.life <= LIFE - waited);
}

#[tokio::test]
async fn nothing_is_read_or_written_before_the_purge_log_was_read() {
    let store = Arc::new(Memory::default());
    store.down.store(true, SeqCst);
    let node = Node::over(&store).await;
    node.put(&entry(&key("a"), Duration::ZERO, 1)).await;
    assert!(matches!(
        node.tier.find(&key("a"), &HeaderMap::new()).await,
        L2Lookup::Unknown
    ));
    assert_eq!(store.reads.load(SeqCst), 0);
    store.down.store(false, SeqCst);
    assert!(node.tier.known(LIFE).await);
    assert!(node.find(&key("a")).await.is_none());
}

#[tokio::test]
async fn a_purge_on_one_node_hides_the_record_on_all() {
    let store = Arc::new(Memory::default());
    let (one, other) = (Node::known(&store).await, Node::known(&store).await);
    one.put(&entry(&key("a"), Duration::ZERO, one.cache.order()))
        .await;
    assert!(other.shown(&key("a")).await.is_some());
    let (_, told) = one
        .cache
        .purge_everywhere(&Selector::Tag("x".into()), PurgeKind::Hard);
    assert!(
        one.shown(&key("a")).await.is_none(),
        "at once, before it's logged"
    );
    let number = told.unwrap().await.unwrap();
    other.hears(number).await;
    assert!(other.shown(&key("a")).await.is_none());
    let found = other
        .cache
        .lookup(&key("a"), &HeaderMap::new(), Instant::now());
    assert!(matches!(found, Lookup::Miss(..)), "nor from its L1");
}

/// A purge of this node gets a later number than any number that is given out while it waits.
#[tokio::test]
async fn a_purge_that_waits_for_its_number_hides_what_was_born_at_earlier_ones() {
    let store = Arc::new(Memory::default());
    let (one, other) = (Node::known(&store).await, Node::known(&store).await);
    store.mute.store(true, SeqCst);
    one.cache.purge(&Selector::Tag("x".into()), PurgeKind::Hard);
    let number = store.purge("tag:else");
    other.hears(number).await;
    other
        .put(&entry(&key("a"), Duration::ZERO, other.cache.order()))
        .await;
    one.hears(number).await;
    assert!(one.shown(&key("a")).await.is_none());
    store.mute.store(false, SeqCst);
    one.tier.feed.settled().await;
    assert!(one.shown(&key("a")).await.is_none(), "for ever");
    let now = one.cache.order();
    other.hears(number.plus(1)).await;
    other.put(&entry(&key("a"), Duration::ZERO, now)).await;
    assert!(
        one.shown(&key("a")).await.is_some(),
        "what was loaded after it"
    );
}

#[tokio::test]
async fn a_record_born_after_purges_that_are_not_known_here_is_a_miss() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let written = async |born| {
        let place = LogPlace {
            generation: node.tier.generation().unwrap(),
            order: LogNumber::new(born).order(),
        };
        let page = entry(&key("a"), Duration::ZERO, 1);
        let stored = convert::stored(&page, LIFE, place, LIFE).unwrap();
        let record = StoreRecord::Entry(stored);
        let record = record::encode(page.key.as_bytes(), &record, &node.tier.codec()).unwrap();
        let name = StoreKey::of(page.key.as_bytes());
        let put = store::StorePut {
            key: &name,
            record,
            life: LIFE,
            born: place,
            lease: None,
        };
        assert_eq!(
            store.put(put).await.unwrap(),
            store::StorePutOutcome::Stored
        );
    };
    written(0).await;
    assert!(node.find(&key("a")).await.is_some());
    for ahead in [1, 1_000, u64::MAX >> 28, u64::MAX] {
        written(ahead).await;
        assert!(node.find(&key("a")).await.is_none(), "{ahead}");
    }
}

#[tokio::test]
async fn a_log_that_was_lost_hides_all_that_is_older_here_and_below() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    store.purge("tag:else");
    node.hears(1).await;
    let old = Arc::new(entry(&key("a"), Duration::ZERO, node.cache.order()));
    node.put(&old).await;
    let kept = store.get(&StoreKey::of(key("a").as_bytes()), 1 << 20).await;
    assert!(node.shown(&key("a")).await.is_some());
    let late = node.tier.writes(&old.key, &[], &old, LIFE);
    assert_eq!(late.len(), 1);
    store.lose();
    while node.tier.feed.generation() == Some(1) {
        tokio::task::yield_now().await;
    }
    let found = node
        .cache
        .lookup(&key("a"), &HeaderMap::new(), Instant::now());
    assert!(matches!(found, Lookup::Miss(..)));
    // A replica may still have a record although it lost the log.
    let name = StoreKey::of(key("a").as_bytes());
    let again = kept.unwrap().unwrap().record;
    let put = store::StorePut {
        key: &name,
        record: again.clone(),
        life: LIFE,
        born: node.tier.feed.newest().await,
        lease: None,
    };
    store.put(put).await.unwrap();
    assert!(node.find(&key("a")).await.is_none());
    for write in late {
        node.tier.writer.push(write);
    }
    node.tier.writer.settled().await;
    let kept = store.get(&name, 1 << 20).await.unwrap().unwrap().record;
    assert_eq!(
        kept, again,
        "a write of the log that was lost keeps no later one out"
    );
    let shown = Arc::new(entry(&key("a"), Duration::ZERO, node.cache.order()));
    let next = node.cache.purge_everywhere(&Selector::All, PurgeKind::Hard);
    next.1.unwrap().await.unwrap();
    assert!(!node.cache.shows(&shown), "whatever number a purge has");
}

/// Guards against a purge that is appended before it is recorded here. It would be recorded after
/// its own number and would reach what other nodes had loaded since, which they would load once
/// more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_leaves_what_was_loaded_after_its_number() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    for _ in 0..2_000 {
        let tag = Selector::Tag("x".into());
        let told = node.cache.purge_everywhere(&tag, PurgeKind::Hard).1;
        let number: LogNumber = told.unwrap().await.unwrap();
        let born = PurgeOrder::numbered(number.value());
        assert!(node.cache.shows(&entry(&key("a"), Duration::ZERO, born)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_gone_and_does_not_come_back_from_the_queue() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let old = Arc::new(entry(&key("a"), Duration::ZERO, node.cache.order()));
    node.put(&old).await;
    // Like a write that waits.
    node.tier.put(&old.key, &[], &old, LIFE);
    store.down.store(true, SeqCst);
    node.cache.drop_entry(&old);
    let name = StoreKey::of(key("a").as_bytes());
    assert!(node.tier.writer.waiting(&name).is_none());
    assert!(node.find(&key("a")).await.is_none(), "hidden at once");
    store.down.store(false, SeqCst);
    let removed = async {
        while node.tier.removals.hides(&name) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), removed)
        .await
        .expect("a removal is tried again");
    node.tier.writer.settled().await;
    assert_eq!(store.records(), 0);
    node.put(&old).await;
    assert_eq!(store.records(), 1, "the next load may be stored");
}

#[tokio::test]
async fn a_former_owner_does_not_overwrite_the_winner_of_a_variant() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let (home, primary) = (KeyId::of(key("a").as_bytes()), key("a").to_key());
    let LeaseHolder::Mine(late) = node.tier.wait_for_lease(home, &primary).await else {
        panic!("it is free");
    };
    // Its lease expired and another load has it.
    store.release(late.lease()).await.unwrap();
    let LeaseHolder::Mine(owner) = node.tier.wait_for_lease(home, &primary).await else {
        panic!("it is free again");
    };
    let fields = ["accept".parse().unwrap()];
    let variant: EntryKey = key("a").variant(&fields, &HeaderMap::new()).to_key();
    let mut loaded = entry(&key("a"), Duration::ZERO, 1);
    loaded.key = variant;
    let lists = [fields.to_vec()];
    node.tier
        .publish(&primary, &lists, &loaded, LIFE, late)
        .await;
    assert_eq!(store.records(), 0);
    node.tier
        .publish(&primary, &lists, &loaded, LIFE, owner)
        .await;
    assert_eq!(
        store.records(),
        2,
        "the variant, and what the key varies by"
    );
    assert!(node.find(&key("a")).await.is_some());
}

#[tokio::test]
async fn equal_purges_that_wait_are_one_and_too_many_are_a_purge_of_everything() {
    let store = Arc::new(Memory::default());
    store.down.store(true, SeqCst);
    let node = Node::over(&store).await;
    let tag = |n: usize| Selector::Tag(format!("t{n}"));
    let first: Vec<_> = (0..3)
        .map(|_| node.tier.purge(&tag(0), PurgeKind::Hard).1)
        .collect();
    let many: Vec<_> = (0..10_100)
        .map(|n| node.tier.purge(&tag(n), PurgeKind::Hard).1)
        .collect();
    store.down.store(false, SeqCst);
    let all = futures_util::future::join_all(first.into_iter().chain(many));
    let told = tokio::time::timeout(Duration::from_secs(60), all).await;
    let told = told.expect("purges that waited get through");
    assert!(told.iter().all(Result::is_ok));
    let log = store.read_log(LogNumber::ZERO).await.unwrap();
    assert!(log.purges.len() < 200, "{}", log.purges.len());
    assert!(log.purges.iter().any(|p| p.purge.selector == "all"));
}
