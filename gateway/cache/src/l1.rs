//! The first tier, in the memory of the process: moka, bounded by bytes.
//!
//! moka's own clock enforces the *hard* end of an entry's life; freshness is part of the entry. A
//! key whose responses vary holds a list of the fields they vary by, and each variant has an entry
//! of its own under the longer key.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName};
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;

use crate::config;
use crate::encodings::EncodedForms;
use crate::entry::Entry;
use crate::freshness::FreshnessState;
use crate::http::vary::Vary;
use crate::key::{EntryKey, KeyBuf};

/// The first tier.
pub struct L1 {
    store: ArcSwap<L1Store>,
    on_evict: Arc<dyn Fn(RemovalCause) + Send + Sync>,
}

/// What is stored, with its bounds: moka can't change those of a cache.
struct L1Store {
    slots: Cache<EntryKey, L1Slot, foldhash::fast::RandomState>,
    bounds: L1Bounds,
    /// Bytes that were put since moka was last asked to evict for them.
    unsettled: AtomicU64,
    /// So many of them may be.
    most_unsettled: u64,
}

/// How much may be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct L1Bounds {
    bytes: u64,
    entries: Option<u64>,
}

/// What is stored under a key.
#[derive(Clone)]
enum L1Slot {
    Entry(Arc<Entry>),
    /// The field lists that responses for this key varied by, newest first.
    Varies(Arc<[VaryFieldNames]>),
}

type VaryFieldNames = Arc<[HeaderName]>;

/// What a look-up found.
pub enum L1Lookup {
    Entry(Arc<Entry>),
    /// The key varies and no variant fits. A load should use the key given here.
    NoVariant(EntryKey),
    Nothing,
}

/// How many different `Vary` lists are remembered for one key.
const VARY_LISTS: usize = 4;
/// How long a list is kept. Without it the variants cannot be found.
const VARY_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// The tier may be larger than allowed by this share, for a moment.
const UNSETTLED_SHARE: u64 = 32;

struct L1Expiry;

impl moka::Expiry<EntryKey, L1Slot> for L1Expiry {
    fn expire_after_create(&self, _: &EntryKey, slot: &L1Slot, now: Instant) -> Option<Duration> {
        Some(slot.life(now))
    }

    fn expire_after_update(
        &self,
        _: &EntryKey,
        slot: &L1Slot,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(slot.life(now))
    }
}

impl L1Slot {
    fn life(&self, now: Instant) -> Duration {
        match self {
            Self::Entry(entry) => entry.remaining_life(now),
            Self::Varies(_) => VARY_LIFE,
        }
    }

    fn size(&self, key: &EntryKey) -> usize {
        match self {
            Self::Entry(entry) => entry.size(),
            Self::Varies(lists) => {
                key.as_bytes().len()
                    + 200
                    + lists.iter().map(|fields| fields.len() * 40).sum::<usize>()
            }
        }
    }
}

impl L1Bounds {
    fn of(config: &config::L1Config) -> Self {
        Self {
            bytes: config.max_bytes.0,
            entries: config.max_entries,
        }
    }
}

impl L1Store {
    fn new(bounds: L1Bounds, on_evict: &Arc<dyn Fn(RemovalCause) + Send + Sync>) -> Self {
        // moka counts one number only. With a bound on entries as well, each entry weighs at least
        // its share of the bytes.
        let max = bounds.bytes;
        let least = bounds
            .entries
            .map_or(1, |entries| max.div_ceil(entries.max(1)));
        let on_evict = Arc::clone(on_evict);
        let slots = Cache::builder()
            .max_capacity(max)
            .weigher(move |key: &EntryKey, slot: &L1Slot| {
                u32::try_from((slot.size(key) as u64).max(least)).unwrap_or(u32::MAX)
            })
            .expire_after(L1Expiry)
            .eviction_listener(move |_, _, cause| on_evict(cause))
            .build_with_hasher(Default::default());
        Self {
            slots,
            bounds,
            unsettled: AtomicU64::new(0),
            most_unsettled: max / UNSETTLED_SHARE,
        }
    }

