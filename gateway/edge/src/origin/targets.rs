//! The targets of one upstream, and which one a request goes to.
//!
//! A target can be used unless it is ejected or down by its active check. Of the targets with the smallest priority number those
//! that can be used are candidates; where too few of them can (`balance.panic`), those of the next
//! number are, too; where too few of all can, all are, since then the failures are more likely the
//! requests' or everybody's. The last target that can be used is never ejected, and the only one is
//! always asked. Those that operators have taken out get none, and count for nothing here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::timeout;

use self::candidates::left_of;
use super::SharedOriginState;
use super::config::{
    BalanceConfig, BalanceMethod, FailureKind, PassiveHealthConfig, UpstreamConfig,
};
use super::discovery::{TargetDiscovery, TargetList};
use super::error::{BuildError, OriginError, SendError};
use super::health::{FailureOutcome, ObservedState};
use super::latency::LatencyHistogram;
use super::metrics::UpstreamMetrics;
use super::spread::{RandomNumbers, mixed};
use super::target::OriginTarget;
use super::tls_report::UpstreamTlsReport;

mod candidates;

pub(super) struct OriginTargets {
    upstream: Arc<str>,
    /// Those with a smaller priority number first. It is replaced as a whole.
    targets: ArcSwap<TargetList>,
    discovery: TargetDiscovery,
    /// Tells those who wait for the first targets.
    refreshed: Notify,
    balance: BalanceConfig,
    passive: PassiveHealthConfig,
    random: RandomNumbers,
    /// How long all targets take.
    times: LatencyHistogram,
    /// One decision at a time about who is ejected or whose turn it is.
    deciding: Mutex<()>,
    /// A bit for each priority whose requests go to the next one, too.
    spilled: AtomicU32,
    pub(super) metrics: UpstreamMetrics,
}

/// Where a request goes.
pub(super) struct TargetChoice {
    pub(super) target: Arc<OriginTarget>,
    pub(super) situation: ChoiceSituation,
}

/// What the targets are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChoiceSituation {
    Usual,
    /// So few targets can be used that requests go to all of them.
    Panic,
}

/// Among which targets one is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ChoiceScope {
    /// Those that get requests now.
    Candidates,
    /// Where all of these were tried, any that can be used.
    Usable,
}

/// How a target has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AnswerQuality {
    Good,
    Failed(FailureKind),
    /// It says nothing about the target: the request was at fault.
    Neutral,
}

/// The targets that a request may go to; at least one.
type TargetCandidates<'a> = SmallVec<[&'a Arc<OriginTarget>; 8]>;

/// A target, and its weight now.
struct WeightedTarget<'a> {
    target: &'a Arc<OriginTarget>,
    weight: f64,
}

/// The longest rest that a target is given for its `Retry-After`.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// The least time that a failed answer counts as.
const FAILURE_COUNTS_AS: Duration = Duration::from_secs(1);

impl OriginTargets {
    /// Reads the targets of the upstream `name`, and the files of its TLS.
    pub(super) fn parse(
        name: &str,
        upstream: &UpstreamConfig,
        watch: &Arc<UpstreamTlsReport>,
        metrics: UpstreamMetrics,
        shared: &SharedOriginState,
    ) -> Result<Self, BuildError> {
        let discovery = TargetDiscovery::new(name, upstream, watch, metrics.clone(), shared)?;
        Ok(Self {
            upstream: name.into(),
            targets: ArcSwap::from_pointee(discovery.targets(&[])),
            discovery,
            refreshed: Notify::new(),
            balance: upstream.balance.clone(),
            passive: upstream.health.passive.clone(),
            random: RandomNumbers::default(),
            times: LatencyHistogram::new(Instant::now()),
            deciding: Mutex::new(()),
            spilled: AtomicU32::new(0),
            metrics,
        })
    }

    /// The targets as they are now.
    pub(super) fn all(&self) -> Arc<TargetList> {
        self.targets.load_full()
    }

    pub(super) fn discovery(&self) -> &TargetDiscovery {
        &self.discovery
    }

