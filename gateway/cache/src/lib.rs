//! The cache engine: look-up, coalescing, admission and invalidation over both tiers.
//!
//! It knows requests and responses by their keys, headers and purge marks. Sending requests and
//! running plugins belongs to the proxy in `gateway/edge`. This crate depends on `lamina-http` and
//! `lamina-base` alone.
//!
//! Invariant: an entry is admitted to L1 before its flight is ended. Invariant: an entry is shown
//! only after [`PurgeLog::judge`] has compared it with every purge so far.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// The modules of this crate use the crates below under these names.
use lamina_base::{breaker, description, envelope, pattern, redis, units};
use lamina_http as http;

pub mod backoff;
mod cache_rules;
pub mod coalesce;
pub mod config;
pub mod encoder;
pub mod encodings;
pub mod entry;
pub mod event;
pub mod fill;
pub mod freshness;
mod gauges;
mod hit_for_miss;
pub mod key;
mod l1;
pub mod l2;
mod large;
mod lookup;
pub mod parts;
pub mod peers;
pub mod policy;
pub mod purge;
mod purging;
pub mod record;
pub mod successor;
pub mod tags;
pub mod warm;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ::http::{HeaderMap, HeaderName};
use arc_swap::{ArcSwap, ArcSwapOption};
use moka::notification::RemovalCause;
use parking_lot::Mutex;
use prometheus::Registry;

use crate::http::vary::Vary;
use backoff::LoadBackoff;
use coalesce::{FlightTable, LeadOrFollow, Leader};
use encoder::BodyEncoder;
use entry::{Entry, PurgeAttributes};
use event::{CacheEvent, CacheEventCounters, Eviction};
use freshness::{FreshnessState, StaleWindows};
use gauges::{CacheGauges, gauge};
use hit_for_miss::HitForMiss;
use key::{EntryKey, KeyBuf, PurgeHash};
use l1::{L1, L1Lookup};
use l2::L2;
use l2::store::Store;
use large::LargeObjects;
use peers::PeerNotifier;
use purge::{EntryVisibility, PurgeLog, PurgeOrder};
use record::Seal;
use successor::SuccessorPurges;

pub use cache_rules::CacheRules;
pub use hit_for_miss::UnsharedScope;
pub use l1::variant_key;
pub use lookup::{Lookup, LookupMissKind};

/// The cache of one process.
pub struct Cache {
    l1: Arc<L1>,
    encoder: Arc<BodyEncoder>,
    flights: Arc<FlightTable>,
    log: Arc<PurgeLog>,
    second_tier: Option<Arc<L2>>,
    /// The other nodes. Set when there may be some.
    peers: OnceLock<Arc<dyn PeerNotifier>>,
    /// The process that takes the place of this one. Set when there is one.
    successor: ArcSwapOption<SuccessorPurges>,
    /// Primary keys that were missed a short time ago. They are kept only when there are peers.
    asked: moka::sync::Cache<u64, (), foldhash::fast::RandomState>,
    pub backoff: LoadBackoff,
    /// Keys whose responses could not be shared a short time ago.
    pub hit_for_miss: HitForMiss,
    /// Keys whose objects are larger than `max_object_bytes`.
    pub large: LargeObjects,
    pub hooks: Arc<CacheEventCounters>,
    /// Whether this node cannot hear the purges of other nodes at the moment.
    cut_off: AtomicBool,
    /// The place in the order of purges at which the last sweep began.
    swept: AtomicU64,
    gauges: CacheGauges,
    /// Whether parts of a response were ever stored.
    has_kept_parts: AtomicBool,
    /// Whether this process began with what an earlier one had stored.
    has_snapshot: AtomicBool,
    rules: ArcSwap<CacheRules>,
    /// Held while every entry is touched: by a sweep, or by a move to an L1 of another size.
    touching_all: Mutex<()>,
}

/// How many missed keys are remembered and for how long. While a key is remembered, a peer's value
/// for it is accepted.
const ASKED_KEYS: u64 = 10_000;
const ASKED_LATELY: Duration = Duration::from_secs(60);

