//! The metrics of what is received and applied.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::nodes::PurgeCountVerdict;
use super::values::PrimeOutcome;

const ARRIVALS: [&str; 3] = ["in-order", "after-a-hole", "late"];
const OUTCOMES: [&str; 7] = [
    "stored",
    "overtaken",
    "unwanted",
    "corrupt",
    "late",
    "changed",
    "unchanged",
];

/// The counters, resolved once.
pub struct ClusterMetrics {
    purges: [IntCounter; ARRIVALS.len()],
    foreign: IntCounter,
    values: [IntCounter; OUTCOMES.len()],
    nodes: IntGauge,
}

impl ClusterMetrics {
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let purges = IntCounterVec::new(
            Opts::new(
                "lamina_cluster_purges_total",
                "Purges of other nodes that were applied, by how they arrived.",
            ),
            &["arrival"],
        )?;
        let values = IntCounterVec::new(
            Opts::new(
                "lamina_cluster_values_total",
                "Values of other nodes by outcome on this node (changed, unchanged: those too \
                 large to be published).",
            ),
            &["outcome"],
        )?;
        let foreign = IntCounter::new(
            "lamina_cluster_foreign_total",
            "Events of other programs that were applied.",
        )?;
        let nodes = IntGauge::new("lamina_cluster_nodes", "Other nodes that are known.")?;
        registry.register(Box::new(purges.clone()))?;
        registry.register(Box::new(values.clone()))?;
        registry.register(Box::new(foreign.clone()))?;
        registry.register(Box::new(nodes.clone()))?;
        Ok(Self {
            purges: ARRIVALS.map(|arrival| purges.with_label_values(&[arrival])),
            foreign,
            values: OUTCOMES.map(|outcome| values.with_label_values(&[outcome])),
            nodes,
        })
    }

    pub fn purge(&self, arrival: PurgeCountVerdict) {
        let at = match arrival {
            PurgeCountVerdict::Whole => 0,
            PurgeCountVerdict::Hole(_)
            | PurgeCountVerdict::Stranger
            | PurgeCountVerdict::Lost
            | PurgeCountVerdict::Crowd => 1,
            PurgeCountVerdict::Late => 2,
        };
        self.purges[at].inc();
    }

    pub fn foreign(&self) {
        self.foreign.inc();
    }

    pub fn value(&self, outcome: PrimeOutcome) {
        self.values[outcome as usize].inc();
    }

    pub fn nodes(&self, nodes: usize) {
        self.nodes.set(nodes as i64);
    }
}
