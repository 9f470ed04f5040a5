//! Makes one cache out of many nodes: what a node does with the events of the bus.
//!
//! Inside: `announce` (makes events for the others out of what happens here), `apply` (applies
//! received events), `invalidations` (what requests invalidated by themselves), `values` (loaded
//! values, sent to other nodes and received from them), `doubts` (what may have been missed),
//! `inheritance` (what a process that takes the place of another one need not doubt), `orders` (the
//! place of each publisher's purges in our order), `nodes` (which nodes there are),
//! `receipts` and `everywhere` (purges that a caller waits for).
//!
//! Invariant: a received event is applied to this process alone, and without waiting for the
//! network.

mod announce;
mod apply;
mod doubts;
mod everywhere;
mod inheritance;
mod invalidations;
mod metrics;
mod nodes;
mod orders;
mod receipts;
mod values;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::Notify;

use crate::bus::config::{BusConfig, Priming};
use crate::bus::event::Message;
use crate::bus::inbox::{EarlierPurges, ExpectedNamesake, Inbox, InboxSettings};
use crate::bus::outbox::{self, Outbox, PublisherIdentity};
use crate::bus::transport::{BusTransport, Guarantee, TransportEventSender};
use crate::cache::Cache;
use crate::cache::l2::StoreHealth;
use crate::cache::peers::PeerNotifier;
use crate::cache::purge::PurgeOrder;
use crate::cache::record;
use doubts::DoubtTracker;
use invalidations::InvalidationBatcher;
use metrics::ClusterMetrics;
use nodes::NodeTable;
use orders::PublisherOrders;
use receipts::PurgeReceipts;

pub use announce::can_tell;
pub use everywhere::{ClusterPurge, ClusterPurgeReport, UnconfirmedReason};
pub use inheritance::{DoubtCount, HeardPublisher, NodeBefore, NodeLife};
pub use nodes::{NodeState, PeerNode};
pub use orders::HeardPurges;
pub use receipts::NodeReceipt;

pub use crate::bus::outbox::PublishStatus;

/// This node as a member of the cluster.
pub struct Cluster {
    cache: Arc<Cache>,
    outbox: Arc<Outbox>,
    transport: Arc<dyn BusTransport>,
    orders: Arc<Mutex<PublisherOrders>>,
    nodes: Mutex<NodeTable>,
    receipts: Arc<PurgeReceipts>,
    doubts: Arc<DoubtTracker>,
    invalidations: Arc<InvalidationBatcher>,
    codec: record::RecordOptions,
    rules: ClusterRules,
    hears: AtomicBool,
    /// When this node heard the bus for the first time.
    joined: OnceLock<tokio::time::Instant>,
    /// It has announced that it leaves.
    has_left: AtomicBool,
    /// It hears the bus from now on.
    came_up: Notify,
    /// Another node has asked for a heartbeat.
    asked: Notify,
    /// A node was heard that has begun to hear the bus.
    heard_asking: Notify,
    namesake: Arc<ExpectedNamesake>,
    metrics: ClusterMetrics,
}

/// The settings from the configuration.
struct ClusterRules {
    /// Off: what other nodes publish has no effect here.
    listens: bool,
    broadcast: bool,
    max_value_bytes: usize,
    priming: Priming,
    foreign_patterns: crate::bus::config::ForeignPatterns,
    heartbeat: Duration,
    /// How many nodes there are, if that is configured.
    expect: Option<usize>,
}

/// The state of the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusStatus {
    pub transport: &'static str,
    pub guarantee: Guarantee,
    /// Whether this node hears the others.
    pub hears: bool,
    /// Whether the broker took what was published, according to the last attempt.
    pub publishing: PublishStatus,
    /// The number of purges that are not published yet.
    pub unsent: usize,
    /// Whether events may have been missed, and it is not known yet which.
    pub doubts: bool,
}

/// What a heartbeat is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeartbeatPurpose {
    /// To tell the others that this node is there, and how many purges it has published.
    Tell,
    /// Also to learn the same of each of them, without waiting for its next heartbeat.
    Ask,
}

