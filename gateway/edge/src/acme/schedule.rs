//! When something is to be done about a certificate. Reads no clock: times are arguments, in
//! seconds since 1970.
//!
//! Decision: what is random about a renewal follows from the certificate, so that all nodes and all
//! restarts choose the same instant without a word between them.

use std::time::{SystemTime, UNIX_EPOCH};

use super::config::AcmeRetryConfig;
use super::records::{RenewalWindow, StoredAttempts, StoredRenewal};

/// From when and until when a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CertificateValidity {
    pub not_before: u64,
    pub not_after: u64,
}

/// The next thing to be done about a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcmeStep {
    /// Nothing before this time.
    WaitUntil(u64),
    /// Ask the issuer when it wants the certificate to be renewed.
    AskForWindow,
    /// Obtain the certificate, or a newer one.
    Obtain,
}

/// What is known of a certificate that is there.
#[derive(Clone, Copy, Debug)]
pub struct KnownValidity<'a> {
    pub validity: CertificateValidity,
    /// A number that follows from the certificate.
    pub dice: u32,
    /// What the issuer said of its renewal. None if it was not asked yet.
    pub renewal: Option<&'a StoredRenewal>,
}

/// The shortest and the longest time after which an issuer is asked again for a window, whatever it
/// says (RFC 9773 §4.3.2).
pub const SOONEST_ASK_AGAIN: u64 = 60;
pub const LATEST_ASK_AGAIN: u64 = 24 * HOUR;

/// The longest that an issuer is left alone, whatever it says: the longest span of time that
/// Let's Encrypt counts over.
pub const LONGEST_PAUSE: u64 = 7 * 24 * HOUR;
/// How far apart the clocks of nodes, and of two looks at one, may be before a time counts as that of a
/// clock that is wrong.
pub const CLOCK_SLACK: u64 = HOUR;

/// Certificates with a shorter life are renewed at half of it.
const SHORT_LIFE: u64 = 10 * 24 * 3_600;

/// Whatever its issuer suggests, a certificate is renewed when this part of its life is left.
const LAST_PART: u64 = 10;

/// How often names may be refused within an hour before they are left alone for an hour: that is
/// Let's Encrypt's limit.
const MOST_REFUSED: usize = 5;
const HOUR: u64 = 3_600;

/// What is to be done now, given the certificate that is there (if there is one) and the failures
/// so far.
pub fn next_step(
    known: Option<KnownValidity<'_>>,
    attempts: &StoredAttempts,
    now: u64,
) -> AcmeStep {
    let renew_at = match known {
        None => 0,
        Some(known) => match known.renewal {
            None => return AcmeStep::AskForWindow,
            Some(renewal) => renewal_time(&known, renewal.window),
        },
    };
    let due = renew_at.max(attempts.not_before);
    if due <= now {
        return AcmeStep::Obtain;
    }
    match known.and_then(|known| known.renewal) {
        Some(renewal) if renewal.ask_again <= now => AcmeStep::AskForWindow,
        Some(renewal) => AcmeStep::WaitUntil(due.min(renewal.ask_again)),
        None => AcmeStep::WaitUntil(due),
    }
}

/// When a certificate is renewed: at an instant of the window that its issuer suggests, and while a
/// tenth of its life is left; else around two thirds of its life, or half of a short one.
pub fn renewal_time(known: &KnownValidity<'_>, window: Option<RenewalWindow>) -> u64 {
    let part = f64::from(known.dice) / f64::from(u32::MAX);
    let CertificateValidity {
        not_before,
        not_after,
    } = known.validity;
    let life = not_after.saturating_sub(not_before);
    match window {
        Some(RenewalWindow { start, end }) => {
            let width = end.saturating_sub(start) as f64;
            // A window that ends after the certificate would leave a time without one.
            let latest = not_after - life / LAST_PART;
            (start + (width * part) as u64).min(latest)
        }
        None => {
            let share = if life < SHORT_LIFE { 0.5 } else { 2.0 / 3.0 };
            let share = share * (0.9 + 0.2 * part);
            not_before + (life as f64 * share) as u64
        }
    }
}

/// What went wrong with an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptFault {
    /// An issuer found that a name is not ours.
    Refused,
    Other,
}

/// Notes one more failure, and how long the pause after it is.
pub fn note_failure(
    attempts: &mut StoredAttempts,
    fault: AttemptFault,
    retry: &AcmeRetryConfig,
    dice: u32,
    now: u64,
) {
    attempts.failures = attempts.failures.saturating_add(1);
    let full = retry
        .min
        .0
        .saturating_mul(1 << (attempts.failures - 1).min(16))
        .min(retry.max.0);
    // Half of it at least, so that nodes and certificates do not come all at once.
    let pause = full.mul_f64(0.5 + 0.5 * f64::from(dice) / f64::from(u32::MAX));
    attempts.not_before = now + pause.as_secs().max(1);
    if fault == AttemptFault::Refused {
        attempts.refused.retain(|at| at + HOUR > now);
        attempts.refused.push(now);
        if attempts.refused.len() >= MOST_REFUSED {
            attempts.not_before = attempts.not_before.max(now + HOUR);
            attempts.refused.clear();
        }
    }
}

