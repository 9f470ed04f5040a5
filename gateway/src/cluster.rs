//! One cache out of many nodes: what is done about the events of the bus.
//!
//! Inside: `announce` (what happens here becomes an event), `apply` (what is heard is done
//! here), `invalidations` (what requests made invalid by themselves), `values` (loaded values for peers and from them), `doubts` (what may have been
//! missed), `orders` (whose purges stand where in our order), `nodes` (who is there),
//! `receipts` (purges that somebody waits for).
//!
//! Invariant: what is heard touches this process alone, and no network is waited for.

mod announce;
mod apply;
mod doubts;
mod invalidations;
mod metrics;
mod nodes;
mod orders;
mod receipts;
mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::oneshot;

use crate::bus::config::{Bus, Priming};
use crate::bus::event::Message;
use crate::bus::inbox::{EarlierPurges, Hearing, Inbox};
use crate::bus::outbox::{self, Identity, Outbox, Publishing};
use crate::bus::transport::{Guarantee, Mail, Transport};
use crate::cache::Cache;
use crate::cache::peers::Peers;
use crate::cache::purge::{Kind, Order, Selector};
use crate::cache::record;
use doubts::Doubts;
use invalidations::Invalidations;
use metrics::Metrics;
use nodes::Nodes;
use orders::Orders;
use receipts::Receipts;

pub use announce::can_tell;
pub use nodes::{Node, State};
pub use receipts::Answer;

/// This node among the others.
pub struct Cluster {
    cache: Arc<Cache>,
    outbox: Arc<Outbox>,
    transport: Arc<dyn Transport>,
    orders: Arc<Mutex<Orders>>,
    nodes: Mutex<Nodes>,
    receipts: Receipts,
    doubts: Arc<Doubts>,
    invalidations: Arc<Invalidations>,
    codec: record::Options,
    rules: Rules,
    hears: AtomicBool,
    metrics: Metrics,
}

/// What the configuration says.
struct Rules {
    broadcast: bool,
    max_value_bytes: usize,
    priming: Priming,
    foreign_patterns: crate::bus::config::ForeignPatterns,
    heartbeat: Duration,
}

/// A purge as all nodes have taken it.
pub struct Told {
    /// Its place in our own order.
    pub order: Order,
    /// Its number in the second tier's log, once that has it.
    pub logged: Option<oneshot::Receiver<u64>>,
    /// Every node that was known, and its answer if there was one in time; by name.
    pub nodes: Vec<(String, Option<Answer>)>,
}

/// How the bus stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    pub transport: &'static str,
    pub guarantee: Guarantee,
    /// Whether this node hears the others.
    pub hears: bool,
    /// Whether the broker took what was published last.
    pub publishes: bool,
    /// Purges that the others have not been told yet.
    pub unsent: usize,
    /// Whether something may have been missed, and is not made good.
    pub doubts: bool,
}

/// A node that was not heard for so many heartbeats is not waited for.
const MISSED_HEARTBEATS: u32 = 5;

impl Cluster {
    /// Joins: begins to connect, to tell and to hear. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the registry has a cluster already.
    pub fn join(
        cache: Arc<Cache>,
        transport: Arc<dyn Transport>,
        identity: Identity,
        config: &Bus,
        codec: record::Options,
        registry: &Registry,
    ) -> prometheus::Result<Arc<Self>> {
        let orders: Arc<Mutex<Orders>> = Arc::default();
        let noted = Arc::clone(&orders);
        let (source, boot) = (identity.source.clone(), identity.boot);
        let invalidations = Arc::new(Invalidations::new(registry)?);
        let told = Arc::clone(&invalidations);
        let on_number = Box::new(move |number, purge: &outbox::Purge| {
            told.numbered(purge);
            let mut orders = noted.lock();
            orders.note(&source, boot, number, purge.order, Instant::now());
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
            nodes: Mutex::new(Nodes::new(config.max_nodes)),
            receipts: Receipts::default(),
            doubts: Arc::new(Doubts::new(Arc::clone(&cache), registry)?),
            invalidations,
            codec,
            rules: Rules {
                broadcast: config.broadcast_set,
                max_value_bytes: config.broadcast_set_max_bytes.as_usize(),
                priming: config.priming,
                foreign_patterns: config.foreign_patterns,
                heartbeat: config.heartbeat_interval.into(),
            },
            hears: AtomicBool::new(false),
            metrics: Metrics::new(registry)?,
            cache: Arc::clone(&cache),
        });
        let listener = Arc::clone(&cluster);
        let hearing = hearing(&cache, &*transport);
        let inbox = Inbox::new(identity, listener, config, hearing, registry)?;
        cache.set_cut_off(true);
        if cache.outlives_this_node() {
            cluster
                .doubts
                .open("an earlier life of this node stored it");
        }
        cache.announce_to(Arc::clone(&cluster) as Arc<dyn Peers>);
        let (mail, words) = Mail::new();
        let publishing = Arc::clone(&cluster.outbox);
        tokio::spawn(async move { publishing.run().await });
        tokio::spawn(async move { inbox.run(words).await });
        tokio::spawn(Arc::clone(&cluster).beat());
        transport.run(mail);
        Ok(cluster)
    }

