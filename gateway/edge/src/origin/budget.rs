//! How many further attempts an upstream may make: a share of its requests or a few each second,
//! whichever is more, so that retries never multiply the load of targets that all fail.

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
    /// Attempts that are allowed by time. Those that requests have earned count against them, too:
    /// they are for upstreams whose requests earn less.
    by_time: f64,
    at: Instant,
}

/// The most attempts that requests earn in advance.
const MOST_EARNED: f64 = 10.0;
/// How far attempts that requests have earned may be ahead of the time: they need not wait for it.
const MOST_BEHIND: f64 = -1.0;
/// What one attempt takes. A fraction of a request is lost in sums of a tenth.
const ENOUGH: f64 = 0.999_999;

impl RetryBudget {
    pub(super) fn new(config: &RetryConfig, now: Instant) -> Self {
        let per_second = f64::from(config.min);
        let share = f64::from(config.budget) / 100.0;
        Self {
            share,
            per_second,
            state: Mutex::new(BudgetState {
                // A target that fails right after the start must not cost requests either.
                earned: if share > 0.0 { MOST_EARNED } else { 0.0 },
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
        self.state.lock().spend_earned();
    }

    /// Whether more was owed than requests and the time have paid for.
    pub(super) fn is_in_debt(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.pass_time(self.per_second, now);
        state.earned < 0.0
    }

    /// Takes a further attempt, if one is left.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.pass_time(self.per_second, now);
        if state.earned >= ENOUGH {
            state.spend_earned();
            return true;
        }
        if state.by_time >= ENOUGH {
            state.by_time -= 1.0;
            return true;
        }
        false
    }
}

impl BudgetState {
    fn spend_earned(&mut self) {
        self.earned -= 1.0;
        self.by_time = (self.by_time - 1.0).max(MOST_BEHIND);
    }

    /// Adds what the time has allowed since. It pays first for what is owed.
    fn pass_time(&mut self, per_second: f64, now: Instant) {
        let allowed = now.saturating_duration_since(self.at).as_secs_f64() * per_second;
        let paid = allowed.min((-self.earned).max(0.0));
        self.at = now;
        self.earned += paid;
        self.by_time = (self.by_time + allowed - paid).min(per_second);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Makes 1,000 requests within five seconds, each of which would be retried, after so many
    /// attempts without asking. All further attempts together must be as many as are allowed: a
    /// fifth, and three a second.
    fn five_seconds(budget: &RetryBudget, now: &mut Instant, before: u32) {
        let mut taken = before;
        for _ in 0..1_000 {
            budget.earn();
            *now += Duration::from_millis(5);
            taken += u32::from(budget.take(*now));
        }
        assert!((200..=200 + 15).contains(&taken), "{taken} in five seconds");
    }

    #[test]
    fn attempts_are_a_share_of_the_requests_and_a_few_each_second() {
        let mut now = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), now);
        five_seconds(&budget, &mut now, 0);
        let idle = now + Duration::from_secs(3_600);
        let burst = (0..100).filter(|_| budget.take(idle)).count();
        assert_eq!(burst, 3, "after an hour");
    }

    #[test]
    fn what_was_earned_before_and_the_start_are_within_the_bound() {
        let mut now = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), now);
        (0..10_000).for_each(|_| budget.earn());
        now += Duration::from_secs(3_600);
        five_seconds(&budget, &mut now, 0);
    }

    #[test]
    fn few_requests_have_those_of_each_second() {
        let mut now = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), now);
        let mut taken = 0;
        // Ten a second earn two.
        for _ in 0..1_000 {
            budget.earn();
            now += Duration::from_millis(100);
            taken += u32::from(budget.take(now));
        }
        assert!((295..=300 + 10).contains(&taken), "{taken} in 100 s");
    }

    #[test]
    fn what_was_made_without_asking_is_made_up_for() {
        let mut now = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), now);
        (0..64).for_each(|_| budget.owe());
        five_seconds(&budget, &mut now, 64);
    }

    #[test]
    fn time_pays_for_what_is_owed() {
        let now = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), now);
        (0..10 + 6).for_each(|_| budget.owe());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(!budget.take(later(2)), "six are owed, and paid for now");
        assert!(budget.take(later(3)));
    }

    #[test]
    fn debts_end_with_what_pays_for_them() {
        let now = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), now);
        (0..10).for_each(|_| budget.owe());
        assert!(!budget.is_in_debt(now), "that was saved up");
        (0..3).for_each(|_| budget.owe());
        assert!(budget.is_in_debt(now));
        assert!(!budget.is_in_debt(now + Duration::from_secs(1)));
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
