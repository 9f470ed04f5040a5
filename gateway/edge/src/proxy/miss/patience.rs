//! How long and how often one request waits for the loads of others.

use std::time::{Duration, Instant};

use super::RequestStep;
use crate::cache::event::UncoalescedReason;

/// How many flights that were lost, or turned out not to be for this request, make it load by
/// itself.
const ROUNDS: usize = 4;

/// How many leaders with answers of their own make a request load by itself. If a page is refused
/// to each client, its clients must not all wait for one another.
const TURNS: usize = 4;

/// How much longer one request is ready to wait.
pub struct WaitBudget {
    began: Instant,
    limit: Duration,
    rounds: usize,
    turns: usize,
}

impl WaitBudget {
    /// Begins to wait. `limit` is for all loads of others together.
    pub fn new(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            limit,
            rounds: 0,
            turns: 0,
        }
    }

    /// The moment when it has waited for `time`. None: never.
    pub fn after(&self, time: Duration) -> Option<Instant> {
        self.began.checked_add(time)
    }

    /// The moment when a follower stops waiting. None: never.
    pub fn ends(&self) -> Option<Instant> {
        self.after(self.limit)
    }

    /// The next step after a flight that was not for this request.
    pub(super) fn asks_again(&mut self) -> RequestStep {
        self.rounds += 1;
        match self.rounds < ROUNDS {
            true => RequestStep::JoinOrLead,
            false => RequestStep::SideBySide(UncoalescedReason::Unsettled),
        }
    }

    /// The next step after a flight whose answer was the leader's own.
    pub(super) fn takes_next_turn(&mut self) -> RequestStep {
        self.turns += 1;
        match self.turns < TURNS {
            true => RequestStep::JoinOrLead,
            false => RequestStep::SideBySide(UncoalescedReason::Private),
        }
    }
}
