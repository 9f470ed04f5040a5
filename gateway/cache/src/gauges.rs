//! The gauges of a cache.

use prometheus::{IntGauge, Registry};

/// What a cache holds at the moment.
pub(super) struct CacheGauges {
    pub(super) bytes: IntGauge,
    pub(super) entries: IntGauge,
    pub(super) flights: IntGauge,
    pub(super) records: IntGauge,
}

impl CacheGauges {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let tier = |name: &str, help: &str| {
            let vec = prometheus::IntGaugeVec::new(prometheus::Opts::new(name, help), &["tier"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec.with_label_values(&["l1"]))
        };
        let one = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            bytes: tier("lamina_cache_bytes", "Bytes in a tier.")?,
            entries: tier("lamina_cache_entries", "Entries in a tier.")?,
            flights: one("lamina_cache_flights", "Loads under way.")?,
            records: one("lamina_cache_purge_records", "Records in the purge log.")?,
        })
    }
}

/// A count as a gauge has it.
pub(super) fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
