//! What rate limits have admitted and refused, by limit.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Opts};

use crate::telemetry::metrics::Registry;
use crate::telemetry::series::OTHER;

/// Limits that have series of their own; those of further ones are counted together. A process may
/// see many configurations.
const MOST_LIMITS: usize = 1_000;

/// The metric families of rate limits, created once for the process.
pub struct LimitFamilies {
    outcomes: IntCounterVec,
    degraded: IntCounterVec,
    known: Mutex<HashSet<Arc<str>>>,
}

/// The series of one limit.
pub struct LimitCounts {
    pub admitted: IntCounter,
    pub refused: IntCounter,
    pub would_refuse: IntCounter,
    pub degraded: IntCounter,
}

impl LimitFamilies {
    /// # Errors
    /// If the registry has these families already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let family = |name, help, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        Ok(Self {
            outcomes: family(
                "lamina_limit_total",
                "Requests that a rate limit has judged, by limit and outcome.",
                &["limit", "outcome"],
            )?,
            degraded: family(
                "lamina_limit_degraded",
                "Requests that a shared rate limit has judged by this node's part of the rate, \
                 since Redis did not answer in time.",
                &["limit"],
            )?,
            known: Mutex::default(),
        })
    }

    /// The series of a limit.
    pub fn limit(&self, name: &Arc<str>) -> LimitCounts {
        let mut known = self.known.lock();
        let has_room = known.len() < MOST_LIMITS;
        let label = match known.contains(name) || (has_room && known.insert(Arc::clone(name))) {
            true => name,
            false => OTHER,
        };
        let outcome = |outcome| self.outcomes.with_label_values(&[label, outcome]);
        LimitCounts {
            admitted: outcome("admitted"),
            refused: outcome("refused"),
            would_refuse: outcome("would_refuse"),
            degraded: self.degraded.with_label_values(&[label]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_are_bounded() {
        let families = LimitFamilies::register(&Registry::new()).unwrap();
        for n in 0..MOST_LIMITS + 5 {
            let name = Arc::from(format!("limit-{n}"));
            families.limit(&name).refused.inc();
            families.limit(&name).refused.inc();
        }
        let of = |name: &str| {
            families
                .outcomes
                .with_label_values(&[name, "refused"])
                .get()
        };
        assert_eq!((of("limit-0"), of(OTHER)), (2, 10));
    }
}
