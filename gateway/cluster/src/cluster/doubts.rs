//! Doubts: what may have been missed, and how a doubt is resolved.
//!
//! A doubt hides nothing: what was stored before it is validated at its origin before it is shown
//! ([`Cache::doubt`]). It ends as soon as it is known what was missed: from the purge log that all
//! nodes follow, or from the durable transport, which delivers what it kept. Without either it
//! stays, and each entry is validated once.
//!
//! A doubt costs one request to the origin for each entry. Therefore an event that is not
//! authenticated may open one only at a limited rate ([`DoubtTracker::open_seldom`]); a doubt that
//! comes too soon is opened later, and covers all that came in the meantime.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::time::Instant;

use super::inheritance::DoubtCount;
use crate::cache::Cache;
use crate::cache::purge::{DoubtDuration, PurgeOrder};

/// The doubts of this node.
pub struct DoubtTracker {
    cache: Arc<Cache>,
    /// The newest one, while it can be resolved and is not yet.
    open: Mutex<Option<PurgeOrder>>,
    /// The newest one that ends when the transport has delivered what it kept.
    awaits_delivery: Mutex<Option<PurgeOrder>>,
    inheritance: Mutex<AwaitedInheritance>,
    seldom: Mutex<[DoubtBudget; 2]>,
    gaps: IntCounter,
    gauge: IntGauge,
}

/// Whether it will be known what another process of this node has heard before this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AwaitedInheritance {
    No,
    /// Until then the doubts of joining can be resolved.
    Yes,
    /// This process has missed something by itself.
    Forfeited,
}

/// Why an event that is not authenticated may open a doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnprovenDoubt {
    /// A node that is not known, or whose history is lost.
    Stranger,
    /// A hole in the numbers of a node that is known.
    Hole,
}

/// How often one kind of them may open a doubt.
struct DoubtBudget {
    most: u32,
    every: Duration,
    left: u32,
    /// When `left` was last increased.
    filled: Instant,
    /// A doubt that came too soon waits for its time.
    waits: bool,
}

