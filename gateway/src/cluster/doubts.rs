//! What may have been missed, and how it is made good.
//!
//! A doubt hides nothing: what was stored before it is validated at its origin before it
//! is shown ([`Cache::doubt`]). It ends as soon as it's known what was missed: from the
//! purge log that all nodes follow, or from the durable transport, which delivers what it
//! kept. Without either it stays, and each entry is validated once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};

use crate::cache::Cache;
use crate::cache::purge::{Lasts, Order};

/// The doubts of this node.
pub struct Doubts {
    cache: Arc<Cache>,
    /// The newest, while it can be made good and is not.
    open: Mutex<Option<Order>>,
    /// The newest that ends when the transport has delivered what it kept.
    awaits_delivery: Mutex<Option<Order>>,
    gaps: IntCounter,
    gauge: IntGauge,
}

/// Between two looks at the log, growing.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Doubts {
    /// # Errors
    /// When the registry has them already.
    pub fn new(cache: Arc<Cache>, registry: &Registry) -> prometheus::Result<Self> {
        let gaps = IntCounter::new(
            "lamina_cluster_gaps_total",
            "Times that purges of other nodes may have been missed.",
        )?;
        let gauge = IntGauge::new(
            "lamina_cluster_gap_open",
            "1 while it is being found out what was missed.",
        )?;
        registry.register(Box::new(gaps.clone()))?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self {
            cache,
            open: Mutex::new(None),
            awaits_delivery: Mutex::new(None),
            gaps,
            gauge,
        })
    }

    /// Whether one is being made good.
    pub fn are_open(&self) -> bool {
        self.open.lock().is_some()
    }

    /// Purges may have been missed until now.
    pub fn open(self: &Arc<Self>, why: &'static str) {
        if self.cache.shares_log() {
            let doubt = self.begin(why, Lasts::UntilKnown);
            tokio::spawn(Arc::clone(self).read_log(doubt));
        } else {
            // Nobody can tell what was missed; it is not being made good.
            let doubt = self.begin(why, Lasts::ForGood);
            self.end(doubt);
        }
    }

    /// Purges have been missed, and the transport delivers them now.
    pub fn open_until_caught_up(self: &Arc<Self>) {
        let why = "the bus was not heard for a while, and kept what was told";
        let doubt = self.begin(why, Lasts::UntilKnown);
        *self.awaits_delivery.lock() = Some(doubt);
    }

    /// The transport has delivered what it kept.
    pub fn caught_up(&self) {
        if let Some(doubt) = self.awaits_delivery.lock().take() {
            self.cache.trust(doubt);
            self.end(doubt);
        }
    }

    fn begin(&self, why: &'static str, lasts: Lasts) -> Order {
        let mut open = self.open.lock();
        let doubt = self.cache.doubt(lasts);
        *open = Some(doubt);
        self.gaps.inc();
        self.gauge.set(1);
        tracing::info!(why, "what is stored is in doubt");
        doubt
    }

    async fn read_log(self: Arc<Self>, doubt: Order) {
        let mut pause = PAUSE_MIN;
        while !self.cache.catch_up().await {
            if *self.open.lock() != Some(doubt) {
                // A later doubt covers this one.
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.cache.trust(doubt);
        self.end(doubt);
    }

    fn end(&self, doubt: Order) {
        let mut open = self.open.lock();
        if *open == Some(doubt) {
            *open = None;
            self.gauge.set(0);
        }
    }
}
