//! What a process knows of the other nodes, for the process that takes its place on this node.
//!
//! A process that joins the others has missed all that was purged before, so what it begins with is
//! in doubt. One that takes the place of another one has missed nothing if that one has heard every
//! purge until it was itself heard by the bus: what the other one held is judged by what it has
//! heard, and what it has purged since is told. So the doubts of joining end when it is known
//! that of each publisher every purge came to one of the two processes ([`Cluster::inherit`]). From then
//! on a purge that neither of them has heard is missed as by any node: its number is.
//!
//! Only where the bus delivers at most once, and there is no second tier: a durable bus keeps what
//! is meant for either process, and a second tier has what nobody has judged.

use std::time::{Duration, Instant};

use super::orders::HeardPurges;
use super::{Cluster, Guarantee};

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

impl Cluster {
    /// Whether what was missed can be known by what another process of this node has heard.
    pub(super) fn can_be_inherited(&self) -> bool {
        let guarantee = self.transport.guarantee();
        self.rules.listens
            && guarantee == Guarantee::AtMostOnce
            && self.cache.second_tier().is_none()
    }

    /// Waits until this process hears the bus, for at most `patience`: what the process before tells is of
    /// use only then. Nobody waits where that is of no use in any case.
    pub async fn await_bus(&self, patience: Duration) {
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

    /// How often purges may have been missed so far.
    pub fn doubts_so_far(&self) -> DoubtCount {
        self.doubts.so_far()
    }

    /// The publishers, and how many purges of each were applied here, for the process that takes the
    /// place of this one. None: purges may have been missed since that count.
    pub fn heard_since(&self, count: DoubtCount) -> Option<HeardPurges> {
        let mut heard = self.nodes.lock().heard();
        let own = &self.outbox.identity;
        heard.retain(|(source, boot, _)| (source, *boot) != (&own.source, own.boot));
        heard.push((own.source.clone(), own.boot, self.outbox.last_number()));
        let is_whole = self.can_be_inherited()
            && self.standing().hears
            && !self.doubts.are_open()
            && !self.doubts.are_to_come()
            && self.doubts.so_far() == count;
        is_whole.then_some(heard)
    }

    /// Takes part in what the process before has heard, which has told what it has purged. None: it
    /// may have missed something. Returns whether what this process begins with is certain.
    pub fn inherit(&self, heard: Option<HeardPurges>) -> bool {
        let now = Instant::now();
        let own = &self.outbox.identity;
        let heard = heard.filter(|_| self.standing().hears);
        let is_whole = heard.is_some_and(|mut heard| {
            // What the process before has heard of this one.
            heard.retain(|(source, boot, _)| (source, *boot) != (&own.source, own.boot));
            // First, so that no value is taken that has not heard of these purges.
            let mut orders = self.orders.lock();
            for (source, boot, number) in &heard {
                orders.begin_at(source, *boot, *number, now);
            }
            drop(orders);
            self.nodes.lock().inherit(&heard, now)
        });
        self.doubts.settle(is_whole)
    }
}
