//! How the cache purges: in its own log, in the second tier's, and for other nodes and processes.

use tokio::sync::oneshot;

use super::Cache;
use crate::event::{CacheEvent, PurgeSelectorKind};
use crate::key::PurgeHash;
use crate::l2::store::LogNumber;
use crate::purge::{
    LocalPresence, PurgeInitiator, PurgeKind, PurgeOrder, PurgeStatement, Selector,
};
use crate::successor::purged;

impl Cache {
    /// Purges what `selector` reaches. When this returns, the purge is in force for entries, stale
    /// copies, variants and loads that are under way.
    pub fn purge(&self, selector: &Selector, kind: PurgeKind) -> PurgeOrder {
        self.purge_everywhere(selector, kind).0
    }

    /// Like [`purge`](Self::purge). With a second tier, the receiver gets the number of the purge
    /// when the store's purge log has taken it.
    pub fn purge_everywhere(
        &self,
        selector: &Selector,
        kind: PurgeKind,
    ) -> (PurgeOrder, Option<oneshot::Receiver<LogNumber>>) {
        let peers = self.peers.get();
        if let Some(peers) = peers {
            peers.purging();
        }
        let (order, told) = self.purge_untold(selector, kind);
        if let Some(peers) = peers {
            peers.purged(PurgeInitiator::Operator, selector, kind, order);
        }
        (order, told)
    }

    /// Like [`purge`](Self::purge), for a rule of the configuration that purges because a client's
    /// request was answered. These purges have bounds of their own, apart from those of operators.
    pub fn purge_by_request(&self, selector: &Selector, kind: PurgeKind) {
        let peers = self.peers.get();
        if let Some(peers) = peers {
            peers.purging();
        }
        let order = match &self.second_tier {
            Some(tier) => tier.purge_by(PurgeInitiator::Request, selector, kind).0,
            None => self.log.record_by(PurgeInitiator::Request, selector, kind),
        };
        // First, so that what is counted for peers is among what the next process is told.
        self.tell(|| purged(PurgeInitiator::Request, selector), kind);
        if let Some(peers) = peers {
            peers.purged(PurgeInitiator::Request, selector, kind, order);
        }
        self.hooks.emit(CacheEvent::Purge(reach(selector)));
    }

    /// Hides what a request made invalid (RFC 9111 §4.4, RFC 9875): whatever has one of these
    /// numbers, which stand for URLs or groups. It takes effect like a purge but leaves no record.
    pub fn invalidate(&self, numbers: &[PurgeHash]) {
        if numbers.is_empty() {
            return;
        }
        let peers = self.peers.get();
        if let Some(peers) = peers {
            peers.purging();
        }
        let (order, held) = self.log.invalidate(numbers);
        if let Some(tier) = &self.second_tier {
            tier.invalidate(numbers);
        }
        // First, as above.
        let told = || PurgeStatement::Invalidated(numbers.to_vec());
        self.tell(told, PurgeKind::Hard);
        if let Some(peers) = peers {
            peers.invalidated(numbers, order);
        }
        let held = held.iter().filter(|held| **held == LocalPresence::Held);
        held.for_each(|_| self.hooks.emit(CacheEvent::Invalidated));
    }

    /// Like [`purge_everywhere`](Self::purge_everywhere), for a caller that informs the peers
    /// itself.
    pub fn purge_untold(
        &self,
        selector: &Selector,
        kind: PurgeKind,
    ) -> (PurgeOrder, Option<oneshot::Receiver<LogNumber>>) {
        let (order, told) = match &self.second_tier {
            Some(tier) => {
                let (order, told) = tier.purge(selector, kind);
                (order, Some(told))
            }
            None => (self.log.record(selector, kind), None),
        };
        self.tell(|| purged(PurgeInitiator::Operator, selector), kind);
        self.hooks.emit(CacheEvent::Purge(reach(selector)));
        (order, told)
    }
}

/// The kind of a selector, for events.
pub(super) fn reach(selector: &Selector) -> PurgeSelectorKind {
    match selector {
        Selector::Key(_) => PurgeSelectorKind::Key,
        Selector::Url(_) => PurgeSelectorKind::Url,
        Selector::Prefix(_) => PurgeSelectorKind::Prefix,
        Selector::Pattern(_) => PurgeSelectorKind::Pattern,
        Selector::Tag(_) => PurgeSelectorKind::Tag,
        Selector::Group(_) => PurgeSelectorKind::Group,
        Selector::Route(_) => PurgeSelectorKind::Route,
        Selector::All => PurgeSelectorKind::All,
    }
}