impl Cache {
    /// Creates an empty cache and registers its counters in `registry`.
    ///
    /// # Errors
    /// When the registry already holds the counters of a cache.
    pub fn new(config: &config::CacheConfig, registry: &Registry) -> prometheus::Result<Self> {
        let hooks = Arc::new(CacheEventCounters::new(registry)?);
        let log = match config.l2.store().is_some() {
            // The second tier may return entries from before a purge for as long as this.
            true => PurgeLog::numbered(&config.purge_log, config.l2.max_life.into()),
            false => PurgeLog::alone(&config.purge_log),
        };
        let listener = Arc::clone(&hooks);
        let on_evict = move |cause| on_removal(&listener, cause);
        let l1 = Arc::new(L1::new(&config.l1, on_evict));
        Ok(Self {
            encoder: Arc::new(BodyEncoder::new(Arc::clone(&l1), registry)?),
            l1,
            flights: Arc::default(),
            log: Arc::new(log),
            second_tier: None,
            peers: OnceLock::new(),
            successor: ArcSwapOption::empty(),
            asked: moka::sync::Cache::builder()
                .max_capacity(ASKED_KEYS)
                .time_to_live(ASKED_LATELY)
                .build_with_hasher(Default::default()),
            backoff: LoadBackoff::new(&config.backoff),
            hit_for_miss: HitForMiss::new(config.inflight.hit_for_miss.0),
            large: LargeObjects::new(config.inflight.hit_for_miss.0),
            hooks,
            cut_off: AtomicBool::new(false),
            swept: AtomicU64::new(0),
            has_kept_parts: AtomicBool::new(false),
            has_snapshot: AtomicBool::new(false),
            gauges: CacheGauges::new(registry)?,
            rules: ArcSwap::from_pointee(CacheRules::of(config)),
            touching_all: Mutex::new(()),
        })
    }

    /// The rules as they are now.
    pub fn rules(&self) -> Arc<CacheRules> {
        self.rules.load_full()
    }

    /// Follows the parts of another configuration that may change while the cache is used: the size
    /// of L1, of its objects, and the rules of loads. Entries stay, as far as there is room. It
    /// touches all entries if the size changes, so it must not run on a thread that serves
    /// requests.
    pub fn follow(&self, config: &config::CacheConfig) {
        self.rules.store(Arc::new(CacheRules::of(config)));
        self.backoff.follow(&config.backoff);
        self.hit_for_miss.hold_for(config.inflight.hit_for_miss.0);
        self.large.remember_for(config.inflight.hit_for_miss.0);
        if let Some(tier) = &self.second_tier {
            tier.follow(&config.l2, config.l1.max_object_bytes.as_usize());
        }
        let _touching_all = self.touching_all.lock();
        self.l1.resize(&config.l1);
    }

    /// Puts a second tier behind L1.
    ///
    /// # Errors
    /// When the registry already holds the counters of a second tier.
    pub fn attach(
        &mut self,
        store: Arc<dyn Store>,
        config: &config::CacheConfig,
        seal: Seal,
        registry: &Registry,
    ) -> prometheus::Result<Arc<L2>> {
        let log = Arc::clone(&self.log);
        let object = config.l1.max_object_bytes.as_usize();
        let tier = Arc::new(L2::new(
            store,
            &config.l2,
            seal,
            object,
            log,
            Arc::clone(&self.hooks),
            registry,
        )?);
        self.second_tier = Some(Arc::clone(&tier));
        Ok(tier)
    }

    /// What makes coded forms of stored bodies.
    pub fn encoder(&self) -> &Arc<BodyEncoder> {
        &self.encoder
    }

    /// The second tier.
    pub fn second_tier(&self) -> Option<&Arc<L2>> {
        self.second_tier.as_ref()
    }

    /// Takes an entry from the second tier into L1, unless L1 has a newer one by now. None: a purge
    /// came since the entry was loaded, or the entry was removed since it was read.
    pub fn promote(
        &self,
        primary: EntryKey,
        vary: &Vary,
        entry: &Arc<Entry>,
    ) -> Option<FreshnessState> {
        self.log.hold(entry);
        if self.log.judge(entry) == EntryVisibility::Hidden || self.removes(entry) {
            return None;
        }
        let shown = |held: &Entry| self.is_sure(held);
        self.l1.put_older(primary, vary, Arc::clone(entry), shown);
        // A removal that began in the meantime did not see this copy.
        if self.removes(entry) {
            self.l1.remove(entry);
            return None;
        }
        let now = Instant::now();
        Some(match self.log.judge(entry) {
            EntryVisibility::Doubted => FreshnessState::Stale(entry.freshness.when_doubted(now)),
            _ => entry.state(now),
        })
    }

    fn removes(&self, entry: &Entry) -> bool {
        self.second_tier
            .as_ref()
            .is_some_and(|tier| tier.removes(entry))
    }

    /// Returns a stored copy to use when a load failed or takes long. It looks at the present state
    /// of L1, because a load may have found a copy in the second tier after the request's look-up.
    pub fn fallback(
        &self,
        key: &KeyBuf,
        request: &HeaderMap,
        now: Instant,
    ) -> Option<(Arc<Entry>, StaleWindows)> {
        let L1Lookup::Entry(entry) = self.l1.find(key, request) else {
            return None;
        };
        let verdict = self.log.judge(&entry);
        let windows = match (verdict, entry.state(now)) {
            (EntryVisibility::Hidden, _) => return None,
            (EntryVisibility::Doubted, _) => entry.freshness.when_doubted(now),
            (_, FreshnessState::Stale(windows)) => windows,
            (_, FreshnessState::Fresh) => StaleWindows {
                while_revalidate: true,
                if_error: true,
            },
        };
        Some((entry, windows))
    }

