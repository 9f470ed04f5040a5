//! What the cache exchanges with other nodes: it informs them ([`PeerNotifier`]), and it accepts
//! what they purged, what they loaded, and the notice that something may have been missed.
//!
//! Invariant: a purge of a peer is not passed on again, and is not written to a log that the peer
//! has written to itself. Invariant: a value of a peer is judged like every entry. It is shown only
//! if a load of our own that began at `born` would be shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Cache;
use super::entry::Entry;
use super::event::CacheEvent;
use super::key::{EntryKey, KeyBuf, KeyId, PurgeHash};
use super::l2::store::LogPlace;
use super::l2::{StoreHealth, convert};
use super::purge::{
    DoubtDuration, EntryVisibility, PurgeInitiator, PurgeKind, PurgeOrder, PurgeStatement, Selector,
};
use super::purging::reach;
use super::record::{self, ClockReading, CorruptRecord, ResponseRecord, StoreRecord};
use crate::http::vary::Vary;
use bytes::Bytes;

/// Receives what other nodes should know. It never blocks and costs very little, because it is
/// called on the path of requests.
pub trait PeerNotifier: Send + Sync {
    /// Something is about to be purged here; [`purged`](Self::purged) follows. From now on a peer's
    /// value must not be ordered after this purge.
    fn purging(&self);
    /// This was purged here, at this place in our own order.
    fn purged(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
        order: PurgeOrder,
    );
    /// A request invalidated whatever has these numbers, which stand for URLs or groups.
    fn invalidated(&self, numbers: &[PurgeHash], order: PurgeOrder);
    /// This was loaded here and stored.
    fn loaded(&self, primary: &EntryKey, entry: &Arc<Entry>);
}

/// A value to send to peers, or one received from them.
pub struct PeerEntry {
    pub key: Bytes,
    /// The key without its variant.
    pub primary: Bytes,
    pub stored: ResponseRecord,
}

/// The outcome of taking in a peer's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerValueOutcome {
    Stored,
    /// Purges hide it, or this node has not yet read the shared log that far.
    Overtaken,
    /// Nobody asked for it here recently.
    Unwanted,
}

/// The longest time that a value of a peer is kept here without a request to its origin.
const MAX_LIFE: Duration = Duration::from_secs(86_400);

/// A younger entry is not marked stale because a peer's value differs. If every response of an
/// origin differs, the nodes would otherwise reload it in turn for ever.
const SETTLED: Duration = Duration::from_secs(5);

impl Cache {
    /// Informs `peers` from now on. It can be called once.
    pub fn announce_to(&self, peers: Arc<dyn PeerNotifier>) {
        if let Some(tier) = self.second_tier().filter(|tier| tier.is_shared()) {
            // A peer that heard of the invalidation before the store had noted it may have found
            // the record there.
            let (peers, log) = (Arc::downgrade(&peers), Arc::clone(&self.log));
            tier.on_noted(Box::new(move |numbers| {
                if let Some(peers) = peers.upgrade() {
                    peers.purging();
                    peers.invalidated(numbers, log.order());
                }
            }));
        }
        let _ = self.peers.set(peers);
    }

    /// Whether the second tier or a snapshot holds what an earlier process of this node stored. It
    /// may have missed purges in the meantime, and that process may have heard purges that it did
    /// not note there. A second tier that nodes share has its own log of purges.
    pub fn outlives_this_node(&self) -> bool {
        match self.second_tier() {
            Some(tier) => !tier.is_shared(),
            None => self.has_snapshot.load(std::sync::atomic::Ordering::Acquire),
        }
    }

    /// Whether all nodes follow one purge log.
    pub fn shares_log(&self) -> bool {
        self.second_tier().is_some_and(|tier| tier.is_shared())
    }

    /// The health of the second tier for purges; whole if there is no second tier.
    pub fn reach(&self) -> StoreHealth {
        self.second_tier()
            .map_or(StoreHealth::Whole, |tier| tier.reach())
    }

