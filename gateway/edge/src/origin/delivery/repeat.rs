//! Whether a request is sent to the same target once more, since no origin has processed it.
//!
//! Where it is known that none of it was processed, and that the target takes requests, this counts
//! for nothing. In between are two kinds: a request on a connection that had served before and ended
//! without a byte of an answer, and one that an origin has refused, by a word of HTTP/2 or by ending
//! a connection that it had just accepted. While its target is well and the budget owes nothing, the
//! origin has most likely closed an idle connection, or refuses by chance, and the request is sent
//! again for nothing. If that fails, too, it was not so: then it is owed to the budget, and each
//! further one is like any other that failed. So targets that all fail, or refuse everything, get no
//! more than the budget allows, however many connections stood before.

use std::sync::Arc;
use std::time::Instant;

use super::{FailedAttempt, RequestDelivery};
use crate::origin::pool::{ConnectionChoice, RequestProgress};
use crate::origin::target::OriginTarget;

/// How often a request is sent again because no origin has processed it.
pub(super) const REPEATS: u32 = 3;

/// How a request is sent to the same target again.
pub(super) struct AllowedRepeat {
    pub(super) connection: ConnectionChoice,
    pub(super) cost: RepeatCost,
}

/// What sending a request to the same target again takes from the budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RepeatCost {
    Nothing,
    /// One attempt, if this one fails, too.
    OnFailure,
}

impl RequestDelivery<'_> {
    /// Whether it may be sent to the same target again, where that may be done `left` times.
    pub(super) fn may_be_repeated(
        &self,
        failed: &FailedAttempt,
        target: &OriginTarget,
        tried: &[Arc<OriginTarget>],
        left: u32,
    ) -> Option<AllowedRepeat> {
        if left == 0 || self.deadline.is_over() {
            return None;
        }
        let cost = match failed.progress {
            RequestProgress::NotProcessed => {
                self.outgoing.can_be_sent().then_some(RepeatCost::Nothing)
            }
            RequestProgress::Refused if self.outgoing.can_be_sent() => {
                self.cost_of_doubt(failed, target, tried, left)
            }
            // Over TLS this counts as a retry, since something was sent.
            RequestProgress::ClosedWhileIdle
                if target.tls.is_none() && self.outgoing.may_be_repeated() =>
            {
                self.cost_of_doubt(failed, target, tried, left)
            }
            RequestProgress::Refused
            | RequestProgress::ClosedWhileIdle
            | RequestProgress::NotConnected
            | RequestProgress::Unknown => None,
        };
        cost.map(|cost| AllowedRepeat {
            connection: match left {
                1 => ConnectionChoice::Own,
                _ => ConnectionChoice::New,
            },
            cost,
        })
    }

    /// What it costs where the target may fail whatever comes.
    fn cost_of_doubt(
        &self,
        failed: &FailedAttempt,
        target: &OriginTarget,
        tried: &[Arc<OriginTarget>],
        left: u32,
    ) -> Option<RepeatCost> {
        let is_first = left == REPEATS && !self.origin.budget.is_in_debt(Instant::now());
        if is_first && target.health.is_well() {
            return Some(RepeatCost::OnFailure);
        }
        let failure = failed.error.failure_kind()?;
        let allowed = !self.may_go_elsewhere(failure, failed.progress, tried)
            && self.origin.budget.take(Instant::now());
        allowed.then_some(RepeatCost::Nothing)
    }
}
