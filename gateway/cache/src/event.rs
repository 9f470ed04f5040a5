//! What happens in the cache, as one enum that feeds metrics and logs.
//!
//! The names come from the library whose engine this crate brings to HTTP. Emitting an event costs
//! one counter: no lock and no allocation. A log line is only written at level debug.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use crate::breaker::CircuitState;
use crate::key::KeyId;
use crate::record::CorruptRecord;

/// One event in the cache.
#[derive(Clone, Copy, Debug)]
pub enum CacheEvent<'a> {
    Hit,
    Miss,
    /// Stored in L1.
    Set {
        key: &'a [u8],
        bytes: usize,
    },
    /// A purge of a key, of a URL, or of something wider was requested.
    Purge(PurgeSelectorKind),
    /// A request made something invalid that is held here.
    Invalidated,
    /// A load began, succeeded (after this time), failed, or took too long.
    LoaderStart {
        key: &'a [u8],
    },
    LoaderSuccess {
        key: &'a [u8],
        took: Duration,
    },
    LoaderError {
        key: &'a [u8],
        detail: &'a str,
    },
    LoaderTimeout {
        key: &'a [u8],
    },
    /// A request followed another request's load, or loaded on its own.
    InflightReuse,
    InflightBypass(UncoalescedReason),
    /// A stale copy was served.
    StaleHit(StaleReason),
    NegativeSet {
        key: &'a [u8],
    },
    /// A load that a purge had overtaken was not stored.
    Overtaken {
        key: &'a [u8],
    },
    /// A response carried more tags than are kept.
    TagsDropped(usize),
    Evicted(Eviction),
    /// A look-up in the second tier for a request.
    SecondTierLookup(L2LookupOutcome),
    /// A write to the second tier and its outcome.
    Wrote(L2WriteOutcome),
    /// A node asked for a lease, or lost one.
    Leased(L2LeaseOutcome),
    /// A record of the second tier can't be used.
    Corrupt(CorruptRecord),
    /// Purges may have been missed: everything older is hidden or in doubt.
    Gap,
    /// The circuit breaker of the second tier changed its state.
    Breaker(CircuitState),
}

/// How far a purge reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeSelectorKind {
    Key,
    Url,
    Prefix,
    Pattern,
    Tag,
    Group,
    Route,
    All,
}

/// Why a request did not follow a flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UncoalescedReason {
    HitForMiss,
    Private,
    OtherVariant,
    WaitTimeout,
    /// Flights were lost, or were of other variants, too often.
    Unsettled,
    /// It asks for a range of a response that only its own client gets.
    Range,
}

/// Why a stale copy was served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StaleReason {
    /// Within `stale_while_revalidate`, or after a soft purge.
    Revalidating,
    LoaderError,
    SoftTimeout,
    /// The key's load failed a short time ago.
    Backoff,
    /// The client sent `max-stale`.
    Tolerated,
    /// The route is under maintenance, and serves what is stored.
    Maintenance,
}

/// Why L1 removed an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eviction {
    Expired,
    Size,
}

/// The outcome of a look-up in the second tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L2LookupOutcome {
    Hit,
    Miss,
    /// The store failed.
    Error,
    /// The store was not asked: it failed a short time ago, is too busy, or its purge log is not
    /// known.
    Skipped,
    Corrupt,
    /// Born in a generation of the purge log that has ended.
    Outdated,
    /// Born after purges that are not known here yet.
    Ahead,
}

/// The outcome of a write to the second tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L2WriteOutcome {
    Stored,
    /// A later record is there.
    Overtaken,
    /// Another node has the lease now.
    NotOwner,
    TooLarge,
    Error,
    Skipped,
}

/// The outcome of asking for a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L2LeaseOutcome {
    Owned,
    Busy,
    /// The store did not answer.
    Unknown,
    /// It was not renewed in time.
    Lost,
    /// Another node's load took longer than this node waits.
    Timeout,
}

