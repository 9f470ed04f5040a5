//! How long and how often one request waits for the loads of others.

use std::time::{Duration, Instant};

use super::RequestStep;
use crate::cache::event::UncoalescedReason;

/// How often a request asks again when a flight was lost or turned out not to be for it.
const ROUNDS: usize = 4;

/// How many leaders a request lets go first whose answers were their own. A page that is
/// refused to each client must not make all of them wait for one another.
const TURNS: usize = 4;

/// What one request has left of its readiness to wait.
pub struct WaitBudget {
    began: Instant,
    limit: Duration,
    rounds: usize,
    turns: usize,
}

impl WaitBudget {
    /// Begins to wait; `limit` is for the loads of others, all together.
    pub fn new(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            limit,
            rounds: 0,
            turns: 0,
        }
    }

    /// When it has waited for so long. None: never.
    pub fn after(&self, time: Duration) -> Option<Instant> {
        self.began.checked_add(time)
    }

    /// When a follower waits no longer. None: it always does.
    pub fn ends(&self) -> Option<Instant> {
        self.after(self.limit)
    }

    /// After a flight that was not for it.
    pub(super) fn asks_again(&mut self) -> RequestStep {
        self.rounds += 1;
        match self.rounds < ROUNDS {
            true => RequestStep::JoinOrLead,
            false => RequestStep::SideBySide(UncoalescedReason::Unsettled),
        }
    }

    /// After a flight whose answer was the leader's own.
    pub(super) fn takes_next_turn(&mut self) -> RequestStep {
        self.turns += 1;
        match self.turns < TURNS {
            true => RequestStep::JoinOrLead,
            false => RequestStep::SideBySide(UncoalescedReason::Private),
        }
    }
}