/// The time between two heartbeats that others ask for: after an outage all nodes ask at once.
const BETWEEN_ANSWERS: Duration = Duration::from_millis(100);
/// A node that was not heard for this many heartbeats is silent.
const MISSED_HEARTBEATS: u32 = 5;

impl Cluster {
    /// Joins the cluster: begins to connect, to publish and to receive. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the registry already has the metrics of a cluster.
    pub fn join(
        cache: Arc<Cache>,
        transport: Arc<dyn BusTransport>,
        identity: PublisherIdentity,
        config: &BusConfig,
        codec: record::RecordOptions,
        registry: &Registry,
        before: NodeBefore,
    ) -> prometheus::Result<Arc<Self>> {
        let orders: Arc<Mutex<PublisherOrders>> = Arc::default();
        let noted = Arc::clone(&orders);
        let (source, boot) = (identity.source.clone(), identity.boot);
        let invalidations = Arc::new(InvalidationBatcher::new(registry)?);
        let told = Arc::clone(&invalidations);
        let receipts: Arc<PurgeReceipts> = Arc::default();
        let awaited = Arc::clone(&receipts);
        let on_number = Box::new(move |number, purge: &outbox::QueuedPurge| {
            told.numbered(purge);
            if let Some(id) = &purge.receipt {
                awaited.numbered(id, number);
            }
            let mut orders = noted.lock();
            let order = PurgeOrder::new(purge.order);
            orders.note(&source, boot, number, order, Instant::now());
            orders.end_own(purge.count);
        });
        let outbox = Outbox::new(
            identity.clone(),
            Arc::clone(&transport),
            config,
            on_number,
            announce::wider,
            registry,
        )?;
        let cluster = Arc::new(Self {
            outbox: Arc::new(outbox),
            transport: Arc::clone(&transport),
            orders,
            nodes: Mutex::new(NodeTable::new(
                config.max_nodes,
                config.nodes.forget_after.into(),
            )),
            receipts,
            doubts: Arc::new(DoubtTracker::new(Arc::clone(&cache), registry)?),
            invalidations,
            codec,
            rules: ClusterRules {
                listens: config.subscribe_to_events,
                broadcast: config.broadcast_set,
                max_value_bytes: config.broadcast_set_max_bytes.as_usize(),
                priming: config.priming,
                foreign_patterns: config.foreign_patterns,
                heartbeat: config.heartbeat_interval.into(),
                expect: config.expect,
            },
            hears: AtomicBool::new(false),
            joined: OnceLock::new(),
            has_left: AtomicBool::new(false),
            came_up: Notify::new(),
            asked: Notify::new(),
            heard_asking: Notify::new(),
            namesake: Arc::default(),
            metrics: ClusterMetrics::new(registry)?,
            cache: Arc::clone(&cache),
        });
        let listener = Arc::clone(&cluster);
        let hearing = hearing(&cache, &*transport, &cluster.namesake);
        let inbox = Inbox::new(identity, listener, config, hearing, registry)?;
        cache.set_cut_off(true);
        if before == NodeBefore::ReplacedProcess && cluster.can_be_inherited() {
            cluster.doubts.await_inheritance();
        }
        if cache.outlives_this_node() {
            cluster.doubts.open_by_joining(
                "this node was restarted, and what it has kept may have been purged meanwhile",
            );
        }
        cache.announce_to(Arc::clone(&cluster) as Arc<dyn PeerNotifier>);
        let (mail, words) = TransportEventSender::new();
        let publishing = Arc::clone(&cluster.outbox);
        tokio::spawn(async move { publishing.run().await });
        tokio::spawn(async move { inbox.run(words).await });
        tokio::spawn(Arc::clone(&cluster).beat());
        transport.run(mail);
        Ok(cluster)
    }