/// The longest pause after a failure.
pub fn longest_pause(retry: &AcmeRetryConfig) -> u64 {
    retry.max.0.as_secs().max(HOUR).max(LONGEST_PAUSE)
}

/// A time in seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The time now, in seconds since 1970.
pub fn now() -> u64 {
    seconds(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600;

    fn known(life: u64, dice: u32, renewal: Option<&StoredRenewal>) -> KnownValidity<'_> {
        let validity = CertificateValidity {
            not_before: 1_000,
            not_after: 1_000 + life,
        };
        KnownValidity {
            validity,
            dice,
            renewal,
        }
    }

    fn asked(window: Option<(u64, u64)>, ask_again: u64) -> StoredRenewal {
        StoredRenewal {
            certificate: "c".to_owned(),
            window: window.map(|(start, end)| RenewalWindow { start, end }),
            ask_again,
        }
    }

    #[test]
    fn without_a_window_two_thirds_of_a_life_count_or_half_of_a_short_one() {
        for (life, share) in [(90 * DAY, 2.0 / 3.0), (6 * DAY, 0.5), (60, 0.5)] {
            for (dice, factor) in [(0, 0.9), (u32::MAX, 1.1)] {
                let at = renewal_time(&known(life, dice, None), None);
                let wanted = 1_000 + (life as f64 * share * factor) as u64;
                assert!(at.abs_diff(wanted) <= 1, "{life} {dice}: {at} and {wanted}");
            }
        }
    }

    #[test]
    fn an_instant_of_the_window_counts_and_a_window_in_the_past_is_now() {
        let attempts = StoredAttempts::default();
        let future = asked(Some((5_000, 6_000)), 9_000);
        let life = 90 * DAY;
        let next = |dice, renewal, now| next_step(Some(known(life, dice, renewal)), &attempts, now);
        assert_eq!(next(0, Some(&future), 2_000), AcmeStep::WaitUntil(5_000));
        let last = next(u32::MAX, Some(&future), 2_000);
        assert_eq!(last, AcmeStep::WaitUntil(6_000));
        let past = asked(Some((10, 20)), 9_000);
        assert_eq!(next(7, Some(&past), 2_000), AcmeStep::Obtain);
        let late = asked(Some((1_000 + 2 * life, 1_000 + 3 * life)), u64::MAX);
        let tenth_left = AcmeStep::WaitUntil(1_000 + life / 10 * 9);
        assert_eq!(next(0, Some(&late), 2_000), tenth_left);
        // Where the window is longer than a life, most of its instants are after the end.
        let wide = asked(Some((1_000, 1_000 + 20 * life)), u64::MAX);
        assert_eq!(next(u32::MAX / 2, Some(&wide), 2_000), tenth_left);
    }

    #[test]
    fn the_issuer_is_asked_first_and_again_when_it_says_so() {
        let attempts = StoredAttempts::default();
        let life = 90 * DAY;
        let step = next_step(Some(known(life, 0, None)), &attempts, 2_000);
        assert_eq!(step, AcmeStep::AskForWindow);
        let renewal = asked(Some((5_000_000, 6_000_000)), 3_000);
        let at = |now| next_step(Some(known(life, 0, Some(&renewal))), &attempts, now);
        assert_eq!(at(2_000), AcmeStep::WaitUntil(3_000));
        assert_eq!(at(3_000), AcmeStep::AskForWindow);
    }

    #[test]
    fn pauses_grow_and_five_refusals_in_an_hour_make_an_hour() {
        let retry = AcmeRetryConfig::default();
        let mut attempts = StoredAttempts::default();
        let mut pauses = Vec::new();
        for _ in 0..20 {
            note_failure(&mut attempts, AttemptFault::Other, &retry, u32::MAX, 1_000);
            pauses.push(attempts.not_before - 1_000);
        }
        assert_eq!(&pauses[..4], [60, 120, 240, 480]);
        assert_eq!(pauses.last(), Some(&DAY));
        let mut attempts = StoredAttempts::default();
        for n in 0..5 {
            let now = 1_000 + n;
            note_failure(&mut attempts, AttemptFault::Refused, &retry, 0, now);
        }
        assert_eq!(attempts.not_before, 1_004 + HOUR);
        assert_eq!(
            next_step(None, &attempts, 1_100),
            AcmeStep::WaitUntil(1_004 + HOUR)
        );
        assert_eq!(next_step(None, &attempts, 1_004 + HOUR), AcmeStep::Obtain);
    }
}