macro_rules! names {
    ($type:ty { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

names!(PurgeSelectorKind { Key => "key", Url => "url", Prefix => "prefix", Pattern => "pattern", Tag => "tag", Group => "group", Route => "route", All => "all" });
names!(UncoalescedReason { HitForMiss => "hit-for-miss", Private => "private", OtherVariant => "other-variant", WaitTimeout => "wait-timeout", Unsettled => "unsettled", Range => "range" });
names!(StaleReason { Revalidating => "revalidating", LoaderError => "loader-error", SoftTimeout => "soft-timeout", Backoff => "backoff", Tolerated => "max-stale", Maintenance => "maintenance" });
names!(Eviction { Expired => "expired", Size => "size" });
names!(L2LookupOutcome { Hit => "hit", Miss => "miss", Error => "error", Skipped => "skipped", Corrupt => "corrupt", Outdated => "outdated", Ahead => "ahead" });
names!(L2WriteOutcome { Stored => "stored", Overtaken => "overtaken", NotOwner => "not-owner", TooLarge => "too-large", Error => "error", Skipped => "skipped" });
names!(L2LeaseOutcome { Owned => "owned", Busy => "busy", Unknown => "unknown", Lost => "lost", Timeout => "timeout" });

/// The counters of the events, looked up once at the start.
pub struct CacheEventCounters {
    hits: IntCounter,
    misses: IntCounter,
    sets: IntCounter,
    purges: Box<[IntCounter]>,
    invalidated: IntCounter,
    loads: [IntCounter; 4],
    load_seconds: Histogram,
    coalesced: IntCounter,
    alone: Box<[IntCounter]>,
    stale: Box<[IntCounter]>,
    negative: IntCounter,
    overtaken: IntCounter,
    tags_dropped: IntCounter,
    evictions: Box<[IntCounter]>,
    second_tier_lookups: Box<[IntCounter]>,
    writes: Box<[IntCounter]>,
    leases: Box<[IntCounter]>,
    corrupt: IntCounterVec,
}

impl CacheEventCounters {
    /// Registers the counters.
    ///
    /// # Errors
    /// When one of them is already registered: a registry serves one cache.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let lookups = vec(
            registry,
            "lamina_cache_lookups_total",
            "Look-ups by tier and result.",
            &["tier", "result"],
        )?;
        let purges = vec(
            registry,
            "lamina_cache_purges_total",
            "Purges by selector.",
            &["selector"],
        )?;
        let loads = vec(
            registry,
            "lamina_cache_loads_total",
            "Loads of missing or stale values by outcome.",
            &["outcome"],
        )?;
        let alone = vec(
            registry,
            "lamina_cache_uncoalesced_total",
            "Requests that could not follow another's load, by reason.",
            &["reason"],
        )?;
        let stale = vec(
            registry,
            "lamina_cache_stale_served_total",
            "Stale answers by reason.",
            &["reason"],
        )?;
        let evictions = vec(
            registry,
            "lamina_cache_evictions_total",
            "Entries that a tier removed, by cause.",
            &["tier", "cause"],
        )?;
        let writes = vec(
            registry,
            "lamina_l2_writes_total",
            "Records given to the second tier, by outcome.",
            &["outcome"],
        )?;
        let leases = vec(
            registry,
            "lamina_l2_leases_total",
            "Leases that were requested so that only one node loads, by outcome.",
            &["outcome"],
        )?;
        let corrupt = vec(
            registry,
            "lamina_l2_records_corrupt_total",
            "Records of the second tier that could not be used, by reason.",
            &["reason"],
        )?;
        let load_seconds = HistogramOpts::new(
            "lamina_cache_load_duration_seconds",
            "Time of successful loads to the response's head.",
        )
        .buckets(LOAD_BUCKETS.to_vec());
        let load_seconds = Histogram::with_opts(load_seconds)?;
        registry.register(Box::new(load_seconds.clone()))?;
        let each = |vec: &IntCounterVec, names: &[&str]| {
            names
                .iter()
                .map(|name| vec.with_label_values(&[name]))
                .collect::<Box<[_]>>()
        };
        Ok(Self {
            hits: lookups.with_label_values(&["l1", "hit"]),
            misses: lookups.with_label_values(&["l1", "miss"]),
            sets: one(registry, "lamina_cache_sets_total", "Entries stored.")?,
            purges: each(
                &purges,
                &PurgeSelectorKind::ALL
                    .iter()
                    .map(|r| r.as_str())
                    .collect::<Vec<_>>(),
            ),
            invalidated: one(
                registry,
                "lamina_cache_invalidations_total",
                "URLs and groups held here that unsafe requests made invalid.",
            )?,
            loads: ["start", "success", "error", "timeout"]
                .map(|outcome| loads.with_label_values(&[outcome])),
            load_seconds,
            coalesced: one(
                registry,
                "lamina_cache_coalesced_requests_total",
                "Requests that followed another's load.",
            )?,
            alone: each(
                &alone,
                &UncoalescedReason::ALL
                    .iter()
                    .map(|r| r.as_str())
                    .collect::<Vec<_>>(),
            ),
            stale: each(
                &stale,
                &StaleReason::ALL
                    .iter()
                    .map(|r| r.as_str())
                    .collect::<Vec<_>>(),
            ),
            negative: one(
                registry,
                "lamina_cache_negative_sets_total",
                "Negative answers stored.",
            )?,
            overtaken: one(
                registry,
                "lamina_cache_overtaken_loads_total",
                "Loads that were not stored because a purge happened meanwhile.",
            )?,
            tags_dropped: one(
                registry,
                "lamina_cache_tags_dropped_total",
                "Tags that were dropped because they exceeded the limits.",
            )?,
            evictions: Eviction::ALL
                .iter()
                .map(|cause| evictions.with_label_values(&["l1", cause.as_str()]))
                .collect(),
            second_tier_lookups: L2LookupOutcome::ALL
                .iter()
                .map(|look| lookups.with_label_values(&["l2", look.as_str()]))
                .collect(),
            writes: each(
                &writes,
                &L2WriteOutcome::ALL
                    .iter()
                    .map(|w| w.as_str())
                    .collect::<Vec<_>>(),
            ),
            leases: each(
                &leases,
                &L2LeaseOutcome::ALL
                    .iter()
                    .map(|l| l.as_str())
                    .collect::<Vec<_>>(),
            ),
            corrupt,
        })
    }

    /// Counts the event and, at level debug, logs it.
    pub fn emit(&self, event: CacheEvent<'_>) {
        match event {
            CacheEvent::Hit => self.hits.inc(),
            CacheEvent::Miss => self.misses.inc(),
            CacheEvent::Set { .. } => self.sets.inc(),
            CacheEvent::Purge(reach) => self.purges[reach as usize].inc(),
            CacheEvent::Invalidated => self.invalidated.inc(),
            CacheEvent::LoaderStart { .. } => self.loads[0].inc(),
            CacheEvent::LoaderSuccess { took, .. } => {
                self.loads[1].inc();
                self.load_seconds.observe(took.as_secs_f64());
            }
            CacheEvent::LoaderError { .. } => self.loads[2].inc(),
            CacheEvent::LoaderTimeout { .. } => self.loads[3].inc(),
            CacheEvent::InflightReuse => self.coalesced.inc(),
            CacheEvent::InflightBypass(reason) => self.alone[reason as usize].inc(),
            CacheEvent::StaleHit(reason) => self.stale[reason as usize].inc(),
            CacheEvent::NegativeSet { .. } => self.negative.inc(),
            CacheEvent::Overtaken { .. } => self.overtaken.inc(),
            CacheEvent::TagsDropped(count) => self.tags_dropped.inc_by(count as u64),
            CacheEvent::Evicted(cause) => self.evictions[cause as usize].inc(),
            CacheEvent::SecondTierLookup(look) => self.second_tier_lookups[look as usize].inc(),
            CacheEvent::Wrote(wrote) => self.writes[wrote as usize].inc(),
            CacheEvent::Leased(leased) => self.leases[leased as usize].inc(),
            CacheEvent::Corrupt(corrupt) => {
                self.corrupt.with_label_values(&[corrupt.as_str()]).inc()
            }
            // These are counted where they happen.
            CacheEvent::Gap | CacheEvent::Breaker(_) => {}
        }
        log(event);
    }
}

/// Writes one line at level debug, for the rarer events only.
fn log(event: CacheEvent<'_>) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    match event {
        CacheEvent::Hit | CacheEvent::Miss => {}
        CacheEvent::Set { key, bytes } => tracing::debug!(key = %KeyId::of(key), bytes, "set"),
        CacheEvent::Purge(reach) => tracing::debug!(selector = reach.as_str(), "purge"),
        CacheEvent::Invalidated => tracing::debug!("invalidated by a request"),
        CacheEvent::LoaderStart { key } => tracing::debug!(key = %KeyId::of(key), "loader:start"),
        CacheEvent::LoaderSuccess { key, took } => {
            tracing::debug!(key = %KeyId::of(key), ?took, "loader:success")
        }
        CacheEvent::LoaderError { key, detail } => {
            tracing::debug!(key = %KeyId::of(key), detail, "loader:error")
        }
        CacheEvent::LoaderTimeout { key } => {
            tracing::debug!(key = %KeyId::of(key), "loader:timeout")
        }
        CacheEvent::InflightReuse => tracing::debug!("inflight:reuse"),
        CacheEvent::InflightBypass(reason) => {
            tracing::debug!(reason = reason.as_str(), "inflight:bypass")
        }
        CacheEvent::StaleHit(reason) => tracing::debug!(reason = reason.as_str(), "stale:hit"),
        CacheEvent::NegativeSet { key } => tracing::debug!(key = %KeyId::of(key), "negative:set"),
        CacheEvent::Overtaken { key } => {
            tracing::debug!(key = %KeyId::of(key), "load not stored: a purge happened meanwhile")
        }
        CacheEvent::TagsDropped(count) => tracing::debug!(count, "tags dropped"),
        CacheEvent::Evicted(cause) => tracing::debug!(cause = cause.as_str(), "evicted"),
        CacheEvent::SecondTierLookup(look) => tracing::debug!(result = look.as_str(), "l2"),
        CacheEvent::Wrote(wrote) => tracing::debug!(outcome = wrote.as_str(), "l2:set"),
        CacheEvent::Leased(leased) => tracing::debug!(outcome = leased.as_str(), "lock"),
        CacheEvent::Corrupt(corrupt) => {
            tracing::debug!(reason = corrupt.as_str(), "l2: corrupt record")
        }
        CacheEvent::Gap => tracing::debug!("purges may have been missed: older entries are hidden"),
        CacheEvent::Breaker(passage) => tracing::debug!(passage = passage.as_str(), "breaker"),
    }
}

const LOAD_BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

fn vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn one(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}
