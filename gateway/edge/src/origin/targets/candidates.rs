//! Which targets of an upstream a request may go to, by their health, their rests and their classes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::{ChoiceSituation, OriginTargets, TargetCandidates};
use crate::origin::target::OriginTarget;

/// A target gets traffic of others again only when this many points more can be used.
const HYSTERESIS: usize = 10;

impl OriginTargets {
    /// The share of the targets that can be used, in percent of those that are not taken out.
    fn usable_percent(targets: &[Arc<OriginTarget>], now: Instant) -> usize {
        let ready = targets.iter().filter(|target| target.is_ready()).count();
        let usable = targets.iter().filter(|target| target.is_usable(now));
        usable.count() * 100 / ready.max(1)
    }

    /// Those of `targets` that a request may go to; empty if operators have taken out all of them.
    pub(in crate::origin) fn candidates<'a>(
        &self,
        targets: &'a [Arc<OriginTarget>],
        now: Instant,
    ) -> (TargetCandidates<'a>, ChoiceSituation) {
        let panic = usize::from(self.balance.panic);
        let mut candidates = TargetCandidates::new();
        // Where the first class ends that has enough targets, although all of them may have asked for
        // a rest.
        let mut enough = None;
        let mut end = 0;
        for (nth, class) in targets
            .chunk_by(|a, b| a.priority() == b.priority())
            .enumerate()
        {
            end += class.len();
            candidates.extend(class.iter().filter(|target| target.is_unburdened(now)));
            if !self.spills(nth, Self::usable_percent(class, now), panic) {
                if !candidates.is_empty() {
                    return (candidates, ChoiceSituation::Usual);
                }
                enough = enough.or(Some(end));
            }
        }
        let situation = match enough.is_none() && Self::usable_percent(targets, now) < panic {
            true => ChoiceSituation::Panic,
            false => ChoiceSituation::Usual,
        };
        self.metrics.panic(situation);
        if candidates.is_empty() {
            // A target that has asked for a rest is better than one that fails.
            let resting = |among: &'a [Arc<OriginTarget>]| {
                among.iter().filter(move |target| target.is_usable(now))
            };
            candidates.extend(resting(&targets[..enough.unwrap_or(end)]));
            if candidates.is_empty() {
                candidates.extend(resting(targets));
            }
        }
        if situation == ChoiceSituation::Panic || candidates.is_empty() {
            let ready = targets.iter().filter(|target| target.is_ready());
            candidates = ready.collect();
        }
        (candidates, situation)
    }

    /// Whether the nth priority gives requests to the next one.
    fn spills(&self, nth: usize, usable: usize, panic: usize) -> bool {
        let bit = 1_u32.checked_shl(nth as u32).unwrap_or(0);
        let spilled = self.spilled.load(Relaxed) & bit != 0;
        let needed = if spilled { panic + HYSTERESIS } else { panic };
        let spills = usable < needed.min(100);
        if spills != spilled {
            self.spilled.fetch_xor(bit, Relaxed);
        }
        if nth == 0 && !spills {
            self.metrics.panic(ChoiceSituation::Usual);
        }
        spills
    }
}

/// The targets that can be used and were not tried, of the smallest priority number that has such;
/// those that have asked for a rest only where no other is left.
pub(super) fn left_of<'a>(
    targets: &'a [Arc<OriginTarget>],
    tried: &[Arc<OriginTarget>],
    now: Instant,
) -> TargetCandidates<'a> {
    let is_left = |target: &&Arc<OriginTarget>| {
        target.is_usable(now) && !tried.iter().any(|one| Arc::ptr_eq(one, target))
    };
    let mut left: TargetCandidates<'a> = targets.iter().filter(is_left).collect();
    if left.iter().any(|target| target.is_unburdened(now)) {
        left.retain(|target| target.is_unburdened(now));
    }
    if let Some(priority) = left.first().map(|target| target.priority()) {
        left.retain(|target| target.priority() == priority);
    }
    left
}
