//! Whether the store accepts this node's purges, returns those of other nodes, and accepts writes
//! (where the store reports that by itself). This is the only source for what `/readyz`, `nodes`,
//! heartbeats, metrics and the log say about it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntGauge, Registry};

use super::guard::{StoreCallError, StoreGuard};
use super::store::{StoreError, StoreRefusal};

/// The health of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreHealth {
    Whole,
    /// Since when, and why, purges are not exchanged in one direction or nothing is written.
    Degraded {
        since: Instant,
        why: String,
    },
}

/// A direction in which the store is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StoreChannel {
    /// This node's purges into the store's log.
    Appends,
    /// Purges of other nodes out of the store's log.
    Follows,
    /// All writes, for a store that reports their failures by itself.
    Writes,
}

/// The state of all channels.
pub(super) struct StoreHealthTracker {
    paths: [Mutex<Option<StoreChannelFault>>; 3],
    gauge: IntGauge,
    evicts: IntGauge,
}

/// A channel that does not work.
struct StoreChannelFault {
    since: Instant,
    why: String,
    /// The store answered with a refusal, or reports that it accepts nothing.
    is_certain: bool,
    was_told: bool,
}

/// The warning for a store that may evict its purge log.
pub const EVICTS: &str = "Redis may evict any key when its memory is full, including the purge \
                          log; each time, everything stored is hidden and loaded again: set \
                          maxmemory-policy volatile-ttl, which evicts only keys that expire \
                          (records do, the purge log does not)";

/// If a store does not answer for this long, it is degraded.
const HICCUP: Duration = Duration::from_secs(1);

impl StoreHealthTracker {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = IntGauge::new(
            "lamina_l2_degraded",
            "1 while purges are not written to the second tier's log, or not read from it, or \
             nothing can be written to the second tier.",
        )?;
        let evicts = IntGauge::new(
            "lamina_l2_evicts_purge_log",
            "1 while the second tier may evict its purge log when its memory is full.",
        )?;
        registry.register(Box::new(gauge.clone()))?;
        registry.register(Box::new(evicts.clone()))?;
        Ok(Self {
            paths: Default::default(),
            gauge,
            evicts,
        })
    }

    /// Sets whether the store may evict the log.
    pub(super) fn evicts(&self, evicts: bool) {
        self.evicts.set(i64::from(evicts));
    }

    /// Follows what the store reports about its writes. It never returns for a store that does.
    pub(super) async fn watch_writes(&self, guard: &StoreGuard) {
        let Some(mut writes) = guard.store.writes() else {
            return;
        };
        loop {
            let why = writes.borrow_and_update().clone();
            match why {
                Some(why) => {
                    guard.count_refusal(&why);
                    self.fails(StoreChannel::Writes, &StoreCallError::Store(why));
                }
                None => self.works(StoreChannel::Writes),
            }
            if writes.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn works(&self, path: StoreChannel) {
        let Some(trouble) = self.paths[path as usize].lock().take() else {
            return;
        };
        self.note();
        if trouble.was_told {
            let seconds = trouble.since.elapsed().as_secs_f64();
            let seconds = (seconds * 10.0).round() / 10.0;
            tracing::info!(seconds, "the second tier {} again", path.in_words());
        }
    }

    pub(super) fn fails(&self, path: StoreChannel, failed: &StoreCallError) {
        let now = Instant::now();
        let refusal = match failed {
            StoreCallError::Store(StoreError::Refused(refusal, _)) => Some(*refusal),
            StoreCallError::Store(_) | StoreCallError::Skipped | StoreCallError::Busy => None,
        };
        let why = match failed {
            StoreCallError::Store(error) => error.with_remedy(),
            StoreCallError::Skipped | StoreCallError::Busy => failed.to_string(),
        };
        let mut place = self.paths[path as usize].lock();
        let trouble = place.get_or_insert_with(|| StoreChannelFault {
            since: now,
            why: String::new(),
            is_certain: false,
            was_told: false,
        });
        trouble.is_certain = refusal.is_some() || path == StoreChannel::Writes;
        trouble.why = why;
        // A store that does not answer is logged by its connection, and one that accepts no writes of
        // any kind only as a failure of `Writes`.
        let is_told_here = refusal.is_some_and(StoreRefusal::may_be_of_purges_alone);
        if (is_told_here || path == StoreChannel::Writes) && !trouble.was_told {
            trouble.was_told = true;
            let why = &trouble.why;
            match path {
                StoreChannel::Appends => tracing::warn!(
                    %why,
                    "the second tier accepts no purges: they apply on this node, wait, and are \
                     tried again; nodes without an event bus do not learn of them"
                ),
                StoreChannel::Follows => tracing::warn!(
                    %why,
                    "the purges of other nodes can't be read from the second tier; it is tried \
                     again"
                ),
                StoreChannel::Writes if refusal == Some(StoreRefusal::OutOfMemory) => {
                    tracing::warn!(
                        %why,
                        "the second tier is full and stores nothing new: loaded content is kept in \
                         memory only; purges get into its log nevertheless, from version 7 of Redis \
                         on; it is tried again"
                    );
                }
                StoreChannel::Writes => tracing::warn!(
                    %why,
                    "the second tier accepts no writes: loaded content is kept in memory only, \
                     purges apply on this node and wait; it is tried again"
                ),
            }
        }
        drop(place);
        self.note();
    }

    pub(super) fn get(&self, now: Instant) -> StoreHealth {
        let troubles = self.paths.iter().filter_map(|path| {
            let trouble = path.lock();
            let trouble = trouble.as_ref()?;
            let lasts = now.saturating_duration_since(trouble.since) >= HICCUP;
            (trouble.is_certain || lasts).then(|| (trouble.since, trouble.why.clone()))
        });
        match troubles.min_by_key(|(since, _)| *since) {
            Some((since, why)) => StoreHealth::Degraded { since, why },
            None => StoreHealth::Whole,
        }
    }

    fn note(&self) {
        let is_degraded = self.get(Instant::now()) != StoreHealth::Whole;
        self.gauge.set(i64::from(is_degraded));
    }
}

impl StoreChannel {
    fn in_words(self) -> &'static str {
        match self {
            Self::Appends => "accepts purges",
            Self::Follows => "reports the purges of other nodes",
            Self::Writes => "accepts writes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(why: StoreRefusal) -> StoreCallError {
        StoreCallError::Store(StoreError::Refused(
            why,
            "OOM command not allowed".to_owned(),
        ))
    }

    #[test]
    fn a_refusal_counts_at_once_and_silence_when_it_lasts() {
        let standing = StoreHealthTracker::new(&Registry::new()).unwrap();
        assert_eq!(standing.get(Instant::now()), StoreHealth::Whole);
        standing.fails(
            StoreChannel::Follows,
            &StoreCallError::Store(StoreError::Timeout),
        );
        assert_eq!(standing.get(Instant::now()), StoreHealth::Whole);
        let later = Instant::now() + HICCUP;
        assert!(matches!(standing.get(later), StoreHealth::Degraded { .. }));
        standing.fails(StoreChannel::Appends, &refused(StoreRefusal::OutOfMemory));
        assert_eq!(standing.gauge.get(), 1);
        standing.works(StoreChannel::Follows);
        let StoreHealth::Degraded { why, .. } = standing.get(Instant::now()) else {
            panic!("purges are refused");
        };
        assert!(why.contains("maxmemory"), "{why}");
        standing.works(StoreChannel::Appends);
        assert_eq!(standing.get(later), StoreHealth::Whole);
        assert_eq!(standing.gauge.get(), 0);
    }
}