    /// Follows the names of the targets. Never ends.
    pub(super) async fn follow_names(&self) {
        loop {
            // The order matters: no change after the refresh is missed, and it does not tell itself.
            let mut changes = self.discovery.begin_following();
            self.refresh();
            let refreshed = self.refreshed.notified();
            tokio::select! {
                Some(()) = changes.next() => {}
                // The file of targets may name others.
                () = refreshed => {}
            }
        }
    }

    /// Looks at what changes without telling.
    pub(super) fn look(&self, now: Instant) {
        if self.discovery.look(&self.all(), now) {
            self.refresh();
        }
    }

    fn refresh(&self) {
        let _deciding = self.deciding.lock();
        let before = self.all();
        let targets = self.discovery.targets(&before);
        let stays = |target: &Arc<OriginTarget>| targets.iter().any(|one| Arc::ptr_eq(one, target));
        for gone in before.iter().filter(|target| !stays(target)) {
            gone.connections.retire();
        }
        for target in &targets {
            target.follow_its_name();
        }
        self.targets.store(Arc::new(targets));
        self.refreshed.notify_waiters();
    }

    /// Waits until there is a target or the name servers have said why there is none, for `limit` at
    /// most.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn settle(&self, limit: Duration) -> Result<(), OriginError> {
        if !self.targets.load().is_empty() {
            return Ok(());
        }
        let settled = async {
            loop {
                let refreshed = self.refreshed.notified();
                if !self.targets.load().is_empty() || self.discovery.is_settled() {
                    return;
                }
                refreshed.await;
            }
        };
        // When the time is over, what is known counts.
        let _ = timeout(limit, settled).await;
        if self.targets.load().is_empty() {
            // An answer may be there that `follow_names` has not seen yet.
            self.refresh();
        }
        match self.targets.load().is_empty() {
            false => Ok(()),
            true => Err(OriginError::Dns {
                source: SendError::Dns(self.discovery.why_none()),
            }),
        }
    }

    /// Chooses a target, but for those that were tried if there is another one among the targets that
    /// get requests now. `hash` is of what the configuration chooses targets by, where the request has
    /// it. None: operators have taken out all of them.
    pub(super) fn choose(
        &self,
        hash: Option<u64>,
        tried: &[Arc<OriginTarget>],
        now: Instant,
    ) -> Option<TargetChoice> {
        self.choose_within(ChoiceScope::Candidates, hash, tried, now)
    }

    /// The same for a request that the targets which were tried have failed: where they are all that
    /// get requests now, it goes to any other that can be used, be it of a class with a greater number
    /// or one that has asked for a rest.
    pub(super) fn choose_another(
        &self,
        hash: Option<u64>,
        tried: &[Arc<OriginTarget>],
        now: Instant,
    ) -> Option<TargetChoice> {
        self.choose_within(ChoiceScope::Usable, hash, tried, now)
    }

    fn choose_within(
        &self,
        scope: ChoiceScope,
        hash: Option<u64>,
        tried: &[Arc<OriginTarget>],
        now: Instant,
    ) -> Option<TargetChoice> {
        let targets = self.targets.load();
        if let [only] = &targets[..] {
            return only.is_ready().then(|| TargetChoice {
                target: Arc::clone(only),
                situation: match only.health.observed(now) {
                    ObservedState::Down => ChoiceSituation::Panic,
                    _ => ChoiceSituation::Usual,
                },
            });
        }
        let (mut candidates, situation) = self.candidates(&targets, now);
        if candidates.is_empty() {
            return None;
        }
        let is_new = |target: &Arc<OriginTarget>| !tried.iter().any(|one| Arc::ptr_eq(one, target));
        if candidates.iter().any(|target| is_new(target)) {
            candidates.retain(|target| is_new(target));
        } else if scope == ChoiceScope::Usable {
            let left = left_of(&targets, tried, now);
            if !left.is_empty() {
                candidates = left;
            }
        }
        let target = match (self.balance.by, hash) {
            (BalanceMethod::Hash, Some(hash)) => self.by_hash(&candidates, hash, now),
            (BalanceMethod::RoundRobin, _) => self.in_turn(&candidates, now),
            (BalanceMethod::Hash | BalanceMethod::LeastRequest, _) => {
                self.less_loaded(&candidates, now)
            }
        };
        Some(TargetChoice {
            target: Arc::clone(target),
            situation,
        })
    }

    /// Whether another target than those that were tried can be used.
    pub(super) fn has_another(&self, tried: &[Arc<OriginTarget>], now: Instant) -> bool {
        let targets = self.targets.load();
        targets.iter().any(|target| {
            target.is_usable(now) && !tried.iter().any(|one| Arc::ptr_eq(one, target))
        })
    }

    /// Of two candidates, drawn by their weights, the one that has less to do.
    fn less_loaded<'a>(
        &self,
        candidates: &TargetCandidates<'a>,
        now: Instant,
    ) -> &'a Arc<OriginTarget> {
        let first = self.draw(candidates, None, now);
        let second = self.draw(candidates, Some(first), now);
        match second.costs_less_than(first, now) {
            true => second,
            false => first,
        }
    }

    /// Draws a candidate by weight, but not this one if there is another.
    fn draw<'a>(
        &self,
        candidates: &TargetCandidates<'a>,
        not: Option<&Arc<OriginTarget>>,
        now: Instant,
    ) -> &'a Arc<OriginTarget> {
        let weight = |target: &Arc<OriginTarget>| match not {
            Some(not) if Arc::ptr_eq(not, target) => 0.0,
            _ => self.weight(target, now),
        };
        let all: f64 = candidates.iter().map(|target| weight(target)).sum();
        let mut left = self.random.fraction() * all;
        let drawn = candidates.iter().find(|target| {
            let weight = weight(target);
            left -= weight;
            weight > 0.0 && left < 0.0
        });
        drawn.copied().unwrap_or(candidates[0])
    }

    /// The candidates in turn, those with more weight more often, evenly spread.
    fn in_turn<'a>(
        &self,
        candidates: &TargetCandidates<'a>,
        now: Instant,
    ) -> &'a Arc<OriginTarget> {
        let _deciding = self.deciding.lock();
        let mut all = 0;
        let mut chosen = candidates[0];
        for target in candidates {
            let weight = (self.weight(target, now) * 1_000.0) as i64;
            all += weight;
            let credit = target.credit.fetch_add(weight, Relaxed) + weight;
            if credit > chosen.credit.load(Relaxed) {
                chosen = target;
            }
        }
        chosen.credit.fetch_sub(all, Relaxed);
        chosen
    }

    /// The candidate that this hash belongs to (rendezvous hashing, so that taking one away moves
    /// its own requests only), or the next one if it has more than `bound` times its share under
    /// way. A target that comes back gets its own requests again as its share grows.
    fn by_hash<'a>(
        &self,
        candidates: &TargetCandidates<'a>,
        hash: u64,
        now: Instant,
    ) -> &'a Arc<OriginTarget> {
        let weighted = candidates.iter().map(|target| WeightedTarget {
            target,
            weight: self.weight(target, now),
        });
        let weighted: SmallVec<[WeightedTarget<'a>; 8]> = weighted.collect();
        let weights: f64 = weighted.iter().map(|one| one.weight).sum();
        let under_way: u32 = candidates.iter().map(|target| target.in_flight()).sum();
        let has_room = |one: &WeightedTarget<'_>| {
            let share = f64::from(under_way + 1) * one.weight / weights;
            f64::from(one.target.in_flight()) < (share * self.balance.bound).ceil()
        };
        let best = |admits: &dyn Fn(&WeightedTarget<'a>) -> bool| {
            let admitted = weighted.iter().filter(|one| admits(one));
            let best = admitted.max_by(|a, b| a.score(hash).total_cmp(&b.score(hash)));
            best.map(|one| one.target)
        };
        let bounded = best(&has_room).or_else(|| best(&|_| true));
        bounded.unwrap_or(candidates[0])
    }

    fn weight(&self, target: &OriginTarget, now: Instant) -> f64 {
        target.weight() * target.health.share(self.balance.slow_start.0, now)
    }

    /// Notes how a target has answered, after this time, and now. `rest` is its `Retry-After`.
    pub(super) fn note(
        &self,
        target: &Arc<OriginTarget>,
        quality: AnswerQuality,
        took: Duration,
        rest: Option<Duration>,
        now: Instant,
    ) {
        if let Some(rest) = rest {
            target.health.rest(rest.min(LONGEST_REST), now);
        }
        match quality {
            AnswerQuality::Neutral => {}
            AnswerQuality::Good => {
                target.latency.observe(took, now);
                self.times.observe(took, now);
                target.health.succeeded(&self.passive, now);
            }
            AnswerQuality::Failed(failure) => {
                // A target that fails at once must not look like a quick one.
                let usual = self.times.quantile(0.9, now).unwrap_or_default();
                let counts_as = took.max(usual).max(FAILURE_COUNTS_AS);
                target.latency.observe(counts_as, now);
                target.health.note_failure(failure, now);
                let counted = self.passive.on.iter().any(|listed| listed.covers(failure));
                if !counted {
                    // An answer all the same, unlike a connection that fails.
                    if let FailureKind::Status(_) = failure {
                        target.health.answered();
                    }
                } else if target.health.failed(&self.passive) == FailureOutcome::EjectionDue {
                    self.eject(target, failure, now);
                }
            }
        }
    }

    /// Ejects a target, unless too many would be ejected then. Those that are down by their checks
    /// do not count as ejected.
    fn eject(&self, target: &Arc<OriginTarget>, failure: FailureKind, now: Instant) {
        let _deciding = self.deciding.lock();
        let is_ejected = |one: &&Arc<OriginTarget>| one.health.is_ejected(now);
        let targets = self.all();
        let ejected = targets.iter().filter(is_ejected).count() + 1;
        let most = targets.len() * usize::from(self.passive.max_ejected) / 100;
        if ejected > most || !self.has_another(std::slice::from_ref(target), now) {
            return;
        }
        let jitter = self.random.fraction() * 2.0 - 1.0;
        let length = target.health.eject(&self.passive, jitter, now);
        self.restart_estimate(target, now + length, now);
        self.metrics.ejected(failure);
        tracing::warn!(
            upstream = &*self.upstream,
            target = &*target.name,
            failure = failure.word(),
            for_ms = length.as_millis() as u64,
            "a target of an upstream failed too often and gets no requests for a while"
        );
    }

    /// Lets the estimate of a target begin anew when it comes back (`at`): with what answers of the
    /// upstream usually take, so that it looks neither quicker than the others nor as slow as its
    /// failures. Where no answer tells, the estimate stays as it is.
    pub(super) fn restart_estimate(&self, target: &OriginTarget, at: Instant, now: Instant) {
        if let Some(usual) = self.times.quantile(0.5, now) {
            target.latency.restart(usual, at);
        }
    }

    /// The time within which this share of the good answers of the last minute came.
    pub(super) fn time_of(&self, share: f64, now: Instant) -> Option<Duration> {
        self.times.quantile(share, now)
    }

    /// How many targets can be used now.
    pub(super) fn usable(&self, now: Instant) -> usize {
        let usable = |target: &&Arc<OriginTarget>| target.is_usable(now);
        self.targets.load().iter().filter(usable).count()
    }

    /// A number from 0 to below 1.
    pub(super) fn random_fraction(&self) -> f64 {
        self.random.fraction()
    }
}

impl WeightedTarget<'_> {
    /// The target with the highest score gets the requests with this hash.
    fn score(&self, hash: u64) -> f64 {
        let draw = (mixed(hash ^ self.target.identity) >> 11) as f64 / (1_u64 << 53) as f64;
        -self.weight / draw.max(f64::MIN_POSITIVE).ln()
    }
}

#[cfg(test)]
mod tests;
