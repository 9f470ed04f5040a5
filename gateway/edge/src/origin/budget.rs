//! How many further attempts an upstream may make: a share of its requests and a few each second,
//! so that retries never multiply the load of targets that all fail.

use std::time::Instant;

use parking_lot::Mutex;

use super::config::RetryConfig;

pub(super) struct RetryBudget {
    /// Attempts earned by each request.
    share: f64,
    per_second: f64,
    state: Mutex<BudgetState>,
}

struct BudgetState {
    /// Attempts that requests have earned; below zero where more were made.
    earned: f64,
    /// Attempts that are allowed by time.
    by_time: f64,
    at: Instant,
}

/// The most attempts that requests earn in advance.
const MOST_EARNED: f64 = 10.0;

impl RetryBudget {
    pub(super) fn new(config: &RetryConfig, now: Instant) -> Self {
        let per_second = f64::from(config.min);
        Self {
            share: f64::from(config.budget) / 100.0,
            per_second,
            state: Mutex::new(BudgetState {
                earned: 0.0,
                by_time: per_second,
                at: now,
            }),
        }
    }

    /// Counts a request.
    pub(super) fn earn(&self) {
        let mut state = self.state.lock();
        state.earned = (state.earned + self.share).min(MOST_EARNED);
    }

    /// Counts an attempt that was made without asking, and that has failed: those to come make up
    /// for it.
    pub(super) fn owe(&self) {
        self.state.lock().earned -= 1.0;
    }

    /// Takes a further attempt, if one is left.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let elapsed = now.saturating_duration_since(state.at).as_secs_f64();
        state.at = now;
        state.by_time = (state.by_time + elapsed * self.per_second).min(self.per_second);
        let BudgetState {
            earned, by_time, ..
        } = &mut *state;
        // A fraction of a request is lost in sums of a tenth.
        for left in [earned, by_time] {
            if *left >= 0.999_999 {
                *left -= 1.0;
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Makes 1,000 requests, each of which would be retried, after so many attempts without asking.
    /// All attempts together must be as many as are allowed.
    fn five_seconds(budget: &RetryBudget, now: &mut Instant, before: u32) {
        let mut taken = before;
        for _ in 0..1_000 {
            budget.earn();
            *now += Duration::from_millis(5);
            taken += u32::from(budget.take(*now));
        }
        assert!(
            (200..=200 + 15 + 3).contains(&taken),
            "{taken} in five seconds"
        );
    }

    #[test]
    fn attempts_are_a_share_of_the_requests_and_a_few_each_second() {
        let mut now = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), now);
        five_seconds(&budget, &mut now, 0);
        let idle = now + Duration::from_secs(3_600);
        let burst = (0..100).filter(|_| budget.take(idle)).count();
        assert!(burst <= 3, "{burst} after an hour");
    }

    #[test]
    fn what_was_made_without_asking_is_made_up_for() {
        let mut now = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), now);
        (0..64).for_each(|_| budget.owe());
        five_seconds(&budget, &mut now, 64);
    }

    #[test]
    fn no_share_and_none_each_second_is_no_retry() {
        let now = Instant::now();
        let none = RetryConfig {
            budget: 0,
            min: 0,
            ..RetryConfig::default()
        };
        let budget = RetryBudget::new(&none, now);
        (0..100).for_each(|_| budget.earn());
        assert!(!budget.take(now + Duration::from_secs(100)));
    }
}
