//! Guards the store with a deadline, a breaker and a limit of calls, to bound what a slow or dead
//! store may cost.
//!
//! Invariant: no call outlives its deadline, and while the breaker is open no call is made that a
//! request waits for. When the limit of calls is reached, the store is *busy* and not broken: that
//! does not count against it. An explicit refusal by the store does not count either, because it
//! shows that the store is alive.
//!
//! Decision: calls that carry invalidations (appends to the purge log, removals, notes) pass
//! neither the limit nor the breaker. They are retried on a schedule of their own, a bounded number
//! at once, and their failures do not count for other calls. But when the store answers such a
//! call, or a read of the log, the breaker closes at once, whatever is left of its cooldown.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use tokio::sync::Semaphore;

use super::config;
use super::store::{Store, StoreError, StoreRefusal};
use crate::breaker::{Breaker, CircuitState};
use crate::event::{CacheEvent, CacheEventCounters};

/// The store with its guards.
pub struct StoreGuard {
    pub store: Arc<dyn Store>,
    breaker: Breaker,
    gate: Semaphore,
    deadlines: ArcSwap<StoreDeadlines>,
    hooks: Arc<CacheEventCounters>,
    calls: [[IntCounter; OUTCOMES.len()]; CALLS.len()],
    seconds: [Histogram; CALLS.len()],
    refusals: [IntCounter; StoreRefusal::ALL.len()],
    opened: IntGauge,
}

/// The time limits of calls to the store.
struct StoreDeadlines {
    read: Duration,
    write: Duration,
}

impl StoreDeadlines {
    fn of(config: &config::L2Config) -> Self {
        Self {
            read: config.read_timeout.into(),
            write: config.write_timeout.into(),
        }
    }
}

/// The purpose of a call, which decides its deadline and its metric label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreCall {
    Get,
    Put,
    Delete,
    Log,
    /// Reads what others append to the log; it passes no guard.
    Watch,
    Lease,
    /// Renews a lease that is held.
    Renew,
    Release,
    /// Index: notes what was written, lists it, removes what purges hide.
    Note,
    List,
    Clear,
}

