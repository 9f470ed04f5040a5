//! What another process must hear of that has taken the place of this one: what this one purges
//! while it still answers on its open connections.
//!
//! From the moment on at which the cache is written down for the other process, its purges are
//! kept here, and that process is given them before it serves ([`SuccessorPurges::kept`]). Nobody
//! waits for that, since until then this process answers from its cache.
//!
//! Later each purge waits here, numbered, until whoever talks to the other process has taken it and says
//! that it holds there. Who answers a client waits for that, so that a page which the client has
//! changed is never served from the other cache after the answer.
//!
//! Bounded: when too much waits, the other process is told to validate all that it has.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Cache;
use super::purge::{DoubtDuration, PurgeInitiator, PurgeKind, PurgeStatement, Selector};

/// The most purges that wait.
const MOST: usize = 4_096;

/// In place of the number up to which the other process has heard, while nobody waits for it.
const EARLY: u64 = u64::MAX;

/// The longest time that an answer waits until the other process has heard.
const PATIENCE: Duration = Duration::from_secs(5);

/// Purges that the next process is to hear of.
pub struct SuccessorPurges {
    queue: Mutex<SuccessorQueue>,
    /// Something was put into the queue, or it was closed.
    changed: Condvar,
    /// The number up to which the other process has heard, [`EARLY`] while it does not serve yet;
    /// none once nobody tells it any more.
    heard: watch::Sender<Option<u64>>,
}

#[derive(Default)]
struct SuccessorQueue {
    waiting: VecDeque<SuccessorPurge>,
    /// The number of the last one that was put in.
    last: u64,
    is_closed: bool,
}

/// A purge that the next process is to hear of.
pub struct SuccessorPurge {
    pub number: u64,
    pub statement: PurgeStatement,
    pub kind: PurgeKind,
    pub author: PredecessorPurgeAuthor,
}

/// Who told the process before of a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PredecessorPurgeAuthor {
    /// One of its clients, or an operator: other nodes are to hear of it.
    Client,
    /// Another node, which has told all nodes.
    Peer,
}

/// Whether the next process knows of a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuccessorKnowledge {
    /// It does, or there is no such process.
    Knows,
    /// It has not said so in time, or can't be told.
    Unknown,
}

impl Default for SuccessorPurges {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            changed: Condvar::new(),
            heard: watch::Sender::new(Some(EARLY)),
        }
    }
}

impl SuccessorPurges {
    /// Returns what was purged since the cache was written down. From now on whoever answers a client waits
    /// until the next process has heard of the purge.
    pub fn kept(&self) -> Vec<SuccessorPurge> {
        let mut queue = self.queue.lock();
        self.heard.send_replace(Some(queue.last));
        queue.waiting.drain(..).collect()
    }

    /// The next purge to tell. It blocks until there is one. None: there will be no more.
    pub fn next(&self) -> Option<SuccessorPurge> {
        let mut queue = self.queue.lock();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(purge) = queue.waiting.pop_front() {
                return Some(purge);
            }
            self.changed.wait(&mut queue);
        }
    }

    /// The next process has said that this purge, and all before it, hold there.
    pub fn confirm(&self, number: u64) {
        self.heard.send_if_modified(|heard| match heard {
            Some(before) if *before < number => {
                *before = number;
                true
            }
            _ => false,
        });
    }

    /// Nobody tells the next process any more: whoever waits is let go.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        queue.waiting.clear();
        self.heard.send_replace(None);
        self.changed.notify_all();
    }

    fn tell(&self, statement: PurgeStatement, kind: PurgeKind, author: PredecessorPurgeAuthor) {
        let mut queue = self.queue.lock();
        queue.last += 1;
        if queue.is_closed {
            return;
        }
        let mut purge = SuccessorPurge {
            number: queue.last,
            statement,
            kind,
            author,
        };
        if queue.waiting.len() >= MOST {
            queue.waiting.clear();
            purge.statement = PurgeStatement::Doubt;
        }
        queue.waiting.push_back(purge);
        self.changed.notify_all();
    }

    async fn knowledge(&self) -> SuccessorKnowledge {
        let last = self.queue.lock().last;
        let mut heard = self.heard.subscribe();
        let known = heard.wait_for(|heard| heard.is_none_or(|heard| heard >= last));
        match timeout(PATIENCE, known).await {
            Ok(Ok(heard)) if heard.is_some() || last == 0 => SuccessorKnowledge::Knows,
            _ => SuccessorKnowledge::Unknown,
        }
    }
}

