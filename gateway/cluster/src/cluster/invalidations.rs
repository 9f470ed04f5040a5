//! What requests invalidated here, published to the other nodes in few events.
//!
//! The first invalidation is published at once; those of the next moment are published together, so
//! that requests for ever new URLs cost the bus a fixed number of events a second and 16 bytes
//! each. This node does not know whether another node holds a URL, so none is left out. Only one
//! event at a time waits in the outbox, and there it displaces nothing of an operator's. When too
//! many numbers wait behind it, the other nodes are told to validate what they have.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};

use crate::bus::event::{EventShape, MAX_TEXT};
use crate::bus::outbox::{Outbox, QueuedPurge, QueuedPurgeAuthor};
use crate::cache::key::PurgeHash;
use crate::cache::purge::{PurgeOrder, PurgeStatement, length_of_invalidated};

/// The most numbers that wait.
const WAITING: usize = 65_536;
/// The most numbers in one event, and the least where the broker takes only small messages.
const MOST: usize = 4_000;
const LEAST: usize = 16;
const _: () = assert!(length_of_invalidated(MOST) <= MAX_TEXT);
/// An upper bound of the bytes of an event besides the numbers, with a long name of its node.
const EVENT: usize = 1_024;
/// The time between two events.
const PACE: Duration = Duration::from_millis(50);

/// What waits to be published.
pub struct InvalidationBatcher {
    state: Mutex<PendingInvalidations>,
    waiting: IntGauge,
    doubts: IntCounter,
}

#[derive(Default)]
struct PendingInvalidations {
    numbers: HashSet<PurgeHash, foldhash::fast::RandomState>,
    /// The latest place of theirs in our order.
    order: PurgeOrder,
    /// How many purges of our own have begun for them (`PublisherOrders::begin_own`) and are not in
    /// an event yet.
    promised: u64,
    /// A task is publishing what is here.
    is_telling: bool,
    /// An event of ours waits in the outbox and has no number yet.
    in_outbox: bool,
}

impl InvalidationBatcher {
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let waiting = IntGauge::new(
            "lamina_bus_invalidations_waiting",
            "URLs and groups that unsafe requests made invalid and that are not yet published to \
             the other nodes.",
        )?;
        let doubts = IntCounter::new(
            "lamina_bus_invalidations_doubted_total",
            "Times that too many invalidations waited for the bus, so that the other nodes were \
             told to validate all their entries.",
        )?;
        registry.register(Box::new(waiting.clone()))?;
        registry.register(Box::new(doubts.clone()))?;
        Ok(Self {
            state: Mutex::default(),
            waiting,
            doubts,
        })
    }

    /// Publishes these numbers to the other nodes, in the background. Needs a tokio runtime.
    pub fn tell(self: &Arc<Self>, outbox: &Arc<Outbox>, numbers: &[PurgeHash], order: PurgeOrder) {
        let mut state = self.state.lock();
        state.order = state.order.max(order);
        state.promised += 1;
        if state.numbers.len() + numbers.len() > WAITING {
            self.doubts.inc();
            outbox.purge(state.doubt());
        } else {
            state.numbers.extend(numbers);
        }
        self.waiting.set(state.numbers.len() as i64);
        if !state.is_telling {
            state.is_telling = true;
            drop(state);
            tokio::spawn(Arc::clone(self).tell_all(Arc::clone(outbox)));
        }
    }

    /// Called when a purge got its number; it may be an event of ours.
    pub fn numbered(&self, purge: &QueuedPurge) {
        if matches!(purge.selector.parse(), Ok(PurgeStatement::Invalidated(_))) {
            self.state.lock().in_outbox = false;
        }
    }

    async fn tell_all(self: Arc<Self>, outbox: Arc<Outbox>) {
        loop {
            {
                let mut state = self.state.lock();
                if state.numbers.is_empty() {
                    state.is_telling = false;
                    return;
                }
                if !state.in_outbox {
                    let purge = state.some(most(outbox.max_message_bytes()));
                    self.waiting.set(state.numbers.len() as i64);
                    outbox.purge(purge);
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// How many numbers fit into an event of `bytes` bytes.
fn most(bytes: usize) -> usize {
    let one = length_of_invalidated(1) - length_of_invalidated(0);
    (bytes.saturating_sub(EVENT) / one).clamp(LEAST, MOST)
}

impl PendingInvalidations {
    /// Makes an event of as many numbers as fit.
    fn some(&mut self, most: usize) -> QueuedPurge {
        let first: Vec<PurgeHash> = self.numbers.iter().take(most).copied().collect();
        for number in &first {
            self.numbers.remove(number);
        }
        self.in_outbox = true;
        self.event(&PurgeStatement::Invalidated(first))
    }

    /// Makes one event in place of all numbers: everything is to be validated.
    fn doubt(&mut self) -> QueuedPurge {
        self.numbers.clear();
        self.event(&PurgeStatement::Doubt)
    }

    fn event(&mut self, statement: &PurgeStatement) -> QueuedPurge {
        // While numbers stay, one of these purges stays begun.
        let kept = match self.numbers.is_empty() {
            true => 0,
            false => self.promised.min(1),
        };
        let count = self.promised - kept;
        self.promised = kept;
        QueuedPurge {
            selector: statement.to_string(),
            soft: false,
            author: QueuedPurgeAuthor::Request,
            shape: EventShape::inert(),
            order: self.order.value(),
            count,
            receipt: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_one_event_keeps_the_promise_open() {
        let mut state = PendingInvalidations {
            numbers: (0..MOST as u64 + 1).collect(),
            promised: 7,
            order: PurgeOrder::new(9),
            ..PendingInvalidations::default()
        };
        let first = state.some(MOST);
        assert_eq!((first.count, first.order, state.numbers.len()), (6, 9, 1));
        assert!(first.selector.len() <= MAX_TEXT);
        let second = state.some(MOST);
        assert_eq!((second.count, state.promised), (1, 0));
    }
}
