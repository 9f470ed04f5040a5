//! Nodes on a bus within the process. The clock stands still, except while a test waits.

mod hub;
mod inheriting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use prometheus::Registry;

use super::*;
use crate::bus::event::{BusEvent, EventShape};
use crate::bus::seal::SealKeys;
use crate::bus::transport::TransportEvent;
use crate::cache::Lookup;
use crate::cache::entry::{Entry, PurgeAttributes};
use crate::cache::freshness::Freshness;
use crate::cache::key::{CacheKeyField, KeyBuf, KeyId, hash64};
use crate::cache::purge::{PurgeKind, PurgeOrder, Selector};
use crate::cache::record::{RecordLimits, Seal};
use crate::cache::successor::{PredecessorPurgeAuthor, SuccessorPurges};
use crate::units::ByteSize;
use hub::{Hub, Line, Port};
use lamina_base::telemetry::metrics::assert_registered;
use lamina_http::vary::Vary;

struct Site {
    cache: Arc<Cache>,
    cluster: Arc<Cluster>,
    port: Arc<Port>,
    registry: Registry,
}

/// What a request would find.
#[derive(PartialEq, Eq, Debug)]
enum Met {
    Fresh,
    /// An entry that must be validated first.
    Stale,
    Nothing,
}

impl Site {
    fn join(hub: &Arc<Hub>, name: &str, boot: u64) -> Self {
        Self::with(hub, name, boot, Guarantee::AtMostOnce, |_| {})
    }

    fn with(
        hub: &Arc<Hub>,
        name: &str,
        boot: u64,
        guarantee: Guarantee,
        change: impl Fn(&mut BusConfig),
    ) -> Self {
        Self::after(NodeBefore::Nobody, (hub, name, boot), guarantee, change)
    }

    fn after(
        before: NodeBefore,
        who: (&Arc<Hub>, &str, u64),
        guarantee: Guarantee,
        change: impl Fn(&mut BusConfig),
    ) -> Self {
        let mut config = BusConfig::default();
        change(&mut config);
        Self::of(before, who, guarantee, (config, None))
    }

    fn of(
        before: NodeBefore,
        (hub, name, boot): (&Arc<Hub>, &str, u64),
        guarantee: Guarantee,
        (config, seal): (BusConfig, Option<SealKeys>),
    ) -> Self {
        let registry = Registry::new();
        let cache = Cache::new(&crate::cache::config::CacheConfig::default(), &registry).unwrap();
        let cache = Arc::new(cache);
        let port = hub.port(guarantee);
        let codec = record::RecordOptions {
            compression: None,
            limits: RecordLimits::for_objects(1 << 20),
            seal: Seal::public(),
        };
        let identity = PublisherIdentity {
            source: name.to_owned(),
            boot,
            namespace: config.namespace.clone(),
            seal,
        };
        let line = Arc::new(Line(Arc::clone(&port)));
        let cluster = Cluster::join(
            Arc::clone(&cache),
            line,
            identity,
            &config,
            codec,
            &registry,
            before,
        )
        .unwrap();
        Self {
            cache,
            cluster,
            port,
            registry,
        }
    }

    /// Stores the result of a load that ended `time` ago.
    fn held_for(&self, path: &str, body: &'static str, time: Duration) {
        let key = key(path);
        let mut entry = entry(&key, body, self.cache.order());
        entry.freshness.received -= time;
        let entry = Arc::new(entry);
        assert!(self.cache.admit(key.to_key(), &Vary::None, entry));
    }

    /// Stores the result of a load that began at `born`.
    fn store(&self, path: &str, body: &'static str, born: PurgeOrder) {
        let key = key(path);
        let entry = Arc::new(entry(&key, body, born));
        assert!(self.cache.admit(key.to_key(), &Vary::None, entry));
    }

    fn load(&self, path: &str, body: &'static str) {
        self.store(path, body, self.cache.order());
    }

