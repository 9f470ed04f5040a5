//! How old an entry is and whether it may be used (RFC 9111 §4.2, RFC 5861).
//!
//! Pure: `now` is an argument. Everything that a hit needs was computed when the entry was made; a
//! hit only compares durations.

use std::cmp::Ordering;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use http::header::DATE;

use crate::http::{age, date};

/// The times that decide the age and freshness of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// When the response arrived, by the process's monotonic clock.
    pub received: Instant,
    /// `corrected_initial_age` of RFC 9111 §4.2.3: its age when it arrived.
    pub initial_age: Duration,
    /// Counted like the age: the entry is fresh while `age < lifetime`.
    pub lifetime: Duration,
    /// How long after expiry it may be served while one request refreshes it.
    pub while_revalidate: Duration,
    /// How long after expiry it may be served when the load fails.
    pub if_error: Duration,
    /// Never served stale (`must-revalidate`, `proxy-revalidate`, `no-cache`, `s-maxage`).
    pub must_revalidate: bool,
}

/// Whether an entry may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshnessState {
    Fresh,
    Stale(StaleWindows),
}

/// Which of the stale windows an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleWindows {
    pub while_revalidate: bool,
    pub if_error: bool,
}

impl StaleWindows {
    /// In no window: it may be used for validation only.
    pub const NONE: Self = Self {
        while_revalidate: false,
        if_error: false,
    };
}

impl Freshness {
    /// `current_age` (RFC 9111 §4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.initial_age + now.saturating_duration_since(self.received)
    }

    /// Compares which of two responses was generated later, as far as `Date` and `Age` tell (RFC
    /// 9111 §4).
    pub fn compare_origin(&self, other: &Self) -> Ordering {
        // Compares each side's arrival minus its age at arrival, without subtracting from an
        // instant.
        (self.received + other.initial_age).cmp(&(other.received + self.initial_age))
    }

    /// How much of its lifetime was left when it arrived.
    pub fn left_at_arrival(&self) -> Duration {
        self.lifetime.saturating_sub(self.initial_age)
    }

    /// Seconds of freshness left, rounded up; negative once it is stale.
    pub fn ttl(&self, now: Instant) -> i64 {
        self.ttl_at(self.age(now))
    }

    /// The same while it is fresh. None: it is stale.
    pub fn ttl_left(&self, now: Instant) -> Option<i64> {
        Some(self.ttl(now)).filter(|left| *left >= 0)
    }

    /// [`ttl`](Self::ttl) at the given age.
    pub fn ttl_at(&self, age: Duration) -> i64 {
        match self.lifetime.checked_sub(age) {
            Some(left) => begun(left),
            None => -begun(age - self.lifetime),
        }
    }

    /// Whether it is fresh and, if not, which windows it is in. The windows count from expiry.
    pub fn state(&self, now: Instant) -> FreshnessState {
        let age = self.age(now);
        if age < self.lifetime {
            return FreshnessState::Fresh;
        }
        FreshnessState::Stale(self.windows(age - self.lifetime))
    }

    /// Like [`state`](Self::state), for an entry that a soft purge made stale `marked_for` ago. Its
    /// windows count from the purge, or from its expiry if that came first. An entry without
    /// windows may be served while it is refreshed, for as long as it would have been fresh.
    pub fn state_when_marked(&self, now: Instant, marked_for: Duration) -> FreshnessState {
        let past_expiry = self.age(now).checked_sub(self.lifetime);
        let has_none = self.while_revalidate.max(self.if_error).is_zero();
        if past_expiry.is_none() && has_none && !self.must_revalidate {
            return FreshnessState::Stale(StaleWindows {
                while_revalidate: true,
                if_error: true,
            });
        }
        FreshnessState::Stale(self.windows(past_expiry.unwrap_or_default().max(marked_for)))
    }

    /// What may be done with an entry that is in doubt. Nobody gets it before its origin was asked.
    /// If that fails, it counts as an entry that has just expired.
    pub fn when_doubted(&self, now: Instant) -> StaleWindows {
        let windows = match self.state(now) {
            FreshnessState::Fresh if self.must_revalidate => StaleWindows::NONE,
            FreshnessState::Fresh => self.windows(Duration::ZERO),
            FreshnessState::Stale(windows) => windows,
        };
        StaleWindows {
            while_revalidate: false,
            ..windows
        }
    }

    /// Whether a response that was loaded for one request may be served to others who waited for
    /// it. A response that must be validated before each use may not (RFC 9111 §5.2.2.4).
    pub fn serves_others(&self, now: Instant) -> bool {
        match self.state(now) {
            FreshnessState::Fresh => true,
            FreshnessState::Stale(windows) => windows.while_revalidate,
        }
    }

    fn windows(&self, past: Duration) -> StaleWindows {
        if self.must_revalidate {
            return StaleWindows::NONE;
        }
        StaleWindows {
            while_revalidate: past < self.while_revalidate,
            if_error: past < self.if_error,
        }
    }

    /// How long after `received` the entry is of any use. An entry that can be validated is kept
    /// longer, because a 304 is cheaper than loading the whole response again.
    pub fn hard_life(&self, has_validator: bool) -> Duration {
        let fresh = self.lifetime.saturating_sub(self.initial_age);
        let keep = if has_validator {
            VALIDATION_WINDOW
        } else {
            Duration::ZERO
        };
        fresh + self.while_revalidate.max(self.if_error).max(keep)
    }
}