    /// Whether the first tier holds something of this key that no purge has hidden. Variants are
    /// taken to be there, since their requests are not known.
    pub fn may_hold(&self, key: &KeyBuf) -> bool {
        match self.l1.find(key, &HeaderMap::new()) {
            L1Lookup::Entry(entry) => self.log.judge(&entry) != EntryVisibility::Hidden,
            L1Lookup::NoVariant(_) => true,
            L1Lookup::Nothing => false,
        }
    }

    /// Looks a request up.
    pub fn lookup(&self, key: &KeyBuf, request: &HeaderMap, now: Instant) -> Lookup {
        let entry = match self.l1.find(key, request) {
            L1Lookup::Entry(entry) => entry,
            L1Lookup::NoVariant(variant) => {
                return self.missed(key, variant, LookupMissKind::Variant);
            }
            L1Lookup::Nothing => return self.missed(key, key.to_key(), LookupMissKind::Uri),
        };
        match self.log.judge(&entry) {
            EntryVisibility::Hidden => {
                self.l1.remove(&entry);
                self.missed(key, key.to_key(), LookupMissKind::Uri)
            }
            EntryVisibility::Doubted => {
                self.hooks.emit(CacheEvent::Miss);
                let windows = entry.freshness.when_doubted(now);
                Lookup::Stale(entry, windows)
            }
            EntryVisibility::Visible | EntryVisibility::Marked => match entry.state(now) {
                FreshnessState::Fresh => {
                    self.hooks.emit(CacheEvent::Hit);
                    Lookup::Fresh(entry)
                }
                FreshnessState::Stale(windows) => {
                    self.hooks.emit(CacheEvent::Miss);
                    Lookup::Stale(entry, windows)
                }
            },
        }
    }

    fn missed(&self, primary: &KeyBuf, load: EntryKey, missing: LookupMissKind) -> Lookup {
        self.hooks.emit(CacheEvent::Miss);
        self.note_asked(primary);
        Lookup::Miss(load, missing)
    }

    /// Whether this node cannot hear the purges of other nodes at the moment.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Sets whether this node cannot hear the purges of other nodes.
    pub fn set_cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    /// Whether an entry may be shown without asking its origin.
    pub fn is_sure(&self, entry: &Entry) -> bool {
        matches!(
            self.log.judge(entry),
            EntryVisibility::Visible | EntryVisibility::Marked
        )
    }

    /// Whether an entry that was looked up a while ago may still be shown.
    pub fn shows(&self, entry: &Entry) -> bool {
        self.log.judge(entry) != EntryVisibility::Hidden
    }

    /// Looks for a fresh entry once more. A new leader must do this before it loads.
    pub fn fresh_again(
        &self,
        key: &KeyBuf,
        request: &HeaderMap,
        now: Instant,
    ) -> Option<Arc<Entry>> {
        let L1Lookup::Entry(entry) = self.l1.find(key, request) else {
            return None;
        };
        let visible = self.log.judge(&entry) == EntryVisibility::Visible;
        (visible && entry.state(now) == FreshnessState::Fresh).then_some(entry)
    }

    /// The stored parts from which such a request may be answered, or to which its load may add.
    /// They are stored under [`KeyBuf::of_parts`]; they are not purged, and may be fresh or stale.
    pub fn parts(&self, key: &KeyBuf, request: &HeaderMap) -> Option<Arc<Entry>> {
        match self.l1.find(key, request) {
            L1Lookup::Entry(entry) if self.is_sure(&entry) => Some(entry),
            _ => None,
        }
    }

    /// Whether [`Self::parts`] may find anything: most caches never get parts, and need not look for
    /// them at each miss.
    pub fn may_have_parts(&self) -> bool {
        self.has_kept_parts.load(Ordering::Acquire)
    }

    /// The groups of the entry that such a request finds, whether it is fresh or not (RFC 9875
    /// §2.2.1).
    pub fn groups_at(&self, key: &KeyBuf, request: &HeaderMap) -> Box<[PurgeHash]> {
        match self.l1.find(key, request) {
            L1Lookup::Entry(entry) if self.shows(&entry) => entry.marks.groups.clone(),
            _ => Box::default(),
        }
    }

