//! How long to wait between attempts to reach something that fails: a leaf for whoever
//! keeps connections up.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// After this many failures in a row: `min` doubled with each, up to `max`, of which 50 to
/// 100 % by the dice, so that many nodes don't come back at once.
pub fn pause(failures: u32, min: Duration, max: Duration) -> Duration {
    diced(failures, (min, max), dice())
}

/// A number that nobody foresees; not for secrets.
pub fn dice() -> u32 {
    RandomState::new().hash_one(0) as u32
}

fn diced(failures: u32, (min, max): (Duration, Duration), dice: u32) -> Duration {
    let full = min
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(max.max(min));
    full.mul_f64(0.5 + 0.5 * f64::from(dice) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_attempts_grow_to_their_bound() {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(30));
        let bounds = (min, max);
        assert_eq!(diced(1, bounds, u32::MAX), min);
        assert_eq!(diced(2, bounds, u32::MAX), min * 2);
        assert_eq!(diced(1_000, bounds, u32::MAX), max);
        assert_eq!(diced(1_000, bounds, 0), max / 2);
        assert_eq!(diced(1_000, (min, Duration::ZERO), u32::MAX), min);
    }
}