/// Pauses between two looks at the log; they grow.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl DoubtTracker {
    /// # Errors
    /// When the registry has them already.
    pub fn new(cache: Arc<Cache>, registry: &Registry) -> prometheus::Result<Self> {
        let gaps = IntCounter::new(
            "lamina_cluster_gaps_total",
            "Times that purges of other nodes may have been missed.",
        )?;
        let gauge = IntGauge::new(
            "lamina_cluster_gap_open",
            "1 while this node finds out which purges it missed.",
        )?;
        registry.register(Box::new(gaps.clone()))?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self {
            cache,
            open: Mutex::new(None),
            awaits_delivery: Mutex::new(None),
            inheritance: Mutex::new(AwaitedInheritance::No),
            seldom: Mutex::new([
                DoubtBudget::new(1, Duration::from_secs(60)),
                DoubtBudget::new(10, Duration::from_secs(6)),
            ]),
            gaps,
            gauge,
        })
    }

    /// Whether one is being resolved.
    pub fn are_open(&self) -> bool {
        self.open.lock().is_some()
    }

    /// Whether this node is in doubt for a reason that may last. While it is still to come what the
    /// process before has heard, that one serves.
    pub fn are_reported(&self) -> bool {
        self.are_open() && !self.await_what_was_heard()
    }

    /// Whether the transport still delivers what it kept.
    pub fn await_delivery(&self) -> bool {
        self.awaits_delivery.lock().is_some()
    }

    /// Whether one came too soon, and is opened later.
    pub fn are_delayed(&self) -> bool {
        self.seldom.lock().iter().any(|budget| budget.waits)
    }

    /// How often one was opened.
    pub fn so_far(&self) -> DoubtCount {
        DoubtCount(self.gaps.get())
    }

    /// The process before will tell what it has heard.
    pub fn await_inheritance(&self) {
        *self.inheritance.lock() = AwaitedInheritance::Yes;
    }

    /// Whether that is still to come, and this process has missed nothing by itself.
    pub fn await_what_was_heard(&self) -> bool {
        *self.inheritance.lock() == AwaitedInheritance::Yes
    }

    /// Opens a doubt because this process has only just joined the others. It ends when the process
    /// before has told that nothing was missed.
    pub fn open_by_joining(self: &Arc<Self>, why: &'static str) {
        // Held, so that the doubts of joining are not settled before this one is there.
        let awaited = self.inheritance.lock();
        if *awaited == AwaitedInheritance::Yes {
            self.begin(why, DoubtDuration::UntilKnown);
            return;
        }
        drop(awaited);
        self.open(why);
    }

    /// It is known whether all purges came to this process or the one before. Returns whether the
    /// doubts of joining ended by that.
    pub fn settle(self: &Arc<Self>, is_whole: bool) -> bool {
        let mut awaited = self.inheritance.lock();
        let was = std::mem::replace(&mut *awaited, AwaitedInheritance::No);
        if was != AwaitedInheritance::Yes {
            return false;
        }
        if is_whole {
            let doubt = *self.open.lock();
            if let Some(doubt) = doubt {
                self.cache.trust(doubt);
                self.end(doubt);
            }
            return true;
        }
        drop(awaited);
        self.open("it is not known whether the process before has heard all purges");
        false
    }

    /// This process may have missed what the one before can't know of.
    fn forfeit_inheritance(&self) {
        let mut awaited = self.inheritance.lock();
        if *awaited == AwaitedInheritance::Yes {
            *awaited = AwaitedInheritance::Forfeited;
        }
    }

    /// Opens a doubt: purges may have been missed until now.
    pub fn open(self: &Arc<Self>, why: &'static str) {
        self.forfeit_inheritance();
        if self.cache.shares_log() {
            let doubt = self.begin(why, DoubtDuration::UntilKnown);
            tokio::spawn(Arc::clone(self).read_log(doubt));
        } else {
            // It can't be known what was missed, so this doubt is not resolved.
            let doubt = self.begin(why, DoubtDuration::ForGood);
            self.end(doubt);
        }
    }

    /// Opens a doubt because of an event that is not authenticated: now, or later within the rate
    /// limit.
    pub fn open_seldom(self: &Arc<Self>, cause: UnprovenDoubt, why: &'static str) {
        if self.await_what_was_heard() {
            // It may be opened later, and then what this process begins with would be certain until
            // then.
            return self.open(why);
        }
        let turn = self.seldom.lock()[cause as usize].ask(Instant::now());
        match turn {
            RationTurn::Now => self.open(why),
            RationTurn::Waiting => {}
            RationTurn::At(time) => {
                let doubts = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep_until(time).await;
                    doubts.open_that_waited(cause, time, why);
                });
            }
        }
    }

    /// Held until it is open: nobody finds that none waits while it is not there yet, and none that
    /// comes meanwhile counts as covered by it.
    fn open_that_waited(self: &Arc<Self>, cause: UnprovenDoubt, time: Instant, why: &'static str) {
        let mut seldom = self.seldom.lock();
        self.open(why);
        seldom[cause as usize].came(time);
    }

    /// Opens a doubt: purges were missed, and the transport delivers them now.
    pub fn open_until_caught_up(self: &Arc<Self>) {
        let why = "this node received no events for a while, and the bus kept them";
        let doubt = self.begin(why, DoubtDuration::UntilKnown);
        *self.awaits_delivery.lock() = Some(doubt);
    }

    /// The transport has delivered what it kept: ends the doubt that waits for it.
    pub fn caught_up(&self) {
        if let Some(doubt) = self.awaits_delivery.lock().take() {
            self.cache.trust(doubt);
            self.end(doubt);
        }
    }

    fn begin(&self, why: &'static str, lasts: DoubtDuration) -> PurgeOrder {
        let mut open = self.open.lock();
        let doubt = self.cache.doubt(lasts);
        *open = Some(doubt);
        self.gaps.inc();
        self.gauge.set(1);
        tracing::info!(
            why,
            "purges of other nodes may have been missed: stored entries are validated before they \
             are served"
        );
        doubt
    }

    async fn read_log(self: Arc<Self>, doubt: PurgeOrder) {
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

    fn end(&self, doubt: PurgeOrder) {
        let mut open = self.open.lock();
        if *open == Some(doubt) {
            *open = None;
            self.gauge.set(0);
        }
    }
}

/// When a doubt may be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RationTurn {
    Now,
    At(Instant),
    /// One waits already, and covers this one too.
    Waiting,
}

impl DoubtBudget {
    fn new(most: u32, every: Duration) -> Self {
        Self {
            most,
            every,
            left: most,
            filled: Instant::now(),
            waits: false,
        }
    }

    fn ask(&mut self, now: Instant) -> RationTurn {
        if self.waits {
            return RationTurn::Waiting;
        }
        while self.left < self.most && now - self.filled >= self.every {
            self.left += 1;
            self.filled += self.every;
        }
        if self.left == self.most {
            self.filled = now;
        }
        if self.left > 0 {
            self.left -= 1;
            return RationTurn::Now;
        }
        self.waits = true;
        RationTurn::At(self.filled + self.every)
    }

    /// The doubt that waited is opened.
    fn came(&mut self, time: Instant) {
        self.waits = false;
        self.filled = time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_storm_opens_a_few_at_once_then_one_at_a_time() {
        let (mut ration, start) = (DoubtBudget::new(3, Duration::from_secs(6)), Instant::now());
        let mut at_once = 0;
        let mut later = Vec::new();
        for _ in 0..1_000 {
            match ration.ask(start) {
                RationTurn::Now => at_once += 1,
                RationTurn::At(time) => later.push(time),
                RationTurn::Waiting => {}
            }
        }
        let next = start + Duration::from_secs(6);
        assert_eq!((at_once, later), (3, vec![next]));
        ration.came(next);
        assert_eq!(
            ration.ask(next),
            RationTurn::At(next + Duration::from_secs(6))
        );
        ration.came(next + Duration::from_secs(6));
        let quiet = next + Duration::from_secs(600);
        let again = (0..3).map(|_| ration.ask(quiet));
        assert_eq!(again.collect::<Vec<_>>(), [RationTurn::Now; 3]);
    }
}
