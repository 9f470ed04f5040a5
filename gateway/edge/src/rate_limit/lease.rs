//! What a node holds of an allowance that nodes share, in one number: requests that it was given to
//! admit, or the knowledge that there is none for now, and until when that holds.
//!
//! The time is in the upper bits, so that the number grows with it and a [`KeyTable`] forgets what
//! ends first.
//!
//! [`KeyTable`]: super::table::KeyTable

use std::sync::atomic::{AtomicU64, Ordering};

/// The bits for a number of requests; there are two such numbers.
const COUNT_BITS: u32 = 14;

/// The highest number of requests that is told apart.
pub const MOST_LEASED: u64 = (1 << COUNT_BITS) - 1;

/// What a node knows of an allowance that nodes share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseState {
    /// Until when it holds, in milliseconds. Nothing is held from then on.
    until: u64,
    /// Requests that nobody had been given when it was asked.
    free: u64,
    /// Requests that may be admitted. 0: none may be.
    tokens: u64,
}

/// What came of taking a request from what is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseTake {
    /// It may be admitted; so many more are known to be left.
    Admitted { left: u64 },
    /// Nothing is left for so many milliseconds.
    Refused { wait: u64 },
    /// The nodes' store must be asked.
    Unknown,
}

impl LeaseState {
    fn read(number: u64) -> Self {
        Self {
            until: number >> (2 * COUNT_BITS),
            free: (number >> COUNT_BITS) & MOST_LEASED,
            tokens: number & MOST_LEASED,
        }
    }

    fn number(self) -> u64 {
        let free = self.free.min(MOST_LEASED) << COUNT_BITS;
        (self.until << (2 * COUNT_BITS)) | free | self.tokens.min(MOST_LEASED)
    }
}

/// The number that is above all states that have ended at `now`, in milliseconds.
pub fn ended_by(now: u64) -> u64 {
    LeaseState {
        until: now,
        free: MOST_LEASED,
        tokens: MOST_LEASED,
    }
    .number()
}

/// Takes a request from what is held.
pub fn take(held: &AtomicU64, now: u64) -> LeaseTake {
    let mut taken = LeaseTake::Unknown;
    // The update is none where nothing is taken.
    let _ = held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |number| {
        let (next, outcome) = taking(LeaseState::read(number), now);
        taken = outcome;
        next.map(LeaseState::number)
    });
    taken
}

/// What a request would be told, without taking anything.
pub fn look(number: u64, now: u64) -> LeaseTake {
    taking(LeaseState::read(number), now).1
}

fn taking(state: LeaseState, now: u64) -> (Option<LeaseState>, LeaseTake) {
    if state.until <= now {
        return (None, LeaseTake::Unknown);
    }
    if state.tokens == 0 {
        let wait = state.until - now;
        return (None, LeaseTake::Refused { wait });
    }
    let tokens = state.tokens - 1;
    let left = tokens + state.free;
    // Where the last one is taken nothing is known of the next.
    let until = if tokens == 0 { now } else { state.until };
    let next = LeaseState {
        until,
        tokens,
        ..state
    };
    (Some(next), LeaseTake::Admitted { left })
}

/// Adds requests that were leased until a moment, when so many were still free.
pub fn add(held: &AtomicU64, tokens: u64, free: u64, until: u64, now: u64) {
    // The update is always made.
    let _ = held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |number| {
        let state = LeaseState::read(number);
        let kept = if state.until > now { state.tokens } else { 0 };
        let next = LeaseState {
            until,
            free,
            tokens: (kept + tokens).min(MOST_LEASED),
        };
        Some(next.number())
    });
}

/// Notes that nothing is left until a moment, unless something is held.
pub fn refuse(held: &AtomicU64, until: u64, now: u64) {
    // Where something is held, nothing is to be changed.
    let _ = held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |number| {
        let state = LeaseState::read(number);
        let holds = state.until > now && state.tokens > 0;
        let refused = LeaseState {
            until,
            free: 0,
            tokens: 0,
        };
        (!holds).then(|| refused.number())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_leased_is_admitted_once() {
        let held = AtomicU64::new(0);
        assert_eq!(take(&held, 10), LeaseTake::Unknown);
        add(&held, 2, 7, 100, 10);
        assert_eq!(take(&held, 20), LeaseTake::Admitted { left: 8 });
        assert_eq!(take(&held, 20), LeaseTake::Admitted { left: 7 });
        assert_eq!(take(&held, 20), LeaseTake::Unknown);
    }

    #[test]
    fn what_has_ended_is_neither_admitted_nor_refused() {
        let held = AtomicU64::new(0);
        add(&held, 5, 0, 100, 10);
        assert_eq!(take(&held, 100), LeaseTake::Unknown);
        refuse(&held, 200, 100);
        assert_eq!(take(&held, 199), LeaseTake::Refused { wait: 1 });
        assert_eq!(
            look(held.load(Ordering::Relaxed), 150),
            LeaseTake::Refused { wait: 50 }
        );
        assert_eq!(take(&held, 200), LeaseTake::Unknown);
    }

    #[test]
    fn an_answer_that_comes_late_takes_nothing_away() {
        let held = AtomicU64::new(0);
        add(&held, 5, 9, 100, 10);
        refuse(&held, 200, 20);
        assert_eq!(take(&held, 20), LeaseTake::Admitted { left: 13 });
        add(&held, 3, 1, 300, 30);
        assert_eq!(take(&held, 250), LeaseTake::Admitted { left: 7 });
    }

    #[test]
    fn the_number_grows_with_the_time_that_it_holds() {
        let state = |until, free, tokens| {
            LeaseState {
                until,
                free,
                tokens,
            }
            .number()
        };
        assert!(state(5, MOST_LEASED, MOST_LEASED) < state(6, 0, 0));
        assert!(state(5, 3, 4) <= ended_by(5) && ended_by(5) < state(6, 0, 0));
        let most = 1 << 35;
        assert_eq!(LeaseState::read(state(most, 1, 2)).until, most);
    }
}
