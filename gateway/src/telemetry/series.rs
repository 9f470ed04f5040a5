//! A bound on the series of metrics whose labels come from the configuration.
//!
//! Ten thousand routes with a histogram for each result would be a million series, which no
//! scrape survives. A series is therefore made when it is first counted, and only while there
//! is room; what finds none is counted under the label [`OTHER`], so that sums stay true.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{IntGauge, Opts, Registry};

/// The label that stands for all that found no room.
pub const OTHER: &str = "other";

/// How many series there may be, and how many there are.
#[derive(Debug)]
pub struct SeriesBudget {
    most: u64,
    taken: AtomicU64,
    /// The same number, for scrapes.
    made: IntGauge,
    folded: IntGauge,
}

impl SeriesBudget {
    /// # Errors
    /// When the registry has its gauges already.
    pub fn new(most: u64, registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::with_opts(Opts::new(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            most,
            taken: AtomicU64::new(0),
            made: gauge(
                "lamina_metric_series",
                "Series of routes that were made, of `telemetry.max_series` at most.",
            )?,
            folded: gauge(
                "lamina_metric_series_folded",
                "Series of routes that found no room and are counted under `other`.",
            )?,
        })
    }

    /// The label under which so many series are to be made: this one, or the common one when
    /// there is no room for them.
    pub fn label<'a>(&self, label: &'a str, series: u64) -> &'a str {
        let room = |taken: u64| (taken + series <= self.most).then_some(taken + series);
        let claim = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        match claim {
            Ok(_) => {
                self.made.add(series as i64);
                label
            }
            Err(_) => {
                self.folded.add(series as i64);
                OTHER
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_folded_and_told() {
        let registry = Registry::new();
        let budget = SeriesBudget::new(40, &registry).unwrap();
        assert_eq!(budget.label("a", 18), "a");
        assert_eq!(budget.label("b", 18), "b");
        assert_eq!(budget.label("c", 18), OTHER);
        assert_eq!(budget.label("d", 4), "d", "smaller ones still fit");
        assert_eq!((budget.made.get(), budget.folded.get()), (40, 18));
    }
}