/// Seconds, rounded up.
pub(super) fn begun(time: Duration) -> i64 {
    time.saturating_add(Duration::from_millis(999)).as_secs() as i64
}

/// How long past expiry an entry is kept only for revalidation.
const VALIDATION_WINDOW: Duration = Duration::from_secs(3_600);

/// `corrected_initial_age` of a response (RFC 9111 §4.2.3).
///
/// `delay` is the time from sending the request to receiving the response's head.
pub fn initial_age(headers: &HeaderMap, received: SystemTime, delay: Duration) -> Duration {
    let apparent = date::field(headers, &DATE, received)
        .at()
        .and_then(|sent| received.duration_since(sent).ok())
        .unwrap_or_default();
    let age = Duration::from_secs(u64::from(age::age_value(headers).unwrap_or(0)));
    // `Date` has whole seconds, so a fraction of a second is rounding and not age.
    let apparent = Duration::from_secs(apparent.as_secs());
    apparent.max(age + delay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn freshness(received: Instant) -> Freshness {
        Freshness {
            received,
            initial_age: secs(5),
            lifetime: secs(60),
            while_revalidate: secs(10),
            if_error: secs(100),
            must_revalidate: false,
        }
    }

    #[test]
    fn windows_count_from_expiry() {
        let t = Instant::now();
        let f = freshness(t);
        let stale = |r, e| {
            FreshnessState::Stale(StaleWindows {
                while_revalidate: r,
                if_error: e,
            })
        };
        assert_eq!(f.state(t + secs(54)), FreshnessState::Fresh);
        assert_eq!(
            f.state(t + secs(55)),
            stale(true, true),
            "60 s of lifetime less 5 s of age"
        );
        assert_eq!(f.state(t + secs(65)), stale(false, true));
        assert_eq!(f.state(t + secs(155)), stale(false, false));
        assert_eq!(f.ttl(t + secs(50)), 5);
        assert_eq!(f.ttl(t + secs(58)), -3);
        assert_eq!(f.hard_life(false), secs(155));
    }

    #[test]
    fn must_revalidate_has_no_windows() {
        let t = Instant::now();
        let f = Freshness {
            must_revalidate: true,
            ..freshness(t)
        };
        assert_eq!(
            f.state(t + secs(56)),
            FreshnessState::Stale(StaleWindows::NONE)
        );
        let marked = f.state_when_marked(t, Duration::ZERO);
        assert_eq!(marked, FreshnessState::Stale(StaleWindows::NONE));
    }

    #[test]
    fn windows_count_from_a_soft_purge() {
        let t = Instant::now();
        let f = freshness(t);
        let windows =
            |after, marked_for| match f.state_when_marked(t + secs(after), secs(marked_for)) {
                FreshnessState::Fresh => panic!("it is stale"),
                FreshnessState::Stale(windows) => (windows.while_revalidate, windows.if_error),
            };
        assert_eq!(windows(1, 0), (true, true));
        assert_eq!(windows(11, 10), (false, true), "well before its expiry");
        assert_eq!(windows(50, 49), (false, true));
        assert_eq!(windows(64, 5), (true, true), "9 s after expiry");
        assert_eq!(windows(70, 5), (false, true), "15 s after expiry");
        assert_eq!(windows(154, 101), (false, false));
        let bare = Freshness {
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
            ..f
        };
        let served = FreshnessState::Stale(StaleWindows {
            while_revalidate: true,
            if_error: true,
        });
        assert_eq!(bare.state_when_marked(t + secs(50), secs(49)), served);
    }

    #[test]
    fn age_is_the_greater_of_date_and_age() {
        let now = SystemTime::UNIX_EPOCH + secs(784_111_777 + 30);
        let mut headers = HeaderMap::new();
        headers.insert(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(initial_age(&headers, now, Duration::ZERO), secs(30));
        headers.insert("age", "100".parse().unwrap());
        assert_eq!(initial_age(&headers, now, secs(2)), secs(102));
    }

    proptest! {
        #[test]
        fn an_entry_never_grows_fresh_again(at in 0u64..400, later in 0u64..400) {
            let t = Instant::now();
            let f = freshness(t);
            let rank = |s| match s { FreshnessState::Fresh => 0, FreshnessState::Stale(w) => 1 + u8::from(!w.while_revalidate) + u8::from(!w.if_error) };
            prop_assert!(rank(f.state(t + secs(at))) <= rank(f.state(t + secs(at + later))));
        }
    }
}