const CALLS: [&str; 11] = [
    "get", "put", "delete", "log", "watch", "lease", "renew", "release", "note", "list", "clear",
];
const OUTCOMES: [&str; 9] = [
    "ok",
    "skipped",
    "busy",
    "down",
    "timeout",
    "refused",
    "foreign",
    "corrupt",
    "too-large",
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreCallError {
    /// The breaker is open, so the call was not made.
    #[error("skipped: the circuit breaker is open, because the store failed")]
    Skipped,
    /// Too many calls are under way, so the call was not made.
    #[error("skipped: too many calls are under way")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

const BUCKETS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

impl StoreGuard {
    /// # Errors
    /// When the registry already holds the metrics of a second tier.
    pub fn new(
        store: Arc<dyn Store>,
        config: &config::L2Config,
        hooks: Arc<CacheEventCounters>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let calls = IntCounterVec::new(
            Opts::new(
                "lamina_l2_calls_total",
                "Calls to the second tier by operation and outcome.",
            ),
            &["operation", "outcome"],
        )?;
        let seconds = HistogramOpts::new(
            "lamina_l2_call_duration_seconds",
            "Time of calls to the second tier that were answered.",
        );
        let seconds = HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["operation"])?;
        let refusals = IntCounterVec::new(
            Opts::new(
                "lamina_l2_refusals_total",
                "Calls that the second tier answered with a refusal, by reason.",
            ),
            &["reason"],
        )?;
        let opened = IntGauge::new(
            "lamina_l2_breaker_open",
            "1 while the circuit breaker of the second tier is open, so that no calls are made.",
        )?;
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(refusals.clone()))?;
        registry.register(Box::new(opened.clone()))?;
        Ok(Self {
            store,
            breaker: Breaker::new(
                config.breaker.failure_threshold,
                config.breaker.cooldown.into(),
            ),
            gate: Semaphore::new(config.max_concurrent),
            deadlines: ArcSwap::from_pointee(StoreDeadlines::of(config)),
            hooks,
            calls: CALLS
                .map(|call| OUTCOMES.map(|outcome| calls.with_label_values(&[call, outcome]))),
            seconds: CALLS.map(|call| seconds.with_label_values(&[call])),
            refusals: StoreRefusal::ALL.map(|why| refusals.with_label_values(&[why.as_str()])),
            opened,
        })
    }

    /// Makes a call; `what` gets the store.
    ///
    /// # Errors
    /// See [`StoreCallError`]. Each error is counted here.
    pub async fn call<'a, T, F>(
        &'a self,
        call: StoreCall,
        what: impl FnOnce(&'a dyn Store) -> F,
    ) -> Result<T, StoreCallError>
    where
        F: Future<Output = Result<T, StoreError>> + 'a,
    {
        let began = Instant::now();
        let answer = self.admitted(call, what, began).await;
        self.count(call, &answer);
        if answer.is_ok() {
            self.seconds[call as usize].observe(began.elapsed().as_secs_f64());
        }
        answer
    }

    /// Counts the outcome of a call.
    pub fn count<T>(&self, call: StoreCall, answer: &Result<T, StoreCallError>) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(StoreCallError::Skipped) => "skipped",
            Err(StoreCallError::Busy) => "busy",
            Err(StoreCallError::Store(error)) => error.reason(),
        };
        let outcome = OUTCOMES.iter().position(|known| *known == outcome);
        self.calls[call as usize][outcome.unwrap_or(0)].inc();
        if let Err(StoreCallError::Store(error)) = answer {
            self.count_refusal(error);
        }
    }

    /// Counts a refusal, if it is one: also of a call that the store made by itself.
    pub fn count_refusal(&self, error: &StoreError) {
        if let StoreError::Refused(why, _) = error {
            self.refusals[*why as usize].inc();
        }
    }

    async fn admitted<'a, T, F>(
        &'a self,
        call: StoreCall,
        what: impl FnOnce(&'a dyn Store) -> F,
        began: Instant,
    ) -> Result<T, StoreCallError>
    where
        F: Future<Output = Result<T, StoreError>> + 'a,
    {
        if call.carries_invalidations() {
            let answer = tokio::time::timeout(self.write_timeout(), what(&*self.store)).await;
            let answer = answer.unwrap_or(Err(StoreError::Timeout));
            if answer.is_ok() {
                self.answered();
            }
            return Ok(answer?);
        }
        // Calls that a request waits for must not queue; background calls may.
        let _place = match call.is_waited_for() {
            true => self.gate.try_acquire().ok(),
            false => self.gate.acquire().await.ok(),
        }
        .ok_or(StoreCallError::Busy)?;
        let permit = self.breaker.admit(began).ok_or(StoreCallError::Skipped)?;
        let answer = tokio::time::timeout(self.deadline(call), what(&*self.store)).await;
        let answer = answer.unwrap_or(Err(StoreError::Timeout));
        match &answer {
            Err(error @ (StoreError::Down(_) | StoreError::Timeout)) => {
                if self.breaker.failed(&permit, Instant::now()) {
                    tracing::warn!(
                        store = self.store.kind(),
                        %error,
                        "second tier circuit open: calls failed repeatedly and are skipped until \
                         cache.l2.breaker.cooldown is over"
                    );
                }
            }
            Ok(_) | Err(_) => self.breaker.succeeded(&permit),
        }
        self.note(self.breaker.passage());
        Ok(answer?)
    }

    /// Notes that the store has answered, so calls are made again.
    pub fn answered(&self) {
        if self.breaker.passage() != CircuitState::Closed {
            self.breaker.close();
            self.note(CircuitState::Closed);
        }
    }

    fn note(&self, passage: CircuitState) {
        let open = i64::from(passage != CircuitState::Closed);
        if self.opened.get() != open {
            self.opened.set(open);
            self.hooks.emit(CacheEvent::Breaker(passage));
        }
    }

    /// The deadline of a read.
    pub fn read_timeout(&self) -> Duration {
        self.deadlines.load().read
    }

    fn write_timeout(&self) -> Duration {
        self.deadlines.load().write
    }

    /// Follows another configuration, from the next call on.
    pub fn follow(&self, config: &config::L2Config) {
        self.deadlines.store(Arc::new(StoreDeadlines::of(config)));
    }

    fn deadline(&self, call: StoreCall) -> Duration {
        match call.is_waited_for() {
            true => self.read_timeout(),
            false => self.write_timeout(),
        }
    }
}

impl StoreCall {
    fn carries_invalidations(self) -> bool {
        matches!(self, Self::Log | Self::Delete)
    }

    fn is_waited_for(self) -> bool {
        matches!(self, Self::Get | Self::Lease)
    }
}