    fn look(&self, path: &str) -> Met {
        match self.found(path) {
            Lookup::Fresh(_) => Met::Fresh,
            Lookup::Stale(..) => Met::Stale,
            Lookup::Miss(..) => Met::Nothing,
        }
    }

    fn body(&self, path: &str) -> Option<Bytes> {
        match self.found(path) {
            Lookup::Fresh(entry) => Some(entry.body.bytes()),
            _ => None,
        }
    }

    fn found(&self, path: &str) -> Lookup {
        let now = Instant::now();
        self.cache.lookup(&key(path), &HeaderMap::new(), now)
    }

    fn purge(&self, selector: &str) {
        self.cache
            .purge(&selector.parse().unwrap(), PurgeKind::Hard);
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        assert_registered(&self.registry, name);
        let families = self.registry.gather();
        let samples = families.iter().filter(|family| family.name() == name);
        let samples = samples.flat_map(|family| family.get_metric());
        let samples = samples
            .filter(|m| label.is_empty() || m.get_label().iter().any(|pair| pair.value() == label));
        samples
            .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
            .sum()
    }
}

fn key(path: &str) -> KeyBuf {
    let mut key = KeyBuf::default();
    key.push(CacheKeyField::Path, path.as_bytes());
    key
}

fn entry(key: &KeyBuf, body: &'static str, born: PurgeOrder) -> Entry {
    let freshness = Freshness {
        received: Instant::now(),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(3_600),
        while_revalidate: Duration::from_secs(3_600),
        if_error: Duration::ZERO,
        must_revalidate: false,
    };
    let marks = PurgeAttributes {
        id: KeyId::of(key.as_bytes()).0,
        identity: key.identity(),
        route: hash64(b"pages"),
        tags: [hash64(b"t")].into(),
        groups: [5].into(),
        url: "a.example/p/1".into(),
    };
    Entry::new(
        key.to_key(),
        StatusCode::OK,
        HeaderMap::new(),
        Bytes::from_static(body.as_bytes()),
        freshness,
        marks,
        born,
    )
}

/// Lets all tasks run as far as they can, without advancing the clock.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Waits until everything that is due within this time has happened.
async fn after(time: Duration) {
    tokio::time::sleep(time).await;
    settle().await;
}

const BEAT: Duration = Duration::from_millis(1_100);

fn foreign(shape: EventShape) -> Bytes {
    let event = BusEvent {
        id: "f1".to_owned(),
        source: "a service".to_owned(),
        namespace: None,
        ts: 0,
        shape,
        ours: None,
    };
    event.encode()
}

/// The bodies on the other node: a different one, the same one, and a different one that is recent.
#[tokio::test(start_paused = true)]
async fn a_value_too_large_to_be_told_has_others_validated() {
    let hub = Arc::<Hub>::default();
    let a = Site::with(&hub, "a", 1, Guarantee::AtMostOnce, |bus| {
        bus.broadcast_set_max_bytes = ByteSize(10);
    });
    let b = Site::join(&hub, "b", 2);
    after(BEAT).await;
    let minute = Duration::from_secs(60);
    b.held_for("/other", "an older large body", minute);
    b.held_for("/same", "the new large body", minute);
    b.held_for("/young", "another large body", Duration::ZERO);
    for path in ["/other", "/same", "/young", "/unknown"] {
        a.load(path, "the new large body");
    }
    settle().await;
    assert_eq!(b.look("/other"), Met::Stale);
    assert_eq!(b.look("/same"), Met::Fresh);
    assert_eq!(b.look("/young"), Met::Fresh);
    assert_eq!(b.look("/unknown"), Met::Nothing);
    let values = "lamina_cluster_values_total";
    assert_eq!(b.metric(values, "changed"), 1.0);
    assert_eq!(b.metric(values, "unchanged"), 3.0);
}

