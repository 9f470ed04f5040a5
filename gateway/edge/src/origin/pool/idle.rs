//! HTTP/1.1 connections between two requests.
//!
//! The last one that came is the first to go out again, so that those which are not needed grow old.
//! A connection is looked at before it is used: its origin may have closed it, or may have sent
//! bytes that nobody asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lamina_base::turn_clock;
use parking_lot::Mutex;
use tokio::task::yield_now;

use super::endings::WantedAddresses;
use super::http1::Http1Connection;
use super::limits::PoolLimits;

/// The idle connections to one target.
pub(super) struct IdleConnections {
    lanes: Box<[Mutex<Vec<IdleHttp1Connection>>]>,
    /// How many there are in all lanes.
    count: AtomicUsize,
    limits: PoolLimits,
    wanted: Arc<WantedAddresses>,
    learned: LearnedIdleLimit,
}

struct IdleHttp1Connection {
    connection: Http1Connection,
    since: Instant,
    /// How long it may stay idle.
    limit: Duration,
}

/// How long connections may be idle, as learned from some that the origin had closed.
///
/// Many origins close after five seconds and do not say so, and a request that is sent at that
/// moment is lost. It is forgotten after a while, since a restart of the origin looks the same.
struct LearnedIdleLimit {
    began: Instant,
    /// Milliseconds; 0 if nothing was learned.
    limit: AtomicU32,
    /// Seconds since `began`.
    learned_at: AtomicU32,
}

/// The least that is learned: less would mean that no connection is kept.
const LEAST_LEARNED: Duration = Duration::from_secs(1);
/// How long it is kept.
const LEARNED_FOR: Duration = Duration::from_secs(600);
/// Connections are closed this long before the origin says that it will.
const BEFORE_THE_ORIGIN: Duration = Duration::from_secs(1);
/// If the origin keeps connections no longer than that, a part of it is taken.
const BRIEF: Duration = Duration::from_millis(500);

impl IdleConnections {
    pub(super) fn new(lanes: usize, limits: PoolLimits, wanted: Arc<WantedAddresses>) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            limits,
            wanted,
            learned: LearnedIdleLimit {
                began: Instant::now(),
                limit: AtomicU32::new(0),
                learned_at: AtomicU32::new(0),
            },
        }
    }

    /// Takes a connection of this lane that stands.
    pub(super) async fn take(&self, lane: usize) -> Option<Http1Connection> {
        if self.lanes[lane].lock().is_empty() {
            return None;
        }
        // Yielding lets pending input be read first, so that a connection that its origin has
        // closed is recognized: a request sent on it cannot always be sent again.
        yield_now().await;
        loop {
            let mut idle = self.lanes[lane].lock().pop()?;
            self.count.fetch_sub(1, Relaxed);
            let now = turn_clock::now();
            if self.admits(&idle.connection, now) && idle.is_usable(now) {
                let waited = now.saturating_duration_since(idle.since);
                idle.connection.waited(waited);
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection whose exchange has ended, if it can be used again. `said` is how long the
    /// origin keeps it (`Keep-Alive: timeout`).
    pub(super) fn keep(&self, mut connection: Http1Connection, said: Option<Duration>) {
        let (limit, now) = (self.limit(said), turn_clock::now());
        if limit.is_zero()
            || !self.admits(&connection, now)
            || !connection.is_idle()
            || !self.has_room()
        {
            return;
        }
        let lane = connection.lane();
        self.lanes[lane].lock().push(IdleHttp1Connection {
            connection,
            since: now,
            limit,
        });
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Notes that an origin had closed a connection which was idle for this long.
    pub(super) fn learn(&self, idle: Duration) {
        self.learned.learn(idle);
    }

    pub(super) fn close_unused(&self, now: Instant) {
        for lane in &self.lanes {
            let mut lane = lane.lock();
            let before = lane.len();
            lane.retain_mut(|idle| self.admits(&idle.connection, now) && idle.is_usable(now));
            self.count.fetch_sub(before - lane.len(), Relaxed);
        }
    }

    fn admits(&self, connection: &Http1Connection, now: Instant) -> bool {
        self.wanted.admit(connection.origin(), self.limits, now)
    }

    /// Closes all of them.
    pub(super) fn close_all(&self) {
        for lane in &self.lanes {
            let closed = std::mem::take(&mut *lane.lock());
            self.count.fetch_sub(closed.len(), Relaxed);
        }
    }

    /// Counts one more connection, unless there are `max_idle`.
    fn has_room(&self) -> bool {
        let counted = self.count.fetch_update(Relaxed, Relaxed, |count| {
            (count < self.limits.max_idle).then_some(count + 1)
        });
        counted.is_ok()
    }

    fn limit(&self, said: Option<Duration>) -> Duration {
        let said = said.map(|said| said.saturating_sub(BEFORE_THE_ORIGIN).max(said.min(BRIEF)));
        let limits = [Some(self.limits.idle), said, self.learned.get()];
        limits.into_iter().flatten().min().unwrap_or_default()
    }
}

impl IdleHttp1Connection {
    fn is_usable(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < self.limit && self.connection.is_idle()
    }
}

impl LearnedIdleLimit {
    fn get(&self) -> Option<Duration> {
        let limit = self.limit.load(Relaxed);
        if limit == 0 {
            return None;
        }
        let age = self.now().saturating_sub(self.learned_at.load(Relaxed));
        let valid = u64::from(age) < LEARNED_FOR.as_secs();
        valid.then(|| Duration::from_millis(limit.into()))
    }

    fn learn(&self, idle: Duration) {
        let found = (idle * 4 / 5).max(LEAST_LEARNED);
        let least = self.get().map_or(found, |known| known.min(found));
        let millis = u32::try_from(least.as_millis()).unwrap_or(u32::MAX);
        self.limit.store(millis, Relaxed);
        self.learned_at.store(self.now(), Relaxed);
    }

    fn now(&self) -> u32 {
        u32::try_from((turn_clock::now() - self.began).as_secs()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::config::UpstreamConfig;

    /// Connections that may be idle for a minute.
    fn connections() -> IdleConnections {
        let upstream = UpstreamConfig::from_url("http://a");
        let limits = PoolLimits {
            idle: Duration::from_secs(60),
            ..PoolLimits::new(&upstream)
        };
        IdleConnections::new(1, limits, Arc::default())
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_connection_is_closed_a_second_before_its_origin_would() {
        let connections = connections();
        for (said, limit) in [
            (None, 60_000),
            (Some(120_000), 60_000),
            (Some(61_000), 60_000),
            (Some(5_000), 4_000),
            (Some(2_000), 1_000),
            // A second less would leave nothing.
            (Some(1_000), 500),
            (Some(0), 0),
        ] {
            assert_eq!(
                connections.limit(said.map(millis)),
                millis(limit),
                "{said:?}"
            );
        }
    }

    #[test]
    fn what_was_closed_teaches_four_fifths_of_the_least_time() {
        let connections = connections();
        connections.learn(millis(10_000));
        assert_eq!(connections.limit(None), millis(8_000));
        connections.learn(millis(5_000));
        assert_eq!(connections.limit(None), millis(4_000), "the least holds");
        connections.learn(millis(20_000));
        assert_eq!(connections.limit(None), millis(4_000), "the least holds");
        assert_eq!(connections.limit(Some(millis(3_000))), millis(2_000));
        assert_eq!(connections.limit(Some(millis(30_000))), millis(4_000));
        connections.learn(millis(10));
        assert_eq!(connections.limit(None), LEAST_LEARNED);
    }
}
