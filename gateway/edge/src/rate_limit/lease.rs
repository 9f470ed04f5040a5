//! What a node holds of an allowance that nodes share, in one number: requests that it was given to
//! admit, or the knowledge that there is none for now, and until when that holds.
//!
//! The time is in the upper bits, so that the number grows with it and a [`KeyTable`] forgets what
//! ends first.
//!
//! [`KeyTable`]: super::table::KeyTable

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

/// Takes a request from what is held. Returns what is held then, unless it is the same.
pub fn take(number: u64, now: u64) -> (Option<u64>, LeaseTake) {
    let (next, outcome) = taking(LeaseState::read(number), now);
    (next.map(LeaseState::number), outcome)
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

/// What is held when requests were leased until a moment, at which so many were still free.
pub fn add(number: Option<u64>, (tokens, free): (u64, u64), until: u64, now: u64) -> u64 {
    let state = number.map(LeaseState::read);
    let kept = state
        .filter(|state| state.until > now)
        .map_or(0, |state| state.tokens);
    let next = LeaseState {
        until,
        free,
        tokens: (kept + tokens).min(MOST_LEASED),
    };
    next.number()
}

/// What is held when nothing is left until a moment. None: something is held, and stays.
pub fn refuse(number: Option<u64>, until: u64, now: u64) -> Option<u64> {
    let state = number.map(LeaseState::read);
    let holds = state.is_some_and(|state| state.until > now && state.tokens > 0);
    let refused = LeaseState {
        until,
        free: 0,
        tokens: 0,
    };
    (!holds).then(|| refused.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a request, and changes what is held.
    fn taken(held: &mut u64, now: u64) -> LeaseTake {
        let (next, outcome) = take(*held, now);
        *held = next.unwrap_or(*held);
        outcome
    }

    #[test]
    fn what_is_leased_is_admitted_once() {
        assert_eq!(take(0, 10), (None, LeaseTake::Unknown));
        let mut held = add(None, (2, 7), 100, 10);
        assert_eq!(taken(&mut held, 20), LeaseTake::Admitted { left: 8 });
        assert_eq!(taken(&mut held, 20), LeaseTake::Admitted { left: 7 });
        assert_eq!(taken(&mut held, 20), LeaseTake::Unknown);
    }

    #[test]
    fn what_has_ended_is_neither_admitted_nor_refused() {
        let held = add(None, (5, 0), 100, 10);
        assert_eq!(take(held, 100), (None, LeaseTake::Unknown));
        let held = refuse(Some(held), 200, 100).expect("nothing is held");
        assert_eq!(take(held, 199), (None, LeaseTake::Refused { wait: 1 }));
        assert_eq!(look(held, 150), LeaseTake::Refused { wait: 50 });
        assert_eq!(take(held, 200), (None, LeaseTake::Unknown));
        assert_eq!(refuse(None, 200, 100), Some(held));
    }

    #[test]
    fn an_answer_that_comes_late_takes_nothing_away() {
        let mut held = add(None, (5, 9), 100, 10);
        assert_eq!(refuse(Some(held), 200, 20), None);
        assert_eq!(taken(&mut held, 20), LeaseTake::Admitted { left: 13 });
        let mut held = add(Some(held), (3, 1), 300, 30);
        assert_eq!(taken(&mut held, 250), LeaseTake::Admitted { left: 7 });
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
        let most = 1 << 35;
        assert_eq!(LeaseState::read(state(most, 1, 2)).until, most);
    }
}