    /// Notes that bytes were put. moka by itself evicts only after 64 puts, or some time later,
    /// however large they are.
    fn settle(&self, bytes: usize) {
        let unsettled = self.unsettled.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        if unsettled > self.most_unsettled {
            self.tend();
        }
    }

    fn tend(&self) {
        self.unsettled.store(0, Relaxed);
        self.slots.run_pending_tasks();
    }

    /// The newest variant that fits (RFC 9111 §4.1).
    fn find_variant(
        &self,
        key: &KeyBuf,
        lists: &[VaryFieldNames],
        request: &HeaderMap,
    ) -> L1Lookup {
        let fitting = lists.iter().filter_map(|fields| {
            match self.slots.get(key.variant(fields, request).as_bytes())? {
                L1Slot::Entry(entry) => Some(entry),
                L1Slot::Varies(_) => None,
            }
        });
        match fitting.max_by(|one, other| one.freshness.compare_origin(&other.freshness)) {
            Some(entry) => L1Lookup::Entry(entry),
            None => L1Lookup::NoVariant(lists.first().map_or_else(
                || key.to_key(),
                |fields| key.variant(fields, request).to_key(),
            )),
        }
    }

    fn note_vary(&self, primary: EntryKey, fields: &[HeaderName]) {
        self.slots.entry(primary).and_upsert_with(|held| {
            let known = match held.map(|h| h.into_value()) {
                Some(L1Slot::Varies(lists)) => lists.to_vec(),
                _ => Vec::new(),
            };
            if known.first().is_some_and(|newest| **newest == *fields) {
                return L1Slot::Varies(known.into());
            }
            let others = known
                .into_iter()
                .filter(|list| **list != *fields)
                .take(VARY_LISTS - 1);
            L1Slot::Varies(std::iter::once(fields.into()).chain(others).collect())
        });
    }

    /// Puts a slot of another store here, unless this one has something under the key.
    fn take_over(&self, key: EntryKey, slot: L1Slot) {
        let size = slot.size(&key);
        let held = self.slots.entry(key);
        held.and_compute_with(|held| match held {
            Some(_) => Op::Nop,
            None => Op::Put(slot),
        });
        self.settle(size);
    }
}

impl L1 {
    /// Creates an empty tier. `on_evict` is called for everything that moka removes, with the
    /// cause.
    pub fn new(
        config: &config::L1Config,
        on_evict: impl Fn(RemovalCause) + Send + Sync + 'static,
    ) -> Self {
        let on_evict: Arc<dyn Fn(RemovalCause) + Send + Sync> = Arc::new(on_evict);
        let store = L1Store::new(L1Bounds::of(config), &on_evict);
        Self {
            store: ArcSwap::from_pointee(store),
            on_evict,
        }
    }

    /// Moves to a store with other bounds, if they are others. What is stored stays as far as there
    /// is room; how often it was asked for is not known there. No sweep may run at the same time.
    pub fn resize(&self, config: &config::L1Config) {
        let bounds = L1Bounds::of(config);
        let before = self.store.load_full();
        if before.bounds == bounds {
            return;
        }
        let store = Arc::new(L1Store::new(bounds, &self.on_evict));
        let take_all = || {
            for (key, slot) in &before.slots {
                store.take_over(EntryKey::clone(&key), slot);
            }
        };
        // Requests find everything there from the first moment on.
        take_all();
        self.store.store(Arc::clone(&store));
        // Once more, for what was put in the meantime.
        take_all();
    }

    /// Looks a request up.
    pub fn find(&self, key: &KeyBuf, request: &HeaderMap) -> L1Lookup {
        let store = self.store.load();
        match store.slots.get(key.as_bytes()) {
            None => L1Lookup::Nothing,
            Some(L1Slot::Entry(entry)) => L1Lookup::Entry(entry),
            Some(L1Slot::Varies(lists)) => store.find_variant(key, &lists, request),
        }
    }