#[tokio::test(start_paused = true)]
async fn a_purge_by_any_selector_holds_on_every_node() {
    let selectors = [
        format!("key:{}", KeyId::of(key("/p/1").as_bytes())),
        format!("url:{:016x}", key("/p/1").identity()),
        "prefix:/p".to_owned(),
        "pattern:*/p/?".to_owned(),
        "pattern:/p/1".to_owned(),
        "tag:t".to_owned(),
        format!("group:{:016x}", 5),
        "route:pages".to_owned(),
        "all".to_owned(),
    ];
    for selector in selectors {
        let hub = Arc::default();
        let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
        settle().await;
        two.load("/p/1", "old");
        assert_eq!(two.look("/p/1"), Met::Fresh);
        one.purge(&selector);
        settle().await;
        assert_eq!(two.look("/p/1"), Met::Nothing, "{selector}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_told_once_and_not_passed_on() {
    let hub: Arc<Hub> = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    settle().await;
    one.purge("tag:t");
    settle().await;
    assert_eq!(one.metric("lamina_bus_published_total", "purge"), 1.0);
    assert_eq!(two.metric("lamina_bus_published_total", "purge"), 0.0);
    assert_eq!(two.metric("lamina_cluster_purges_total", "in-order"), 1.0);
    let again = one
        .port
        .published
        .lock()
        .iter()
        .find(|b| is_purge(b))
        .cloned();
    hub.deliver(&again.unwrap());
    settle().await;
    assert_eq!(two.metric("lamina_bus_received_total", "duplicate"), 1.0);
    assert_eq!(two.metric("lamina_cluster_purges_total", ""), 1.0);
}

fn is_purge(bytes: &Bytes) -> bool {
    let ours = BusEvent::decode(bytes).unwrap().ours.unwrap();
    matches!(ours.message, Message::Purge { .. })
}

/// The core of at-most-once: the next number reveals the loss, and no older entry is shown without
/// validation.
#[tokio::test(start_paused = true)]
async fn a_lost_purge_is_noticed_by_the_next_one() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    settle().await;
    two.load("/p/1", "old");
    two.port.set_deaf(true);
    one.purge("tag:lost");
    settle().await;
    two.port.set_deaf(false);
    assert_eq!(two.look("/p/1"), Met::Fresh, "nobody can know yet");
    one.purge("tag:other");
    settle().await;
    assert_eq!(two.look("/p/1"), Met::Stale, "to be validated");
    two.load("/p/1", "new");
    assert_eq!(two.look("/p/1"), Met::Fresh, "once");
    assert_eq!(
        two.metric("lamina_cluster_gaps_total", ""),
        2.0,
        "and the start"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_purge_is_said_again() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    after(BEAT).await;
    two.port.set_deaf(true);
    for n in 0..100 {
        one.purge(&format!("tag:{n}"));
        settle().await;
    }
    two.port.set_deaf(false);
    after(BEAT).await;
    let late = two.metric("lamina_cluster_purges_total", "late");
    assert_eq!(late, 100.0);
    assert_eq!(one.metric("lamina_bus_published_total", "again"), 100.0);
}

/// Its heartbeat asks the others for theirs: it does not have to wait for the next ones.
#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_after_the_others_learns_at_once_what_it_has_missed() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    after(BEAT).await;
    two.port.set_deaf(true);
    two.port
        .tell(TransportEvent::Down("by the test".to_owned()));
    one.purge("tag:t");
    settle().await;
    two.port.set_deaf(false);
    two.port.tell(TransportEvent::Up { behind: None });
    after(BETWEEN_ANSWERS).await;
    assert_eq!(two.metric("lamina_cluster_purges_total", "late"), 1.0);
}

/// Where nodes have a queue each, one of two processes of a node hears what the others purge.
#[tokio::test(start_paused = true)]
async fn what_a_peer_purges_is_for_the_process_that_takes_over_and_told_to_nobody_again() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    let new = Site::join(&hub, "two", 3);
    after(BEAT).await;
    let purges = Arc::new(SuccessorPurges::default());
    two.cache.tell_successor(Some(Arc::clone(&purges)));
    new.port.set_deaf(true);
    one.purge("tag:t");
    settle().await;
    let purge = purges.next().unwrap();
    assert_eq!(purge.author, PredecessorPurgeAuthor::Peer);
    new.load("/p/1", "old");
    new.cache
        .purge_as_predecessor(purge.statement, purge.kind, purge.author);
    settle().await;
    assert_eq!(new.look("/p/1"), Met::Nothing);
    assert_eq!(new.metric("lamina_bus_published_total", "purge"), 0.0);
    // What the new process itself tells does not come back to it.
    new.purge("tag:u");
    settle().await;
    purges.close();
    assert!(purges.next().is_none());
}

