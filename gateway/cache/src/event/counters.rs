//! The counters of the events, and their log lines.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use super::{
    CacheEvent, Eviction, L2LeaseOutcome, L2LookupOutcome, L2WriteOutcome, PurgeSelectorKind,
    StaleReason, UncoalescedReason,
};
use crate::key::KeyId;

/// In seconds.
const LOAD_BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// The names and descriptions of counters that have one series for each name of an enum.
const PURGES: (&str, &str) = ("lamina_cache_purges_total", "Purges by selector.");
const ALONE: (&str, &str) = (
    "lamina_cache_uncoalesced_total",
    "Requests that could not follow another's load, by reason.",
);
const STALE: (&str, &str) = (
    "lamina_cache_stale_served_total",
    "Stale answers by reason.",
);
const WRITES: (&str, &str) = (
    "lamina_l2_writes_total",
    "Records given to the second tier, by outcome.",
);
const LEASES: (&str, &str) = (
    "lamina_l2_leases_total",
    "Leases that were requested so that only one node loads, by outcome.",
);

/// The counters of the events, looked up once at the start.
pub struct CacheEventCounters {
    hits: IntCounter,
    misses: IntCounter,
    sets: IntCounter,
    purges: Box<[IntCounter]>,
    invalidated: IntCounter,
    loads: LoadCounters,
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

/// The counters of loads of missing or stale values.
struct LoadCounters {
    started: IntCounter,
    succeeded: IntCounter,
    failed: IntCounter,
    timed_out: IntCounter,
    /// To the head of the response.
    seconds: Histogram,
}

impl LoadCounters {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let loads = vec(
            registry,
            "lamina_cache_loads_total",
            "Loads of missing or stale values by outcome.",
            &["outcome"],
        )?;
        let seconds = HistogramOpts::new(
            "lamina_cache_load_duration_seconds",
            "Time of successful loads to the response's head.",
        );
        let seconds = Histogram::with_opts(seconds.buckets(LOAD_BUCKETS.to_vec()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            started: loads.with_label_values(&["start"]),
            succeeded: loads.with_label_values(&["success"]),
            failed: loads.with_label_values(&["error"]),
            timed_out: loads.with_label_values(&["timeout"]),
            seconds,
        })
    }
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
        let evictions = vec(
            registry,
            "lamina_cache_evictions_total",
            "Entries that a tier removed, by cause.",
            &["tier", "cause"],
        )?;
        let of_tier = |all: &IntCounterVec, tier: &str, names: &[&str]| -> Box<[_]> {
            let names = names.iter();
            names
                .map(|name| all.with_label_values(&[tier, name]))
                .collect()
        };
        let one = |name, help| one(registry, name, help);
        let each = |named, label, values| each(registry, named, label, values);
        Ok(Self {
            hits: lookups.with_label_values(&["l1", "hit"]),
            misses: lookups.with_label_values(&["l1", "miss"]),
            second_tier_lookups: of_tier(&lookups, "l2", L2LookupOutcome::NAMES),
            evictions: of_tier(&evictions, "l1", Eviction::NAMES),
            sets: one("lamina_cache_sets_total", "Entries stored.")?,
            purges: each(PURGES, "selector", PurgeSelectorKind::NAMES)?,
            invalidated: one(
                "lamina_cache_invalidations_total",
                "URLs and groups held here that unsafe requests made invalid.",
            )?,
            loads: LoadCounters::register(registry)?,
            coalesced: one(
                "lamina_cache_coalesced_requests_total",
                "Requests that followed another's load.",
            )?,
            alone: each(ALONE, "reason", UncoalescedReason::NAMES)?,
            stale: each(STALE, "reason", StaleReason::NAMES)?,
            negative: one(
                "lamina_cache_negative_sets_total",
                "Negative answers stored.",
            )?,
            overtaken: one(
                "lamina_cache_overtaken_loads_total",
                "Loads that were not stored because a purge happened meanwhile.",
            )?,
            tags_dropped: one(
                "lamina_cache_tags_dropped_total",
                "Tags beyond the limits, by which responses were not stored.",
            )?,
            writes: each(WRITES, "outcome", L2WriteOutcome::NAMES)?,
            leases: each(LEASES, "outcome", L2LeaseOutcome::NAMES)?,
            corrupt: vec(
                registry,
                "lamina_l2_records_corrupt_total",
                "Records of the second tier that could not be used, by reason.",
                &["reason"],
            )?,
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
            CacheEvent::LoaderStart { .. } => self.loads.started.inc(),
            CacheEvent::LoaderSuccess { took, .. } => {
                self.loads.succeeded.inc();
                self.loads.seconds.observe(took.as_secs_f64());
            }
            CacheEvent::LoaderError { .. } => self.loads.failed.inc(),
            CacheEvent::LoaderTimeout { .. } => self.loads.timed_out.inc(),
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
        CacheEvent::TagsDropped(count) => {
            tracing::debug!(count, "a response has tags beyond the limits")
        }
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

fn each(
    registry: &Registry,
    (name, help): (&str, &str),
    label: &str,
    values: &[&str],
) -> prometheus::Result<Box<[IntCounter]>> {
    let all = vec(registry, name, help, &[label])?;
    let values = values.iter();
    Ok(values
        .map(|value| all.with_label_values(&[value]))
        .collect())
}

fn one(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}