    /// Stores an entry under `primary`, or under the variant's key if it has a `Vary`. `entry.key`
    /// must be that same key (see [`variant_key`]).
    pub fn put(&self, primary: EntryKey, vary: &Vary, entry: Arc<Entry>) {
        let store = self.store.load();
        if let Vary::Fields(fields) = vary {
            store.note_vary(primary, fields);
        }
        let size = entry.size();
        if let Some(L1Slot::Entry(before)) = store.slots.get(entry.key.as_bytes()) {
            entry.add_uses(before.uses());
        }
        store.slots.insert(entry.key.clone(), L1Slot::Entry(entry));
        store.settle(size);
    }

    /// Like [`put`](Self::put), for an entry that was stored elsewhere a while ago. An entry that
    /// is already in L1 stays if it is fresh and `shown`, or if its load began after later purges.
    pub fn put_older(
        &self,
        primary: EntryKey,
        vary: &Vary,
        entry: Arc<Entry>,
        shown: impl Fn(&Entry) -> bool,
    ) {
        let store = self.store.load();
        if let Vary::Fields(fields) = vary {
            store.note_vary(primary, fields);
        }
        let slot = store.slots.entry(entry.key.clone());
        let now = Instant::now();
        let stays = |held: &Entry| match held.born.shared().cmp(&entry.born.shared()) {
            Ordering::Greater => true,
            Ordering::Equal => held.state(now) == FreshnessState::Fresh && shown(held),
            Ordering::Less => false,
        };
        slot.and_compute_with(|held| match held.map(|held| held.into_value()) {
            Some(L1Slot::Entry(held)) if stays(&held) => Op::Nop,
            _ => Op::Put(L1Slot::Entry(Arc::clone(&entry))),
        });
        store.settle(entry.size());
    }

    /// Weighs the entry that has these coded forms again: they have grown.
    pub(super) fn weigh_again(&self, key: &EntryKey, forms: &Arc<EncodedForms>) {
        let store = self.store.load();
        let slot = store.slots.entry(key.clone());
        let mut grown = 0;
        slot.and_compute_with(|held| match held.map(|held| held.into_value()) {
            Some(L1Slot::Entry(held)) if held.has_forms(forms) => {
                grown = forms.size();
                Op::Put(L1Slot::Entry(held))
            }
            _ => Op::Nop,
        });
        store.settle(grown);
    }

    /// The field lists that the responses of `primary` vary by, newest first.
    pub fn lists(&self, primary: &EntryKey) -> Vec<Vec<HeaderName>> {
        match self.store.load().slots.get(primary.as_bytes()) {
            Some(L1Slot::Varies(lists)) => lists.iter().map(|fields| fields.to_vec()).collect(),
            Some(L1Slot::Entry(_)) | None => Vec::new(),
        }
    }

    /// The entry under this whole key, whether it is purged or not.
    pub fn get(&self, key: &EntryKey) -> Option<Arc<Entry>> {
        match self.store.load().slots.get(key.as_bytes()) {
            Some(L1Slot::Entry(entry)) => Some(entry),
            Some(L1Slot::Varies(_)) | None => None,
        }
    }

    /// Removes this entry, but not one that has replaced it.
    pub fn remove(&self, entry: &Arc<Entry>) {
        let store = self.store.load();
        let slot = store.slots.entry(entry.key.clone());
        slot.and_compute_with(|held| match held.map(|held| held.into_value()) {
            Some(L1Slot::Entry(held)) if Arc::ptr_eq(&held, entry) => Op::Remove,
            _ => Op::Nop,
        });
    }

    /// Goes through all entries, for the sweep. Slow: never call it on a request's path.
    pub fn for_each_entry(&self, mut act: impl FnMut(Arc<Entry>)) {
        for (_, slot) in &self.store.load_full().slots {
            match slot {
                L1Slot::Entry(entry) => act(entry),
                L1Slot::Varies(_) => {}
            }
        }
    }

    /// Lets moka evict and expire what is due.
    pub fn tend(&self) {
        self.store.load().tend();
    }

