//! Purges that a caller waits for: which nodes have answered that they applied it, and when.
//!
//! Invariant: all times are measured on our own clock, from the purge to the answer; the clocks of
//! two nodes are never compared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bus::event::PublisherNumber;
use crate::cache::purge::PurgeOrder;

/// The answers that are awaited, by the purge's event id.
#[derive(Default)]
pub struct PurgeReceipts {
    open: Mutex<HashMap<String, Arc<PendingReceipt>>>,
}

struct PendingReceipt {
    began: Instant,
    /// The number with which the purge was published; 0 while it waits.
    number: AtomicU64,
    /// The nodes whose answers count; answers of others take no memory here.
    nodes: Vec<String>,
    answers: Mutex<HashMap<String, NodeReceipt>>,
    changed: Notify,
}

/// A node's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeReceipt {
    /// The place in the order of the node that applied it.
    pub order: PurgeOrder,
    /// The time from the purge to the answer.
    pub after: Duration,
}

/// Waits for the answers to one purge, until it is dropped.
pub struct AwaitedReceipts<'a> {
    receipts: &'a PurgeReceipts,
    id: String,
    open: Arc<PendingReceipt>,
}

impl PurgeReceipts {
    /// Begins to wait for the answers of these nodes.
    pub fn open(&self, id: String, nodes: &[String]) -> AwaitedReceipts<'_> {
        let open = Arc::new(PendingReceipt {
            began: Instant::now(),
            number: AtomicU64::new(0),
            nodes: nodes.to_vec(),
            answers: Mutex::default(),
            changed: Notify::new(),
        });
        self.open.lock().insert(id.clone(), Arc::clone(&open));
        AwaitedReceipts {
            receipts: self,
            id,
            open,
        }
    }

    /// The purge is published with this number.
    pub fn numbered(&self, id: &str, number: PublisherNumber) {
        if let Some(open) = self.open.lock().get(id) {
            open.number.store(number.value(), Ordering::Release);
        }
    }

    /// Called when a node has answered that it applied the purge.
    pub fn answered(&self, id: &str, node: &str, order: PurgeOrder) {
        let Some(open) = self.open.lock().get(id).cloned() else {
            return;
        };
        if !open.nodes.iter().any(|awaited| awaited == node) {
            return;
        }
        let after = open.began.elapsed();
        let answer = NodeReceipt { order, after };
        open.answers.lock().entry(node.to_owned()).or_insert(answer);
        open.changed.notify_waiters();
    }
}

impl AwaitedReceipts<'_> {
    /// The number with which the purge was published; none while it waits.
    pub fn number(&self) -> Option<PublisherNumber> {
        let number = self.open.number.load(Ordering::Acquire);
        (number > 0).then_some(PublisherNumber::new(number))
    }

    /// Waits until all nodes have answered, for at most `patience`. Returns the answers that came.
    pub async fn all(&self, patience: Duration) -> HashMap<String, NodeReceipt> {
        let complete = async {
            loop {
                // Registered before the check, so that no answer is missed.
                let changed = self.open.changed.notified();
                if self.is_complete() {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(patience, complete).await;
        self.open.answers.lock().clone()
    }

    fn is_complete(&self) -> bool {
        let answers = self.open.answers.lock();
        let mut nodes = self.open.nodes.iter();
        nodes.all(|node| answers.contains_key(node))
    }
}

impl Drop for AwaitedReceipts<'_> {
    fn drop(&mut self) {
        self.receipts.open.lock().remove(&self.id);
    }
}