    /// Says that this node is there, for ever.
    async fn beat(self: Arc<Self>) {
        let mut beats = tokio::time::interval(self.rules.heartbeat);
        loop {
            beats.tick().await;
            self.metrics.nodes(self.nodes(Instant::now()).len());
            self.outbox.say(Message::Heartbeat {
                healthy: self.standing().is_whole(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            });
        }
    }

    /// Purges everywhere and waits, as long as `patience`, until every known node has said
    /// that it holds there.
    pub async fn purge_and_wait(
        &self,
        selectors: &[Selector],
        kind: Kind,
        patience: Duration,
    ) -> Vec<Told> {
        let now = Instant::now();
        let silent = self.rules.heartbeat * MISSED_HEARTBEATS;
        let nodes = self.nodes(now).into_iter();
        let nodes = nodes.filter(|(_, node)| now.duration_since(node.heard) < silent.max(patience));
        let nodes: Vec<String> = nodes.map(|(name, _)| name).collect();
        let purges = selectors.iter().map(|selector| {
            let id = outbox::new_id();
            let awaited = self.receipts.open(id.clone(), &nodes);
            self.purging();
            let (order, logged) = self.cache.purge_untold(selector, kind);
            self.outbox.purge(outbox::Purge {
                receipt: Some(id),
                ..announce::purge(selector, kind, order)
            });
            (order, logged, awaited)
        });
        let purges: Vec<_> = purges.collect();
        let nodes = &nodes;
        let told = purges.into_iter().map(async |(order, logged, awaited)| {
            let answers = awaited.all(patience).await;
            let nodes = nodes.iter();
            let nodes = nodes.map(|node| (node.clone(), answers.get(node).copied()));
            Told {
                order,
                logged,
                nodes: nodes.collect(),
            }
        });
        join_all(told).await
    }

    /// The other nodes that were heard of lately, by name.
    pub fn nodes(&self, now: Instant) -> Vec<(String, Node)> {
        let own = &self.outbox.identity.source;
        let mut nodes = self.nodes.lock().list(now);
        nodes.retain(|(name, node)| name != own && node.state.is_some());
        nodes
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        &self.outbox.identity.source
    }

    /// How the bus stands.
    pub fn standing(&self) -> Standing {
        Standing {
            transport: self.transport.kind(),
            guarantee: self.transport.guarantee(),
            hears: self.hears.load(Ordering::Acquire),
            publishes: self.outbox.publishing() == Publishing::Works,
            unsent: self.outbox.unsent(),
            doubts: self.doubts.are_open(),
        }
    }

    /// Waits until every purge is told, as long as `patience`.
    pub async fn finish(&self, patience: Duration) {
        let settled = self.outbox.settled();
        if tokio::time::timeout(patience, settled).await.is_err() {
            let purges = self.outbox.unsent();
            tracing::warn!(purges, "the other nodes were not told of all purges");
        }
    }
}

/// What was purged before this node began is of no use to it: what it holds was loaded since, or is
/// validated first, and the log in Redis tells the rest. But for a purge that is not in that log
/// yet and that a durable bus kept for this node.
fn hearing(cache: &Cache, transport: &dyn Transport) -> Hearing {
    let guarantee = transport.guarantee();
    let kept_beside_a_log = cache.shares_log() && guarantee == Guarantee::Durable;
    Hearing {
        guarantee,
        earlier_purges: match kept_beside_a_log {
            true => EarlierPurges::Count,
            false => EarlierPurges::MeanNothing,
        },
    }
}

impl Standing {
    /// Whether this node hears and tells all there is.
    pub fn is_whole(&self) -> bool {
        self.hears && self.publishes && !self.doubts
    }
}

#[cfg(test)]
mod tests;
