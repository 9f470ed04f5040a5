//! What strangers can make many of, within bounds: names under way, refusals, orders.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::sync::watch;

/// The most names whose refusal is remembered; above that the oldest are forgotten.
const MOST_REFUSED: usize = 10_000;

/// The time in which orders are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// Last labels of names that no public issuer gives certificates for (RFC 6761, RFC 6762 and what
/// ICANN has set aside).
const NOT_PUBLIC: [&str; 11] = [
    "arpa",
    "corp",
    "example",
    "home",
    "internal",
    "invalid",
    "lan",
    "local",
    "localhost",
    "onion",
    "test",
];

/// What is under way, and what is left alone for a while.
#[derive(Default)]
pub(super) struct OnDemandState {
    /// Names that are asked about or ordered; closed when that has ended.
    pub(super) pending: HashMap<Box<str>, watch::Receiver<()>>,
    pub(super) refused: RefusedNames,
    /// When orders of the last minute have begun.
    orders: VecDeque<Instant>,
}

/// Names about which nothing is done for a while.
#[derive(Default)]
pub(super) struct RefusedNames {
    until: HashMap<Box<str>, Instant>,
    /// In the order in which they came.
    order: VecDeque<Box<str>>,
}

impl RefusedNames {
    pub(super) fn has(&self, name: &str, now: Instant) -> bool {
        self.until.get(name).is_some_and(|until| *until > now)
    }

    pub(super) fn put(&mut self, name: &str, until: Instant) {
        if self.until.insert(name.into(), until).is_none() {
            self.order.push_back(name.into());
        }
        while self.order.len() > MOST_REFUSED {
            if let Some(oldest) = self.order.pop_front() {
                self.until.remove(&oldest);
            }
        }
    }
}

impl OnDemandState {
    /// Counts an order, if one more may begin now.
    pub(super) fn begin_order(&mut self, most: usize, now: Instant) -> bool {
        let is_old = |begun: &Instant| now.duration_since(*begun) >= MINUTE;
        while self.orders.front().is_some_and(is_old) {
            self.orders.pop_front();
        }
        let may = self.orders.len() < most;
        if may {
            self.orders.push_back(now);
        }
        may
    }
}

/// Whether a name, which is in lower case and no address, may be that of a public host.
pub(super) fn is_public(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let Some((_, last)) = name.rsplit_once('.') else {
        return false;
    };
    let is_domain = last.bytes().any(|b| b.is_ascii_alphabetic()) && !NOT_PUBLIC.contains(&last);
    is_domain && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(600);

    #[test]
    fn only_names_of_public_hosts_may_be_ordered() {
        for name in ["a.com", "x.y.co.uk", "xn--bcher-kva.de", "1.de"] {
            assert!(is_public(name), "{name}");
        }
        for name in [
            "localhost",
            "intranet",
            "a.local",
            "a.test",
            "b.example",
            "10.0.0.1.",
            "1.2.3.4",
            "a_b.com",
            "-a.com",
            "a-.com",
            "db.internal",
            "1.0.0.127.in-addr.arpa",
        ] {
            assert!(!is_public(name), "{name}");
        }
    }

    #[test]
    fn refusals_are_bounded_and_forgotten() {
        let (mut refused, now) = (RefusedNames::default(), Instant::now());
        for n in 0..MOST_REFUSED + 5 {
            refused.put(&format!("{n}.com"), now + SPAN);
        }
        assert_eq!(refused.until.len(), MOST_REFUSED);
        assert!(!refused.has("4.com", now) && refused.has("5.com", now));
        assert!(!refused.has("5.com", now + SPAN));
    }

    #[test]
    fn orders_are_counted_by_the_minute() {
        let (mut state, now) = (OnDemandState::default(), Instant::now());
        assert!(state.begin_order(2, now) && state.begin_order(2, now));
        assert!(!state.begin_order(2, now + MINUTE / 2));
        assert!(state.begin_order(2, now + MINUTE));
    }
}
