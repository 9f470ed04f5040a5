//! A limit that nodes share: each holds leases, so that a request waits for Redis once a lease at
//! most, and never for longer than [`PATIENCE`].
//!
//! While Redis is away a node admits its part of the rate, counted by the nodes that the bus knows.
//! What was admitted by leases is counted there as well, so that a node whose Redis goes away does
//! not begin with a full allowance.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::bucket::BucketTerms;
use super::lease::{self, LeaseTake, MOST_LEASED};
use super::redis::{LeaseGrant, LimitRedis, LimitRedisSettings};
use super::table::KeyTable;
use crate::breaker::Breaker;

/// The longest that a request waits for Redis.
const PATIENCE: Duration = Duration::from_millis(5);

/// So many calls in a row that fail mean that Redis is away.
const FAILURES: u32 = 3;

/// How long Redis is left alone then.
const COOLDOWN: Duration = Duration::from_millis(500);

/// The part of a full allowance that is leased at once.
const LEASED_PART: u64 = 20;

/// The shortest time that a lease holds.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// The way to the nodes' store, for all limits of the process.
pub struct LimitLink {
    /// None: there is no Redis.
    settings: Option<LimitRedisSettings>,
    store: OnceLock<LimitRedis>,
    breaker: Breaker,
    /// How many nodes there are, with this one.
    nodes: AtomicU64,
    began: Instant,
}

/// The shares of one limit that this node holds.
pub struct HeldShares {
    held: KeyTable,
    /// The questions that are under way.
    asked: Mutex<HashMap<u64, watch::Receiver<LeaseCall>>>,
}

/// What has become of a question to Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LeaseCall {
    UnderWay,
    Answered,
    Failed,
}

/// An allowance of a limit that nodes share.
pub struct SharedAllowance<'a> {
    pub limit: &'a Arc<str>,
    pub terms: BucketTerms,
    pub hash: u64,
    /// Its name in Redis.
    pub name: &'a (dyn Fn() -> String + Sync),
}

/// What came of asking for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharedOutcome {
    Admitted {
        left: u64,
    },
    Refused {
        wait: Duration,
    },
    /// Redis can't be asked, or has not answered in time.
    Unknown,
}

impl LimitLink {
    /// A way that is not open yet.
    pub fn new(settings: Option<LimitRedisSettings>) -> Self {
        Self {
            settings,
            store: OnceLock::new(),
            breaker: Breaker::new(FAILURES, COOLDOWN),
            nodes: AtomicU64::new(1),
            began: Instant::now(),
        }
    }

    /// Connects, unless it has done so before. Needs a tokio runtime.
    pub fn open(&self) {
        if let Some(settings) = &self.settings {
            self.store.get_or_init(|| LimitRedis::open(settings));
        }
    }

    /// How many nodes there are, with this one.
    pub fn nodes(&self) -> u64 {
        self.nodes.load(Ordering::Relaxed)
    }

    /// Tells how many nodes there are, with this one.
    pub fn set_nodes(&self, nodes: u64) {
        self.nodes.store(nodes.max(1), Ordering::Relaxed);
    }

    /// Milliseconds since the process began, and a bit, so that no moment is 0.
    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }

    fn is_connected(&self) -> bool {
        self.store.get().is_some_and(LimitRedis::is_connected)
    }
}

impl HeldShares {
    /// Nothing is held of any of so many allowances.
    pub fn new(keys: usize) -> Self {
        Self {
            held: KeyTable::new(keys),
            asked: Mutex::default(),
        }
    }

    /// Whether a request would be refused, as far as that is known.
    pub fn is_used_up(&self, hash: u64, link: &LimitLink) -> bool {
        let known = self.held.known(hash);
        known.is_some_and(|number| {
            matches!(
                lease::look(number, link.millis()),
                LeaseTake::Refused { .. }
            )
        })
    }

