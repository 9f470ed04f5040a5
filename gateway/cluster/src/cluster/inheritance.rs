//! What a process knows of the other nodes, for the process that takes its place on this node.
//!
//! A process that joins the others has missed all that was purged before, so what it begins with is
//! in doubt. One that takes the place of another one has missed nothing if that one has heard every
//! purge until it was itself heard by the bus: what the other one held is judged by what it has
//! heard, and what it has purged since is told. So the doubts of joining end when it is known
//! that of each publisher every purge came to one of the two processes ([`Cluster::inherit`]). From then
//! on a purge that neither of them has heard is missed as by any node: its number is.
//!
//! That a process hears the bus is proved by what it hears: the one before must have heard the
//! question that this process asks as soon as it hears the bus itself. A connection that has ended
//! without a word looks like one on which nothing is said. Not every purge has a number, and who
//! purged may be gone, so nothing else would show that it was missed.
//!
//! Only where the bus delivers at most once, its events have no seals, and there is no second tier:
//! a durable bus keeps what is meant for either process, a process accepts no sealed purge that was
//! made long before it began, or again what it takes for counted, and a second tier has what nobody
//! has judged.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::nodes::NodeTable;
use super::{Cluster, Guarantee};
use crate::bus::event::PublisherNumber;

/// Who was this node before the process began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeBefore {
    /// Nobody, or a process that has ended.
    Nobody,
    /// A process that still hears the bus, and tells what it knows ([`Cluster::inherit`]).
    ReplacedProcess,
}

/// How often purges may have been missed so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoubtCount(pub(super) u64);

/// A life (a process run) of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeLife {
    pub source: String,
    pub boot: u64,
}

/// How many purges of one life of a publisher were applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeardPublisher {
    pub source: String,
    pub boot: u64,
    pub purges: PublisherNumber,
    /// A load that is under way may not know of the newest of them.
    pub is_recent: bool,
}

impl Cluster {
    /// Whether what was missed can be known by what another process of this node has heard.
    pub(super) fn can_be_inherited(&self) -> bool {
        let guarantee = self.transport.guarantee();
        self.rules.listens
            && guarantee == Guarantee::AtMostOnce
            && self.outbox.identity.seal.is_none()
            && self.cache.second_tier().is_none()
    }

    /// Waits until this process hears the bus, for at most `patience`: what the process before tells is of
    /// use only then. Nobody waits where that is of no use in any case.
    pub async fn await_bus(&self, patience: Duration) {
        if !self.cache.outlives_this_node() {
            return;
        }
        let heard = async {
            loop {
                let mut came_up = std::pin::pin!(self.came_up.notified());
                came_up.as_mut().enable();
                if self.standing().hears || !self.doubts.await_what_was_heard() {
                    return;
                }
                came_up.await;
            }
        };
        // Without it, what this process begins with stays in doubt.
        let _ = tokio::time::timeout(patience, heard).await;
    }

    /// This life of the node, if it hears the bus and can make use of what the process before has
    /// heard.
    pub fn life_to_tell(&self) -> Option<NodeLife> {
        let is_of_use = self.standing().hears && self.doubts.await_what_was_heard();
        let own = &self.outbox.identity;
        is_of_use.then(|| NodeLife {
            source: own.source.clone(),
            boot: own.boot,
        })
    }

    /// How often purges may have been missed so far.
    pub fn doubts_so_far(&self) -> DoubtCount {
        self.doubts.so_far()
    }

    /// Waits until that life was heard on the bus after it had begun to hear it, for at most
    /// `patience`.
    pub async fn await_successor(&self, taker: &NodeLife, patience: Duration) {
        let heard = async {
            loop {
                let mut heard_asking = std::pin::pin!(self.heard_asking.notified());
                heard_asking.as_mut().enable();
                if !self.can_be_inherited() || self.nodes.lock().has_asked(taker) {
                    return;
                }
                heard_asking.await;
            }
        };
        // Without it, nothing is told.
        let _ = tokio::time::timeout(patience, heard).await;
    }

    /// The publishers, and how many purges of each were applied here, for the process that takes the
    /// place of this one.
    ///
    /// # Errors
    /// Why purges may have been missed since that count.
    pub fn heard_since(
        &self,
        count: DoubtCount,
        taker: &NodeLife,
    ) -> Result<Vec<HeardPublisher>, &'static str> {
        let now = Instant::now();
        let nodes = self.nodes.lock();
        if let Some(why) = self.may_have_missed(count, taker, &nodes) {
            return Err(why);
        }
        let mut heard = nodes.heard();
        let own = &self.outbox.identity;
        heard.retain(|(source, boot, _)| (source, *boot) != (&own.source, own.boot));
        heard.push((own.source.clone(), own.boot, self.outbox.last_number()));
        let orders = self.orders.lock();
        let heard = heard.into_iter().map(|(source, boot, purges)| {
            let is_recent = orders.is_recent(&source, boot, now);
            HeardPublisher {
                source,
                boot,
                purges,
                is_recent,
            }
        });
        Ok(heard.collect())
    }

    fn may_have_missed(
        &self,
        count: DoubtCount,
        taker: &NodeLife,
        nodes: &NodeTable,
    ) -> Option<&'static str> {
        if !self.can_be_inherited() {
            return Some("this bus, its seals or a second tier do not allow it");
        }
        if !self.standing().hears {
            return Some("this process does not hear the bus");
        }
        if !nodes.has_asked(taker) {
            return Some("this process did not hear the new one on the bus");
        }
        // Before they are counted: one that waited is counted before it ceases to wait.
        if self.doubts.are_open() || self.doubts.are_delayed() || self.doubts.so_far() != count {
            return Some("this process may have missed purges itself");
        }
        None
    }

    /// Takes part in what the process before has heard, which has told what it has purged. None: it
    /// may have missed something. Returns whether what this process begins with is certain.
    pub fn inherit(&self, heard: Option<Vec<HeardPublisher>>) -> bool {
        let now = Instant::now();
        let own = &self.outbox.identity;
        // Held until it is settled: the first word of a node is either compared, or opens a doubt.
        let mut nodes = self.nodes.lock();
        let heard = heard.filter(|_| self.standing().hears);
        let is_whole = heard.is_some_and(|mut heard| {
            // What the process before has heard of this one.
            heard.retain(|of| (&of.source, of.boot) != (&own.source, own.boot));
            // First, so that no value is taken that has not heard of these purges.
            let (mut orders, order) = (self.orders.lock(), self.cache.order());
            for of in &heard {
                orders.begin_at(of, order, now);
            }
            drop(orders);
            nodes.inherit(&heard, now)
        });
        self.doubts.settle(is_whole)
    }
}