/// All come back at the same time: each answers all others together.
#[tokio::test(start_paused = true)]
async fn many_that_ask_for_a_heartbeat_at_once_get_few() {
    let hub = Arc::default();
    let nodes: Vec<Site> = (0..20)
        .map(|n| Site::join(&hub, &format!("n{n}"), n + 1))
        .collect();
    after(BEAT).await;
    let published = || nodes[0].port.published.lock().len();
    let before = published();
    for node in &nodes {
        node.port.tell(TransportEvent::Up { behind: None });
        settle().await;
    }
    after(BETWEEN_ANSWERS * 3).await;
    assert!(published() - before <= 4, "{}", published() - before);
}

#[tokio::test(start_paused = true)]
async fn a_publish_ends_with_its_connection_and_goes_on_the_next_one() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    after(BEAT).await;
    one.port.set_mute(true);
    one.purge("tag:t");
    settle().await;
    let began = tokio::time::Instant::now();
    one.port.set_mute(false);
    one.port
        .tell(TransportEvent::Down("by the test".to_owned()));
    one.port.tell(TransportEvent::Up { behind: None });
    settle().await;
    assert_eq!(two.metric("lamina_cluster_purges_total", ""), 1.0);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_lost_last_purge_is_noticed_by_the_heartbeat() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    settle().await;
    two.load("/p/1", "old");
    two.port.set_deaf(true);
    one.purge("tag:lost");
    settle().await;
    two.port.set_deaf(false);
    after(BEAT).await;
    assert_eq!(two.look("/p/1"), Met::Stale);
}