    /// The kind of the second tier's store; none if there is no second tier.
    pub fn second_tier_kind(&self) -> Option<&'static str> {
        self.second_tier().map(|tier| tier.kind())
    }

    /// The number of purges that are in force here but not yet in the second tier's log.
    pub fn purges_waiting_for_second_tier(&self) -> usize {
        self.second_tier().map_or(0, |tier| tier.purges_waiting())
    }

    /// The generation of the purge log that all nodes follow, if there is one and it was read.
    pub fn shared_generation(&self) -> Option<u64> {
        let tier = self.second_tier().filter(|tier| tier.is_shared())?;
        tier.generation()
    }

    /// The place in our own order at which a peer's value was born. None: the nodes do not follow
    /// one log, or this node has not read it that far.
    pub fn born_in_log(&self, stored: &ResponseRecord) -> Option<PurgeOrder> {
        let tier = self.second_tier().filter(|tier| tier.is_shared())?;
        tier.order_of(stored.generation, stored.born)
    }

    /// Applies what a peer has purged. Returns its place in our own order.
    pub fn apply_of_peer(&self, statement: PurgeStatement, kind: PurgeKind) -> PurgeOrder {
        match statement {
            PurgeStatement::Purged(author, selector) => self.purge_of_peer(author, &selector, kind),
            PurgeStatement::Invalidated(numbers) => self.invalidated_by_peer(&numbers),
            PurgeStatement::Doubt => self.doubt(DoubtDuration::ForGood),
        }
    }

    /// Records a purge of a peer. If all nodes follow one log, the peer's purge gets its number
    /// there; until this node reads it, a local step of our own order hides what it reaches.
    pub fn purge_of_peer(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
    ) -> PurgeOrder {
        let order = match self.second_tier().filter(|tier| !tier.is_shared()) {
            Some(tier) => tier.purge_by(author, selector, kind).0,
            None => self.log.record_by(author, selector, kind),
        };
        self.hooks.emit(CacheEvent::Purge(reach(selector)));
        order
    }

    /// Hides what a request to a peer made invalid. A store that all nodes share has already been
    /// informed by the peer.
    pub fn invalidated_by_peer(&self, numbers: &[PurgeHash]) -> PurgeOrder {
        let (order, _) = self.log.invalidate(numbers);
        if let Some(tier) = self.second_tier().filter(|tier| !tier.is_shared()) {
            tier.invalidate(numbers);
        }
        order
    }

    /// Reads what is new in the log that all nodes follow. False: there is none, or it does not
    /// answer.
    pub async fn catch_up(&self) -> bool {
        match self.second_tier().filter(|tier| tier.is_shared()) {
            Some(tier) => tier.catch_up().await,
            None => false,
        }
    }

    /// Notes that purges of peers may have been missed until now: what is stored must be validated
    /// before it is shown. Pass the result to [`trust`](Self::trust) once it is known what was
    /// missed.
    pub fn doubt(&self, lasts: DoubtDuration) -> PurgeOrder {
        let doubt = self.log.doubt(lasts);
        self.hooks.emit(CacheEvent::Gap);
        if let Some(tier) = self.second_tier().filter(|tier| !tier.is_shared()) {
            // Records of the second tier are ordered only by numbers of its own log. A purge that
            // reaches nothing gets such a number, which separates before and after.
            let told = tier.ask_for_number();
            let (log, tier) = (Arc::clone(&self.log), Arc::clone(tier));
            tokio::spawn(async move {
                if let Ok(number) = told.await {
                    log.move_doubt(doubt, tier.order_at(number));
                }
            });
        }
        doubt
    }

    /// Clears a doubt.
    pub fn trust(&self, doubt: PurgeOrder) {
        self.log.trust(doubt);
    }

    /// What peers need of an entry. None: it is of no use to them.
    pub fn value_of(
        &self,
        primary: &EntryKey,
        entry: &Entry,
        generation: u64,
    ) -> Option<PeerEntry> {
        let lifetime = entry.freshness.lifetime;
        let born = match generation {
            // Without a log that all nodes follow, its place in the order is sent in another way.
            0 => LogPlace::default(),
            _ => self.second_tier()?.place_of(entry.born)?,
        };
        if born.generation != generation {
            return None;
        }
        let stored = convert::stored(entry, lifetime, born, MAX_LIFE)?;
        Some(PeerEntry {
            key: Bytes::copy_from_slice(entry.key.as_bytes()),
            primary: Bytes::copy_from_slice(primary.as_bytes()),
            stored,
        })
    }

    /// Reads a peer's record for `key`, which took at most `transit` to get here.
    ///
    /// # Errors
    /// See [`CorruptRecord`].
    pub fn read_value(
        &self,
        key: Bytes,
        primary: Bytes,
        bytes: &Bytes,
        options: &record::RecordOptions,
        transit: Duration,
    ) -> Result<PeerEntry, CorruptRecord> {
        match record::decode(&key, bytes, &options.limits, &options.seal)? {
            StoreRecord::Entry(stored) => {
                let left = stored.life.saturating_sub(transit);
                let stored = stored.seen_at(ClockReading::now(), left)?;
                Ok(PeerEntry {
                    key,
                    primary,
                    stored,
                })
            }
            StoreRecord::Varies(_) => Err(CorruptRecord::Form),
        }
    }

    /// Stores a peer's value as if a load that began here at `born` had returned it.
    pub fn prime(
        &self,
        value: PeerEntry,
        born: PurgeOrder,
        resident_only: bool,
    ) -> PeerValueOutcome {
        let PeerEntry {
            key,
            primary,
            stored,
        } = value;
        let (key, primary) = (EntryKey::of(&key), EntryKey::of(&primary));
        if resident_only && !self.is_wanted(&key, &primary) {
            return PeerValueOutcome::Unwanted;
        }
        let vary = Vary::parse(&stored.headers);
        let entry = Arc::new(convert::entry(key, stored, born));
        self.log.hold(&entry);
        if self.log.judge(&entry) != EntryVisibility::Visible {
            return PeerValueOutcome::Overtaken;
        }
        let shown = |held: &Entry| self.is_sure(held);
        self.l1.put_older(primary, &vary, entry, shown);
        PeerValueOutcome::Stored
    }

    /// A peer loaded a value for this whole key and did not send it along. If a different value is
    /// held here, it is stale from now on. Returns whether one was.
    pub fn changed_elsewhere(&self, key: &[u8], likeness: PurgeHash) -> bool {
        let Some(entry) = self.l1.get(&EntryKey::of(key)) else {
            return false;
        };
        let outdated =
            entry.freshness.received.elapsed() >= SETTLED && entry.likeness() != likeness;
        if outdated {
            entry.mark(Some(Instant::now()));
        }
        outdated
    }

    /// Whether it is held here, or was asked for recently.
    fn is_wanted(&self, key: &EntryKey, primary: &EntryKey) -> bool {
        self.l1.get(key).is_some() || self.asked.contains_key(&primary.id().0)
    }

    /// Notes that a request asked for something that is not stored here.
    pub(super) fn note_asked(&self, primary: &KeyBuf) {
        if self.peers.get().is_some() {
            self.asked.insert(KeyId::of(primary.as_bytes()).0, ());
        }
    }
}