    /// Takes a request from what this node holds, and leases more if nothing is left.
    pub async fn take(
        self: &Arc<Self>,
        allowance: &SharedAllowance<'_>,
        link: &Arc<LimitLink>,
    ) -> SharedOutcome {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.take_held(allowance.hash, link.millis()) {
                LeaseTake::Admitted { left } => return SharedOutcome::Admitted { left },
                LeaseTake::Refused { wait } => {
                    let wait = Duration::from_millis(wait);
                    return SharedOutcome::Refused { wait };
                }
                LeaseTake::Unknown => {}
            }
            let Some(call) = self.ask(allowance, link) else {
                return SharedOutcome::Unknown;
            };
            if outcome(call, deadline).await != LeaseCall::Answered {
                return SharedOutcome::Unknown;
            }
        }
    }

    /// Takes a request from what this node holds.
    fn take_held(&self, hash: u64, now: u64) -> LeaseTake {
        let mut taken = LeaseTake::Unknown;
        self.held.update(hash, |number| {
            let (next, outcome) = match number {
                Some(number) => lease::take(number, now),
                None => (None, LeaseTake::Unknown),
            };
            taken = outcome;
            next
        });
        taken
    }

    /// The question for an allowance that is under way, or a new one. None: Redis is away.
    fn ask(
        self: &Arc<Self>,
        allowance: &SharedAllowance<'_>,
        link: &Arc<LimitLink>,
    ) -> Option<watch::Receiver<LeaseCall>> {
        if !link.is_connected() {
            return None;
        }
        let mut asked = self.asked.lock();
        if let Some(call) = asked.get(&allowance.hash) {
            return Some(call.clone());
        }
        let permit = link.breaker.admit(Instant::now())?;
        let (tell, call) = watch::channel(LeaseCall::UnderWay);
        asked.insert(allowance.hash, call.clone());
        let (this, link) = (Arc::clone(self), Arc::clone(link));
        let (limit, name) = (Arc::clone(allowance.limit), (allowance.name)());
        let (terms, hash) = (allowance.terms, allowance.hash);
        // A task of its own: a lease that comes too late for this request is there for the next.
        tokio::spawn(async move {
            let came = this.lease((&limit, &name), terms, hash, &link).await;
            let now = Instant::now();
            match came {
                LeaseCall::Answered => link.breaker.succeeded(&permit),
                LeaseCall::Failed | LeaseCall::UnderWay => {
                    link.breaker.failed(&permit, now);
                }
            }
            this.asked.lock().remove(&hash);
            // Nobody may wait any more.
            let _ = tell.send(came);
        });
        Some(call)
    }

    /// Leases requests, and notes what this node holds then.
    async fn lease(
        &self,
        (limit, name): (&str, &str),
        terms: BucketTerms,
        hash: u64,
        link: &LimitLink,
    ) -> LeaseCall {
        let Some(store) = link.store.get() else {
            return LeaseCall::Failed;
        };
        let wanted = (terms.burst / LEASED_PART).clamp(1, MOST_LEASED);
        let granted = match store.lease(limit, name, terms, wanted).await {
            Ok(granted) => granted,
            Err(error) => {
                tracing::debug!(limit, %error, "a shared rate limit was not leased");
                return LeaseCall::Failed;
            }
        };
        let now = link.millis();
        match granted {
            LeaseGrant::Leased { tokens, free } => {
                // After that time the nodes' allowance has grown by as much again.
                let life = Duration::from_nanos(terms.interval.saturating_mul(tokens));
                let until = now + millis(life.max(SHORTEST_LEASE));
                let add = |number| Some(lease::add(number, (tokens, free), until, now));
                self.held.update(hash, add);
            }
            LeaseGrant::Nothing { wait } => {
                let refuse = |number| lease::refuse(number, now + millis(wait), now);
                self.held.update(hash, refuse);
            }
        }
        LeaseCall::Answered
    }
}

/// What has become of a question, at the latest at the deadline.
async fn outcome(
    mut call: watch::Receiver<LeaseCall>,
    deadline: tokio::time::Instant,
) -> LeaseCall {
    let answered = call.wait_for(|call| *call != LeaseCall::UnderWay);
    match timeout_at(deadline, answered).await {
        Ok(Ok(call)) => *call,
        Ok(Err(_)) => LeaseCall::Failed,
        Err(_) => LeaseCall::UnderWay,
    }
}

/// In whole milliseconds, and at least one.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_micros().div_ceil(1_000))
        .unwrap_or(u64::MAX >> 32)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LM7, by a clock that goes on only when everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_redis_for_five_milliseconds_and_not_longer() {
        let now = tokio::time::Instant::now;
        let (tell, call) = watch::channel(LeaseCall::UnderWay);
        let began = now();
        let late = outcome(call.clone(), began + PATIENCE).await;
        assert_eq!(late, LeaseCall::UnderWay);
        let waited = began.elapsed();
        let patience = Duration::from_millis(5)..=Duration::from_millis(6);
        assert!(patience.contains(&waited), "{waited:?}");
        let began = now();
        let _ = tell.send(LeaseCall::Answered);
        let answered = outcome(call.clone(), began + PATIENCE).await;
        assert_eq!(
            (answered, began.elapsed()),
            (LeaseCall::Answered, Duration::ZERO)
        );
        let (tell, gone) = watch::channel(LeaseCall::UnderWay);
        drop(tell);
        assert_eq!(outcome(gone, now() + PATIENCE).await, LeaseCall::Failed);
    }
}
