//! What the cache has to do with other nodes: it tells them ([`PeerNotifier`]), and takes from
//! them what they purged, what they loaded, and that something may have been missed.
//!
//! Invariant: a purge of a peer is not told again, and does not go into a log that the
//! peer has written itself. Invariant: a value of a peer is judged like every entry; it is
//! shown only where a load of our own that began at `born` would be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::event::CacheEvent;
use super::key::{EntryKey, KeyBuf, KeyId, PurgeHash};
use super::l2::store::LogPlace;
use super::l2::{StoreHealth, convert};
use super::purge::{
    DoubtDuration, EntryVisibility, PurgeInitiator, PurgeKind, PurgeOrder, Selector,
};
use super::record::{self, ClockReading, CorruptRecord, ResponseRecord, StoreRecord};
use super::{Cache, reach};
use crate::http::vary::Vary;
use bytes::Bytes;

/// Told what other nodes should know. Never blocks, and costs next to nothing: it is
/// called on the path of requests.
pub trait PeerNotifier: Send + Sync {
    /// Something is about to be purged here; [`purged`](Self::purged) follows. From now on no
    /// value of a peer may be put after it.
    fn purging(&self);
    /// This was purged here, at this place in our order.
    fn purged(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
        order: PurgeOrder,
    );
    /// What bears these numbers, of URLs or groups, was invalidated here by a request.
    fn invalidated(&self, numbers: &[PurgeHash], order: PurgeOrder);
    /// This was loaded here and stored.
    fn loaded(&self, primary: &EntryKey, entry: &Arc<Entry>);
}

/// A value for peers, or one of theirs.
pub struct PeerEntry {
    pub key: Bytes,
    /// The key without its variant.
    pub primary: Bytes,
    pub stored: ResponseRecord,
}

/// What became of a peer's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerValueOutcome {
    Stored,
    /// Purges hide it, or the shared log does not know it yet.
    Overtaken,
    /// Nobody asked for it here lately.
    Unwanted,
}

/// A value lives here no longer than this without having been asked for at its origin.
const MAX_LIFE: Duration = Duration::from_secs(86_400);

/// A younger entry is not doubted because a peer's differs: an origin whose every answer
/// differs would have the nodes ask it in turns for ever.
const SETTLED: Duration = Duration::from_secs(5);

impl Cache {
    /// Has `peers` told from now on; once.
    pub fn announce_to(&self, peers: Arc<dyn PeerNotifier>) {
        if let Some(tier) = self.below().filter(|tier| tier.is_shared()) {
            // A peer that heard of it before the store had noted it may have found it there.
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

    /// Whether it holds what an earlier life of this node stored, which missed what was
    /// purged meanwhile, and what that life had heard and not yet noted there.
    pub fn outlives_this_node(&self) -> bool {
        self.below().is_some_and(|tier| !tier.is_shared())
    }

    /// Whether all nodes follow one purge log.
    pub fn shares_log(&self) -> bool {
        self.below().is_some_and(|tier| tier.is_shared())
    }

    /// How the second tier stands for purges; whole where there is none.
    pub fn reach(&self) -> StoreHealth {
        self.below().map_or(StoreHealth::Whole, |tier| tier.reach())
    }

    /// The kind of the second tier's store; none where there is none.
    pub fn kind_below(&self) -> Option<&'static str> {
        self.below().map(|tier| tier.kind())
    }

    /// Purges that hold here and that the second tier's log has not taken yet.
    pub fn purges_waiting_below(&self) -> usize {
        self.below().map_or(0, |tier| tier.purges_waiting())
    }

    /// The generation of the purge log that all nodes follow, if there is one and it was read.
    pub fn shared_generation(&self) -> Option<u64> {
        let tier = self.below().filter(|tier| tier.is_shared())?;
        tier.generation()
    }

    /// The order that a peer's value was born at, where all nodes follow one log and this
    /// one has read as far.
    pub fn born_in_log(&self, stored: &ResponseRecord) -> Option<PurgeOrder> {
        let tier = self.below().filter(|tier| tier.is_shared())?;
        tier.order_of(stored.generation, stored.born)
    }

    /// Forgets what a peer purged. With a log that all nodes follow, the peer's purge gets its
    /// number there; until it is read, a step of our own hides.
    pub fn purge_of_peer(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
    ) -> PurgeOrder {
        let order = match self.below().filter(|tier| !tier.is_shared()) {
            Some(tier) => tier.purge_by(author, selector, kind).0,
            None => self.log.record_by(author, selector, kind),
        };
        self.hooks.emit(CacheEvent::Purge(reach(selector)));
        order
    }

    /// Forgets what a request to a peer made invalid. What all nodes share has been told.
    pub fn invalidated_by_peer(&self, numbers: &[PurgeHash]) -> PurgeOrder {
        let (order, _) = self.log.invalidate(numbers);
        if let Some(tier) = self.below().filter(|tier| !tier.is_shared()) {
            tier.invalidate(numbers);
        }
        order
    }

    /// Reads what is new in the log that all nodes follow. False: it does not tell.
    pub async fn catch_up(&self) -> bool {
        match self.below().filter(|tier| tier.is_shared()) {
            Some(tier) => tier.catch_up().await,
            None => false,
        }
    }

    /// Says that purges of peers may have been missed until now: what is stored must be
    /// validated before it is shown. Hand the answer to [`trust`](Self::trust) once it is
    /// known what was missed.
    pub fn doubt(&self, lasts: DoubtDuration) -> PurgeOrder {
        let doubt = self.log.doubt(lasts);
        self.hooks.emit(CacheEvent::Gap);
        if let Some(tier) = self.below().filter(|tier| !tier.is_shared()) {
            // What is stored below counts in numbers of its own log alone: one that
            // reaches nothing tells before and after apart.
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

    /// What peers would need of an entry. None: it is of no use to them.
    pub fn value_of(
        &self,
        primary: &EntryKey,
        entry: &Entry,
        generation: u64,
    ) -> Option<PeerEntry> {
        let lifetime = entry.freshness.lifetime;
        let born = match generation {
            // Without a log that all nodes follow its place is told otherwise.
            0 => LogPlace::default(),
            _ => self.below()?.place_of(entry.born)?,
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

    /// Reads a peer's record for `key`, which took `transit` at most to get here.
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

    /// Takes a peer's value in as if a load that began here at `born` had brought it.
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

    /// A peer loaded a value for this whole key that is not sent along: what is held here and
    /// is another one is stale from now on. Whether there was one.
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

    /// Whether it is held here, or was asked for lately.
    fn is_wanted(&self, key: &EntryKey, primary: &EntryKey) -> bool {
        self.l1.get(key).is_some() || self.asked.contains_key(&primary.id().0)
    }

    /// Notes that somebody asked for what is not here.
    pub(super) fn note_asked(&self, primary: &KeyBuf) {
        if self.peers.get().is_some() {
            self.asked.insert(KeyId::of(primary.as_bytes()).0, ());
        }
    }
}
