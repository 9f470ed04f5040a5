//! A second request beside one that has no answer yet ("hedging", `retry.hedge`): the first good
//! head of the two is the answer, and the other request is cancelled.
//!
//! It is for loads alone, whose answer may be for many, and counts among `retry.attempts`, against
//! the budget of retries and among `load.max_concurrent`. A request that is cancelled says nothing
//! about its target's health. Its time says that an answer takes at least as long, so it may raise
//! the target's estimate and never lowers it: a target that is always overtaken would otherwise
//! look as quick as on the day on which it was last heard.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::time::timeout;

use super::repeat::REPEATS;
use super::{AttemptResult, RequestDelivery, TriedTargets, failure_of};
use crate::origin::admission::AdmissionPermit;
use crate::origin::config::HedgeDelay;
use crate::origin::metrics::HedgeOutcome;
use crate::origin::outgoing::FailureFallback;
use crate::origin::target::OriginTarget;

/// A second request that may be sent, and its place among `load.max_concurrent`.
struct AllowedHedge {
    target: Arc<OriginTarget>,
    place: AdmissionPermit,
}

impl RequestDelivery<'_> {
    /// Sends the request to `target`; and to a second one, too, if the first takes long and that is
    /// allowed.
    pub(super) async fn first_attempt(
        &self,
        target: Arc<OriginTarget>,
        tried: &mut TriedTargets,
        repeats: &mut u32,
    ) -> AttemptResult {
        tried.push(Arc::clone(&target));
        let began = Instant::now();
        let alone = std::slice::from_ref(&target);
        let mut first = pin!(self.attempt(&target, alone, repeats));
        let Some(delay) = self.hedge_after(began) else {
            return first.await;
        };
        if let Ok(outcome) = timeout(delay, first.as_mut()).await {
            return outcome;
        }
        let Some(hedge) = self.allowed_hedge(tried) else {
            return first.await;
        };
        tried.push(Arc::clone(&hedge.target));
        let hedged = Instant::now();
        let mut own_repeats = REPEATS;
        // In a box, since most requests have none.
        let both = [Arc::clone(&target), Arc::clone(&hedge.target)];
        let second = Box::pin(self.attempt(&hedge.target, &both, &mut own_repeats));
        let (outcome, came_of_it) = match select(first, second).await {
            Either::Left((outcome, _)) if is_good(&outcome) => {
                hedge
                    .target
                    .latency
                    .at_least(hedged.elapsed(), Instant::now());
                (outcome, HedgeOutcome::Lost)
            }
            Either::Left((failed, second)) => match second.await {
                good if is_good(&good) => (good, HedgeOutcome::Won),
                failed_too => (better(failed_too, failed), HedgeOutcome::Lost),
            },
            Either::Right((outcome, _)) if is_good(&outcome) => {
                target.latency.at_least(began.elapsed(), Instant::now());
                (outcome, HedgeOutcome::Won)
            }
            Either::Right((failed, first)) => match first.await {
                good if is_good(&good) => (good, HedgeOutcome::Lost),
                failed_too => (better(failed_too, failed), HedgeOutcome::Lost),
            },
        };
        drop(hedge.place);
        self.origin.targets.metrics.hedged(came_of_it);
        outcome
    }

    /// How long the first target has for itself. None: it is not overtaken.
    fn hedge_after(&self, now: Instant) -> Option<Duration> {
        let retry = &self.origin.retry;
        let hedge = retry.hedge.as_ref()?;
        let is_allowed = self.outgoing.may_be_hedged()
            && self.fallback == FailureFallback::Error
            && retry.attempts > 1;
        if !is_allowed {
            return None;
        }
        match hedge.after {
            HedgeDelay::Fixed(time) => Some(time.0),
            HedgeDelay::Percentile(percent) => {
                let usual = self.origin.targets.time_of(f64::from(percent) / 100.0, now);
                usual.map(|usual| usual.max(hedge.min.0))
            }
        }
    }

    fn allowed_hedge(&self, tried: &TriedTargets) -> Option<AllowedHedge> {
        let (origin, now) = (self.origin, Instant::now());
        if !self.is_awaited_after(Duration::ZERO) || !origin.targets.has_another(tried, now) {
            return None;
        }
        let target = self.choose(tried)?.target;
        if tried.iter().any(|one| Arc::ptr_eq(one, &target)) {
            return None;
        }
        let place = origin.admission.enter_if_free();
        let place = place.filter(|_| origin.budget.take(now));
        if place.is_none() {
            origin.targets.metrics.hedged(HedgeOutcome::Refused);
        }
        Some(AllowedHedge {
            target,
            place: place?,
        })
    }
}

/// Whether the other target need not be waited for. A failure is not good, even of a kind that no
/// request is sent again for: the other target may do better.
fn is_good(outcome: &AttemptResult) -> bool {
    failure_of(outcome).is_none()
}

/// Of two failures the one that says more: an answer rather than none, or else the later one.
fn better(later: AttemptResult, earlier: AttemptResult) -> AttemptResult {
    match later {
        Err(_) if earlier.is_ok() => earlier,
        later => later,
    }
}
