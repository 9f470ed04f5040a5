//! The rule by which a request is admitted (GCRA, the generic cell rate algorithm).
//!
//! An allowance is one number: the moment at which it is full again. Each request moves it further
//! by the time in which one request is earned, and a request that would move it further into the
//! future than the whole burst takes is refused. So in any span of time at most `burst` requests are
//! admitted, and those that are earned in it. Pure: `now` is an argument, in nanoseconds since any
//! fixed moment.

/// How fast an allowance grows, and how large it is when it is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketTerms {
    /// The nanoseconds in which one request is earned.
    pub interval: u64,
    /// The requests of a full allowance.
    pub burst: u64,
}

/// The request is not admitted; the next one is after so many nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketWait(pub u64);

impl BucketTerms {
    /// Takes a request from an allowance that is full at `full_at`. Returns when it is full then.
    ///
    /// # Errors
    /// If nothing is left of it.
    pub fn take(self, full_at: u64, now: u64) -> Result<u64, BucketWait> {
        let next = full_at.max(now) + self.interval;
        let latest = now + self.span();
        match next <= latest {
            true => Ok(next),
            false => Err(BucketWait(next - latest)),
        }
    }

    /// Takes a request that was admitted in another way, as far as something is left.
    pub fn take_along(self, full_at: u64, now: u64) -> u64 {
        let next = full_at.max(now) + self.interval;
        next.min(now + self.span())
    }

    /// How many requests are left of an allowance that is full at `full_at`.
    pub fn left(self, full_at: u64, now: u64) -> u64 {
        let used = full_at.saturating_sub(now);
        self.span().saturating_sub(used) / self.interval
    }

    /// The nanoseconds in which a whole allowance is earned.
    pub fn span(self) -> u64 {
        self.interval.saturating_mul(self.burst)
    }

    /// The part of one of so many nodes.
    pub fn shared_among(self, nodes: u64) -> Self {
        let nodes = nodes.max(1);
        Self {
            interval: self.interval.saturating_mul(nodes),
            burst: (self.burst / nodes).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of the requests at these moments are admitted, and when.
    fn admitted(terms: BucketTerms, moments: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut full_at = 0;
        let taken = moments.filter(|now| match terms.take(full_at, *now) {
            Ok(next) => {
                full_at = next;
                true
            }
            Err(_) => false,
        });
        taken.collect()
    }

    #[test]
    fn of_twice_the_rate_half_is_admitted_after_the_burst() {
        let terms = BucketTerms {
            interval: SECOND / 100,
            burst: 200,
        };
        let moments = (0..200 * 60).map(|n| SECOND + n * SECOND / 200);
        let passed = admitted(terms, moments);
        // 60 s at 100/s and the burst.
        assert!((6_198..=6_200).contains(&passed.len()), "{}", passed.len());
        let in_second = |n: u64| {
            let (from, to) = (SECOND * (n + 1), SECOND * (n + 2));
            passed.iter().filter(|at| (from..to).contains(*at)).count()
        };
        for second in 3..60 {
            assert!((99..=101).contains(&in_second(second)), "second {second}");
        }
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let terms = BucketTerms {
            interval: SECOND,
            burst: 2,
        };
        let first = terms.take(0, 10 * SECOND).unwrap();
        let second = terms.take(first, 10 * SECOND).unwrap();
        let BucketWait(wait) = terms.take(second, 10 * SECOND + 1).unwrap_err();
        assert_eq!(wait, SECOND - 1);
        assert!(terms.take(second, 10 * SECOND + 1 + wait).is_ok());
        assert!(terms.take(second, 10 * SECOND + wait).is_err());
        assert_eq!(terms.left(0, 10 * SECOND), 2);
        assert_eq!(terms.left(first, 10 * SECOND), 1);
        assert_eq!(terms.left(second, 10 * SECOND), 0);
    }

    #[test]
    fn the_parts_of_all_nodes_are_not_more_than_the_whole() {
        let terms = BucketTerms {
            interval: SECOND / 100,
            burst: 200,
        };
        let part = terms.shared_among(2);
        assert_eq!(
            part,
            BucketTerms {
                interval: SECOND / 50,
                burst: 100
            }
        );
        let many = terms.shared_among(1_000);
        assert_eq!(many.burst, 1, "each node admits some");
        assert_eq!(terms.shared_among(0), terms);
    }

    proptest! {
        #[test]
        fn no_span_of_time_has_more_than_was_earned_in_it_and_the_burst(
            interval in 1u64..5_000,
            burst in 1u64..50,
            steps in prop::collection::vec(0u64..10_000, 1..400),
        ) {
            let terms = BucketTerms { interval, burst };
            let mut now = 1;
            let moments = steps.iter().map(|step| { now += step; now });
            let passed = admitted(terms, moments);
            for (n, from) in passed.iter().enumerate() {
                for (m, to) in passed.iter().enumerate().skip(n) {
                    let most = burst + (to - from) / interval;
                    prop_assert!((m - n + 1) as u64 <= most, "{} in {}", m - n + 1, to - from);
                }
            }
        }

        #[test]
        fn what_is_earned_is_admitted(interval in 1u64..5_000, burst in 1u64..50, count in 1u64..300) {
            let terms = BucketTerms { interval, burst };
            let moments = (0..count).map(|n| 1 + n * interval);
            prop_assert_eq!(admitted(terms, moments).len() as u64, count);
        }

        #[test]
        fn what_is_left_can_be_taken_and_no_more(interval in 1u64..5_000, burst in 1u64..50, used in 0u64..60, later in 0u64..100_000) {
            let terms = BucketTerms { interval, burst };
            let mut full_at = 0;
            for _ in 0..used {
                full_at = terms.take_along(full_at, 1);
            }
            let now = 1 + later;
            let mut left = terms.left(full_at, now);
            while left > 0 {
                full_at = terms.take(full_at, now).unwrap();
                left -= 1;
                prop_assert_eq!(terms.left(full_at, now), left);
            }
            prop_assert!(terms.take(full_at, now).is_err());
        }
    }
}