    /// Leads the load of `key`, or follows one that is under way. `number` is the number of this
    /// request; the followers of its load can read it.
    pub fn lead_or_follow(
        &self,
        key: &EntryKey,
        number: u64,
        marks: impl FnOnce() -> PurgeAttributes,
    ) -> LeadOrFollow {
        self.flights.lead_or_follow(key, number, marks, &self.log)
    }

    /// Leads a load of `key` beside those that are under way. Nobody follows it yet.
    pub fn lead_apart(&self, key: &EntryKey, marks: PurgeAttributes) -> Leader {
        self.flights.lead_apart(key, marks, &self.log)
    }

    /// Whether a purge hides a load that began at `born` from requests that arrive now.
    pub fn hides(&self, marks: &PurgeAttributes, born: PurgeOrder) -> bool {
        self.log.hides(marks, born)
    }

    /// The current place in the order of purges. What begins now notes it.
    pub fn order(&self) -> PurgeOrder {
        self.log.order()
    }

    /// The place in the order of purges of a response with this `Age`, if it has one, which arrived
    /// at `at` for a load that began at `begun`.
    pub fn order_of(&self, begun: PurgeOrder, age: Option<u32>, at: Instant) -> PurgeOrder {
        let age = age.map(|seconds| Duration::from_secs(seconds.into()));
        age.map_or(begun, |age| self.log.order_of_kept(begun, age, at))
    }

    /// Stores an entry, unless a purge overtook it. `primary` is its key without the variant.
    /// Returns whether the entry was stored.
    pub fn admit(&self, primary: EntryKey, vary: &Vary, entry: Arc<Entry>) -> bool {
        let key = entry.key.clone();
        self.log.hold(&entry);
        if self.log.judge(&entry) == EntryVisibility::Hidden {
            self.hooks.emit(CacheEvent::Overtaken {
                key: key.as_bytes(),
            });
            return false;
        }
        let bytes = entry.size();
        self.hit_for_miss.end(&key);
        if entry.parts.is_some() {
            self.has_kept_parts.store(true, Ordering::Release);
        }
        // A partial entry grows with every load and is of no use to other nodes.
        if let Some(peers) = self.peers.get().filter(|_| entry.parts.is_none()) {
            peers.loaded(&primary, &entry);
        }
        self.l1.put(primary, vary, entry);
        self.hooks.emit(CacheEvent::Set {
            key: key.as_bytes(),
            bytes,
        });
        true
    }

    /// Removes this entry from both tiers: the origin said that it is gone or that it may not be
    /// kept.
    pub fn drop_entry(&self, entry: &Arc<Entry>) {
        // The second tier comes first: an entry that is promoted from it in the meantime must be
        // recognized as removed. Parts are not kept there.
        if let Some(tier) = self.second_tier.as_ref().filter(|_| entry.parts.is_none()) {
            tier.forget(entry, self.log.order());
        }
        self.l1.remove(entry);
    }

    /// The field lists that the key's responses vary by, for the second tier.
    pub fn vary_lists(&self, primary: &EntryKey) -> Vec<Vec<HeaderName>> {
        self.l1.lists(primary)
    }

    /// Removes the entries that purges hide, then drops the purge records. Slow: do not run it on a
    /// request's path.
    pub fn sweep(&self) {
        let begun = self.log.begin_sweep();
        if self.swept.swap(begun.value(), Ordering::Relaxed) == begun.value() && self.log.is_empty()
        {
            return;
        }
        let _touching_all = self.touching_all.lock();
        self.l1.for_each_entry(|entry| {
            if self.log.judge(&entry) == EntryVisibility::Hidden {
                self.l1.remove(&entry);
            }
        });
        self.log.end_sweep(begun, Instant::now());
    }

    /// Goes through the entries of L1 that no purge hides. Slow: never call it on a thread that serves
    /// requests.
    pub fn for_each_entry(&self, mut act: impl FnMut(&Entry)) {
        self.l1.for_each_entry(|entry| {
            if self.log.judge(&entry) != EntryVisibility::Hidden {
                act(&entry);
            }
        });
    }

    /// Lets L1 evict and expire what is due, and updates the gauges.
    pub fn tend(&self) {
        self.l1.tend();
        self.gauges.bytes.set(gauge(self.l1.bytes()));
        self.gauges.entries.set(gauge(self.l1.entry_count()));
        self.gauges.flights.set(gauge(self.flights.count() as u64));
        self.gauges.records.set(gauge(self.log.records() as u64));
    }
}

fn on_removal(hooks: &CacheEventCounters, cause: RemovalCause) {
    match cause {
        RemovalCause::Expired => hooks.emit(CacheEvent::Evicted(Eviction::Expired)),
        RemovalCause::Size => hooks.emit(CacheEvent::Evicted(Eviction::Size)),
        RemovalCause::Explicit | RemovalCause::Replaced => {}
    }
}