    /// Publishes heartbeats, without end: regularly, and when another node asks, however many ask.
    async fn beat(self: Arc<Self>) {
        let mut beats = tokio::time::interval(self.rules.heartbeat);
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                () = self.asked.notified() => {}
            }
            self.beat_once(HeartbeatPurpose::Tell);
            tokio::time::sleep(BETWEEN_ANSWERS.min(self.rules.heartbeat)).await;
        }
    }

    fn beat_once(&self, purpose: HeartbeatPurpose) {
        if self.has_left.load(Ordering::Acquire) {
            return;
        }
        self.metrics.nodes(self.nodes(Instant::now()).len());
        self.outbox.say(Message::Heartbeat {
            healthy: self.standing().is_whole() && self.cache.reach() == StoreHealth::Whole,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            asks: purpose == HeartbeatPurpose::Ask,
        });
    }

    /// The other nodes that were heard lately, by name.
    pub fn nodes(&self, now: Instant) -> Vec<(String, PeerNode)> {
        let own = &self.outbox.identity.source;
        let mut nodes = self.nodes.lock().list(now);
        nodes.retain(|(name, node)| name != own && node.state.is_some());
        nodes
    }

    /// Whether a node has been silent for longer than a busy node is late.
    pub fn is_silent(&self, node: &PeerNode, now: Instant) -> bool {
        let silence = now.saturating_duration_since(node.heard);
        silence >= self.rules.heartbeat * MISSED_HEARTBEATS
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        &self.outbox.identity.source
    }

    /// The state of the bus.
    pub fn standing(&self) -> BusStatus {
        BusStatus {
            transport: self.transport.kind(),
            guarantee: self.transport.guarantee(),
            hears: self.hears.load(Ordering::Acquire),
            publishing: self.outbox.publishing(),
            unsent: self.outbox.unsent(),
            doubts: self.doubts.are_reported(),
        }
    }

    /// Another process with this node's name may be there for so long: one takes the place of the
    /// other.
    pub fn expect_namesake_for(&self, span: Duration) {
        self.namesake.expect_for(span);
        self.transport.expect_namesake_for(span);
    }

    /// Says nothing more, since another process speaks under the name of this node, and waits until
    /// every purge is published, for at most `patience`. What only one of both may have on the bus
    /// is the other's then: it is told here what is purged later, and tells the other nodes.
    pub async fn fall_silent(&self, patience: Duration) {
        self.has_left.store(true, Ordering::Release);
        self.await_published(patience).await;
        self.transport.give_up_queue();
    }

    /// Announces that this node leaves, and waits until that and every purge is published, for at
    /// most `patience`.
    pub async fn finish(&self, patience: Duration) {
        self.has_left.store(true, Ordering::Release);
        self.outbox.say(Message::Leaving);
        self.await_published(patience).await;
    }

    async fn await_published(&self, patience: Duration) {
        let settled = self.outbox.settled();
        if tokio::time::timeout(patience, settled).await.is_err() {
            let purges = self.outbox.unsent();
            tracing::warn!(
                purges,
                "not all purges were published to the other nodes before the end"
            );
        }
    }
}

/// Sealed purges that were published before this node began have no meaning for it: what it holds was
/// loaded since or is validated first (no process inherits what another one heard over a bus with
/// seals), and the purge log in Redis has the rest. There is one exception: a purge that is not in
/// that log yet and that a durable bus kept for this node.
fn hearing(
    cache: &Cache,
    transport: &dyn BusTransport,
    namesake: &Arc<ExpectedNamesake>,
) -> InboxSettings {
    let guarantee = transport.guarantee();
    let kept_beside_a_log = cache.shares_log() && guarantee == Guarantee::Durable;
    InboxSettings {
        guarantee,
        namesake: Arc::clone(namesake),
        earlier_purges: match kept_beside_a_log {
            true => EarlierPurges::Count,
            false => EarlierPurges::MeanNothing,
        },
    }
}

impl BusStatus {
    /// Whether this node receives and publishes everything.
    pub fn is_whole(&self) -> bool {
        self.hears && self.publishes() && !self.doubts
    }

    /// Whether the broker took what was published, according to the last attempt.
    pub fn publishes(&self) -> bool {
        self.publishing == PublishStatus::Works
    }
}

#[cfg(test)]
mod tests;