impl Cache {
    /// From now on these hear of each purge, also of those that requests cause; or nobody does.
    pub fn tell_successor(&self, purges: Option<std::sync::Arc<SuccessorPurges>>) {
        self.successor.store(purges);
    }

    /// Waits until the process that takes the place of this one knows of all that was purged here.
    pub async fn successor_knows(&self) -> SuccessorKnowledge {
        let successor = self.successor.load_full();
        match successor {
            None => SuccessorKnowledge::Knows,
            Some(successor) => successor.knowledge().await,
        }
    }

    pub(super) fn tell(&self, statement: impl FnOnce() -> PurgeStatement, kind: PurgeKind) {
        if let Some(successor) = &*self.successor.load() {
            successor.tell(statement(), kind, PredecessorPurgeAuthor::Client);
        }
    }

    /// Lets the process that takes the place of this one know what another node has purged: where
    /// nodes have a queue each on the bus, only one of both processes hears it there.
    pub fn pass_on_to_successor(&self, statement: &PurgeStatement, kind: PurgeKind) {
        if let Some(successor) = &*self.successor.load() {
            successor.tell(statement.clone(), kind, PredecessorPurgeAuthor::Peer);
        }
    }

    /// Purges what the process before has purged on its last connections. Needs a tokio runtime.
    pub fn purge_as_predecessor(
        &self,
        statement: PurgeStatement,
        kind: PurgeKind,
        author: PredecessorPurgeAuthor,
    ) {
        if author == PredecessorPurgeAuthor::Peer {
            self.apply_of_peer(statement, kind);
            return;
        }
        match statement {
            PurgeStatement::Purged(PurgeInitiator::Operator, selector) => {
                self.purge(&selector, kind);
            }
            PurgeStatement::Purged(PurgeInitiator::Request, selector) => {
                self.purge_by_request(&selector, kind);
            }
            PurgeStatement::Invalidated(numbers) => self.invalidate(&numbers),
            PurgeStatement::Doubt => {
                self.doubt(DoubtDuration::ForGood);
            }
        }
    }
}

/// The statement that this selector was purged.
pub(super) fn purged(author: PurgeInitiator, selector: &Selector) -> PurgeStatement {
    PurgeStatement::Purged(author, selector.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const BY_CLIENT: PredecessorPurgeAuthor = PredecessorPurgeAuthor::Client;

    fn tag() -> PurgeStatement {
        purged(PurgeInitiator::Operator, &Selector::Tag("x".to_owned()))
    }

    #[tokio::test]
    async fn what_was_told_is_known_when_it_was_confirmed() {
        let purges = SuccessorPurges::default();
        assert_eq!(purges.knowledge().await, SuccessorKnowledge::Knows);
        purges.tell(tag(), PurgeKind::Hard, BY_CLIENT);
        assert_eq!(purges.knowledge().await, SuccessorKnowledge::Knows);
        assert_eq!(purges.kept().len(), 1, "it is given these before it serves");
        assert_eq!(purges.knowledge().await, SuccessorKnowledge::Knows);
        purges.tell(tag(), PurgeKind::Hard, BY_CLIENT);
        purges.tell(tag(), PurgeKind::Soft, BY_CLIENT);
        let first = purges.next().unwrap();
        let second = purges.next().unwrap();
        assert_eq!(second.kind, PurgeKind::Soft);
        purges.confirm(first.number);
        let knowledge = timeout(Duration::from_millis(20), purges.knowledge());
        assert!(knowledge.await.is_err(), "the second is not confirmed");
        purges.confirm(second.number);
        assert_eq!(purges.knowledge().await, SuccessorKnowledge::Knows);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_process_that_is_told_nothing() {
        let purges = Arc::new(SuccessorPurges::default());
        assert!(purges.kept().is_empty());
        purges.tell(tag(), PurgeKind::Hard, BY_CLIENT);
        let waiting = Arc::clone(&purges);
        let waiting = tokio::spawn(async move { waiting.knowledge().await });
        purges.close();
        assert_eq!(waiting.await.unwrap(), SuccessorKnowledge::Unknown);
        purges.tell(tag(), PurgeKind::Hard, BY_CLIENT);
        assert_eq!(purges.knowledge().await, SuccessorKnowledge::Unknown);
        assert!(purges.next().is_none());
    }

    #[test]
    fn too_many_become_a_doubt() {
        let purges = SuccessorPurges::default();
        for _ in 0..=MOST {
            purges.tell(tag(), PurgeKind::Hard, BY_CLIENT);
        }
        let only = purges.next().unwrap();
        assert!(matches!(only.statement, PurgeStatement::Doubt));
        assert_eq!(only.number, MOST as u64 + 1);
    }
}
