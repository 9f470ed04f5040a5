//! A bound on the series of metrics whose labels come from the configuration.
//!
//! Ten thousand routes with a histogram for each result would be a million series, which no
//! scrape survives. A series is therefore made when it is first counted, and only while there
//! is room; one that finds no room is counted under the label [`OTHER`], so that sums stay true.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;
use prometheus::{IntGauge, Opts, Registry};

/// The label under which all series without room of their own are counted.
pub const OTHER: &str = "other";

/// How many series there may be, and which ones exist.
#[derive(Debug)]
pub struct SeriesBudget {
    most: u64,
    decided: Mutex<SeriesDecisions>,
    made: IntGauge,
    folded: IntGauge,
}

/// What was decided so far. A reloaded configuration with the same routes makes no more series.
#[derive(Debug, Default)]
struct SeriesDecisions {
    /// Whether the series of a label and a kind were made under that label.
    has_room: HashMap<(Box<str>, Box<str>), bool>,
    taken: u64,
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
            decided: Mutex::default(),
            made: gauge(
                "lamina_metric_series",
                "Series of metrics that exist with the name of a route as a label; at most \
                 `telemetry.max_series`.",
            )?,
            folded: gauge(
                "lamina_metric_series_folded",
                "Series of metrics beyond `telemetry.max_series`, which are counted under the \
                 route `other`.",
            )?,
        })
    }

    /// The label under which these `series` series of one kind are made: the given one, or
    /// [`OTHER`] when there is no room for them.
    pub fn label<'a>(&self, label: &'a str, kind: &str, series: u64) -> &'a str {
        let mut decided = self.decided.lock();
        let room = decided.taken + series <= self.most;
        let has_room = match decided.has_room.entry((label.into(), kind.into())) {
            Entry::Occupied(earlier) => *earlier.get(),
            Entry::Vacant(first) => {
                first.insert(room);
                if room {
                    decided.taken += series;
                    self.made.add(series as i64);
                } else {
                    self.folded.add(series as i64);
                }
                room
            }
        };
        match has_room {
            true => label,
            false => OTHER,
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
        // Asks three times, as a configuration that is loaded again does.
        for _ in 0..3 {
            assert_eq!(budget.label("a", "hit", 18), "a");
            assert_eq!(budget.label("a", "miss", 18), "a");
            assert_eq!(budget.label("b", "hit", 18), OTHER);
            assert_eq!(
                budget.label("c", "plugin", 4),
                "c",
                "smaller ones still fit"
            );
        }
        assert_eq!((budget.made.get(), budget.folded.get()), (40, 18));
    }
}