/// Guards against heartbeats that overtake purges on a durable transport.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_of_a_durable_transport_says_nothing_of_purges() {
    let hub = Arc::default();
    let durable = |name, boot| Site::with(&hub, name, boot, Guarantee::Durable, |_| {});
    let (one, two) = (durable("one", 1), durable("two", 2));
    settle().await;
    two.load("/p/1", "page");
    two.port.set_deaf(true);
    one.purge("tag:other");
    settle().await;
    two.port.set_deaf(false);
    after(BEAT).await;
    assert_eq!(two.look("/p/1"), Met::Fresh);
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_a_reconnect_is_validated() {
    let hub = Arc::default();
    let site = Site::join(&hub, "one", 1);
    settle().await;
    site.load("/p/1", "old");
    site.port.tell(TransportEvent::Down("cut".to_owned()));
    settle().await;
    assert_eq!(site.look("/p/1"), Met::Fresh);
    assert!(site.cache.is_cut_off());
    site.port.tell(TransportEvent::Up { behind: None });
    settle().await;
    assert_eq!(site.look("/p/1"), Met::Stale);
    assert!(!site.cache.is_cut_off());
    site.load("/p/1", "new");
    assert_eq!(site.look("/p/1"), Met::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_durable_transport_clears_the_doubt_when_it_has_delivered() {
    let hub: Arc<Hub> = Arc::default();
    let site = Site::join(&hub, "one", 1);
    settle().await;
    site.load("/p/1", "page");
    site.load("/p/2", "page");
    site.port.tell(TransportEvent::Down("cut".to_owned()));
    site.port.tell(TransportEvent::Up { behind: Some(1) });
    settle().await;
    assert_eq!(site.look("/p/1"), Met::Stale);
    let kept = foreign(EventShape::Del {
        keys: vec!["nobody's".to_owned()],
    });
    site.port.hear_kept(&kept);
    settle().await;
    assert_eq!(site.look("/p/1"), Met::Fresh);
}

#[tokio::test(start_paused = true)]
async fn what_a_durable_transport_gave_up_stays_in_doubt_after_a_reconnect() {
    let hub: Arc<Hub> = Arc::default();
    let site = Site::join(&hub, "one", 1);
    settle().await;
    site.load("/p/1", "page");
    site.port.tell(TransportEvent::Lost("delivered too often"));
    site.port.tell(TransportEvent::Down("cut".to_owned()));
    site.port.tell(TransportEvent::Up { behind: Some(0) });
    settle().await;
    assert_eq!(site.look("/p/1"), Met::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_value_reaches_the_nodes_that_want_it() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    settle().await;
    one.load("/p/1", "unwanted");
    settle().await;
    assert_eq!(two.look("/p/1"), Met::Nothing);
    // A client has asked for it by now.
    one.load("/p/1", "wanted");
    settle().await;
    assert_eq!(two.body("/p/1").unwrap(), "wanted");
    assert_eq!(two.metric("lamina_cluster_values_total", "unwanted"), 1.0);
    assert_eq!(two.metric("lamina_cluster_values_total", "stored"), 1.0);
}

/// Guards against a purged value that comes back, a known weakness of at-most-once buses.
#[tokio::test(start_paused = true)]
async fn a_value_loaded_before_a_purge_does_not_come_after_it() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    let three = Site::with(&hub, "three", 3, Guarantee::AtMostOnce, |bus| {
        bus.priming = Priming::Always;
    });
    settle().await;
    // One loads while two purges, and learns of the purge only after it has published its value.
    one.port.set_deaf(true);
    two.purge("tag:t");
    settle().await;
    one.load("/p/1", "old");
    settle().await;
    assert_eq!(three.look("/p/1"), Met::Nothing);
    assert_eq!(
        three.metric("lamina_cluster_values_total", "overtaken"),
        1.0
    );
    // A value that it loads after it knows of the purge is accepted.
    one.port.set_deaf(false);
    two.purge("tag:other");
    settle().await;
    one.load("/p/1", "new");
    settle().await;
    assert_eq!(three.body("/p/1").unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_load_that_began_before_our_own_purge_is_told_as_such() {
    let hub = Arc::default();
    let one = Site::join(&hub, "one", 1);
    let two = Site::with(&hub, "two", 2, Guarantee::AtMostOnce, |bus| {
        bus.priming = Priming::Always;
    });
    settle().await;
    let born = one.cache.order();
    one.purge("tag:other");
    settle().await;
    // The load began before a purge that does not affect it.
    one.store("/p/1", "page", born);
    settle().await;
    assert_eq!(two.body("/p/1").unwrap(), "page");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_published_goes_out_when_the_bus_is_up_again() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    settle().await;
    two.load("/p/1", "old");
    one.port.set_down(true);
    for n in 0..100 {
        one.purge(&format!("tag:{n}"));
        settle().await;
    }
    one.purge("tag:t");
    after(Duration::from_secs(20)).await;
    assert_eq!(one.cluster.standing().unsent, 101);
    assert!(!one.cluster.standing().publishes());
    one.port.set_down(false);
    one.port.tell(TransportEvent::Up { behind: Some(0) });
    settle().await;
    assert_eq!(one.cluster.standing().unsent, 0);
    assert_eq!(two.look("/p/1"), Met::Nothing);
    let arrived = two.metric("lamina_cluster_purges_total", "in-order");
    assert_eq!(arrived, 101.0, "in order and without a hole");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_published_goes_out_by_a_timer_too() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    settle().await;
    two.load("/p/1", "old");
    one.port.set_down(true);
    one.purge("tag:t");
    after(Duration::from_secs(2)).await;
    assert!(!one.cluster.standing().publishes());
    one.port.set_down(false);
    after(Duration::from_secs(1)).await;
    assert_eq!(two.look("/p/1"), Met::Nothing);
    assert!(one.cluster.standing().publishes());
}

#[tokio::test(start_paused = true)]
async fn a_receipt_names_who_applied_it_and_who_did_not_answer() {
    let hub = Arc::default();
    let (one, two) = (Site::join(&hub, "one", 1), Site::join(&hub, "two", 2));
    let three = Site::join(&hub, "three", 3);
    after(BEAT).await;
    let all = [Selector::All];
    let purge = || one.cluster.purge_and_wait(&all, PurgeKind::Hard, BEAT);
    let answered = |everywhere: &ClusterPurgeReport| -> Vec<(String, bool)> {
        let nodes = everywhere.purges[0].nodes.iter();
        nodes.map(|(n, a)| (n.clone(), a.is_some())).collect()
    };
    let expected = |three| vec![("three".to_owned(), three), ("two".to_owned(), true)];
    let early = one.cluster.purge_and_wait(&all, PurgeKind::Hard, BEAT / 2);
    let early = early.await;
    assert_eq!(answered(&early), expected(true));
    assert_eq!(early.unknown, Some(UnconfirmedReason::JustJoined));
    let everywhere = purge().await;
    assert_eq!(answered(&everywhere), expected(true));
    assert_eq!(everywhere.unknown, None);
    three.port.set_deaf(true);
    let everywhere = purge().await;
    assert_eq!(answered(&everywhere), expected(false));
    assert_eq!(everywhere.unknown, None, "who did not answer is known");
    one.port.set_down(true);
    let everywhere = purge().await;
    let why = everywhere.unknown.unwrap();
    assert!(matches!(why, UnconfirmedReason::NotPublished(_)), "{why}");
    one.port.set_down(false);
    three.cluster.finish(BEAT).await;
    let everywhere = purge().await;
    assert_eq!(answered(&everywhere), [("two".to_owned(), true)], "it left");
    drop(two);
}

#[tokio::test(start_paused = true)]
async fn foreign_events_invalidate_and_never_bring_a_value() {
    let hub: Arc<Hub> = Arc::default();
    let site = Site::join(&hub, "one", 1);
    settle().await;
    let shapes = [
        EventShape::Del {
            keys: vec!["t".to_owned()],
        },
        EventShape::Del {
            keys: vec!["/p/1".to_owned()],
        },
        EventShape::Set {
            keys: vec!["t".to_owned()],
        },
        EventShape::Pattern("/p/*".to_owned()),
        EventShape::Pattern("user:*".to_owned()),
    ];
    for (n, shape) in shapes.into_iter().enumerate() {
        site.load("/p/1", "page");
        let mut event = BusEvent::decode(&foreign(shape.clone())).unwrap();
        event.id = n.to_string();
        hub.deliver(&event.encode());
        settle().await;
        assert_eq!(site.look("/p/1"), Met::Nothing, "{shape:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_namespaces_and_garbage_do_nothing() {
    let hub: Arc<Hub> = Arc::default();
    let site = Site::with(&hub, "one", 1, Guarantee::AtMostOnce, |bus| {
        bus.namespace = Some("shop".to_owned());
    });
    settle().await;
    site.load("/p/1", "page");
    hub.deliver(&foreign(EventShape::Pattern("*".to_owned())));
    hub.deliver(&Bytes::from_static(b"HC1Mgarbage"));
    settle().await;
    assert_eq!(site.look("/p/1"), Met::Fresh);
    assert_eq!(
        site.metric("lamina_bus_received_total", "other-namespace"),
        1.0
    );
    assert_eq!(site.metric("lamina_bus_received_total", "malformed"), 1.0);
}