    /// The number of entries, as of the last call of [`tend`](Self::tend).
    pub fn entry_count(&self) -> u64 {
        self.store.load().slots.entry_count()
    }

    /// How many bytes there may be.
    pub fn max_bytes(&self) -> u64 {
        self.store.load().bounds.bytes
    }

    /// The size in bytes, as of the last call of [`tend`](Self::tend).
    pub fn bytes(&self) -> u64 {
        self.store.load().slots.weighted_size()
    }
}

/// The key that a response with this `Vary` is stored under.
pub fn variant_key(primary: &KeyBuf, vary: &Vary, request: &HeaderMap) -> EntryKey {
    match vary {
        Vary::Fields(fields) => primary.variant(fields, request).to_key(),
        Vary::None | Vary::Any => primary.to_key(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freshness::Freshness;
    use http::StatusCode;

    fn entry() -> Arc<Entry> {
        entry_of(KeyBuf::default().to_key(), 0)
    }

    fn entry_of(key: EntryKey, body: usize) -> Arc<Entry> {
        let freshness = Freshness {
            received: Instant::now(),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_secs(60),
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
            must_revalidate: false,
        };
        Arc::new(Entry::new(
            key,
            StatusCode::OK,
            HeaderMap::new(),
            bytes::Bytes::from(vec![0; body]),
            freshness,
            Default::default(),
            1.into(),
        ))
    }

    fn entries(l1: &L1) -> Vec<Arc<Entry>> {
        let mut all = Vec::new();
        l1.for_each_entry(|entry| all.push(entry));
        all
    }

    /// Guards against a sweep or a late load that removes the entry of a newer load.
    #[test]
    fn removing_an_entry_leaves_the_one_that_replaced_it() {
        let l1 = L1::new(&config::L1Config::default(), |_| {});
        let (old, new) = (entry(), entry());
        let put = |entry: &Arc<Entry>| l1.put(entry.key.clone(), &Vary::None, Arc::clone(entry));
        put(&old);
        put(&new);
        l1.remove(&old);
        assert_eq!(entries(&l1).len(), 1);
        l1.remove(&new);
        assert!(entries(&l1).is_empty());
    }

    #[test]
    fn large_entries_that_come_at_once_exceed_the_bytes_by_one_of_them_at_most() {
        const BODY: usize = 1 << 20;
        let config = config::L1Config {
            max_bytes: crate::units::ByteSize::mib(8),
            ..Default::default()
        };
        let l1 = L1::new(&config, |_| {});
        for n in 0..40_u8 {
            let key = EntryKey::of(&[n]);
            l1.put(key.clone(), &Vary::None, entry_of(key, BODY));
            let bytes: usize = entries(&l1).iter().map(|entry| entry.body.len()).sum();
            assert!(bytes <= (8 << 20) + BODY, "{bytes} bytes after {n} more");
        }
    }

    /// A larger tier keeps everything; a smaller one keeps what has room.
    #[test]
    fn a_tier_of_another_size_keeps_what_has_room() {
        const BODY: usize = 64 << 10;
        let sized = |mib| config::L1Config {
            max_bytes: crate::units::ByteSize::mib(mib),
            ..Default::default()
        };
        let l1 = L1::new(&sized(8), |_| {});
        for n in 0..40_u8 {
            let key = EntryKey::of(&[n]);
            l1.put(key.clone(), &Vary::None, entry_of(key, BODY));
        }
        l1.tend();
        let held = entries(&l1).len();
        assert_eq!(held, 40);
        l1.resize(&sized(16));
        l1.tend();
        assert_eq!(entries(&l1).len(), 40, "nothing is lost");
        assert!(l1.get(&EntryKey::of(&[7])).is_some());
        l1.resize(&sized(1));
        l1.tend();
        let left = entries(&l1);
        assert!((8..=15).contains(&left.len()), "{}", left.len());
        assert!(l1.bytes() <= 1 << 20, "{}", l1.bytes());
    }
}
