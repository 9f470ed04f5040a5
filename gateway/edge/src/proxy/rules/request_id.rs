//! A name for each request, under which the origin, the log, error pages and the client know it.
//!
//! It is a UUID of version 7 (RFC 9562 §5.7), so that names sort by time. A trusted proxy may have
//! given one already, which is kept; what a stranger sends is replaced.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};

use crate::http::forward::REQUEST_ID;
use crate::http::server::Peer;

/// The id of a request. Those that go further than the first tier have it in their extensions.
#[derive(Clone, Debug)]
pub struct RequestId(pub HeaderValue);

/// The most octets of an id that is kept.
const MOST: usize = 128;

impl RequestId {
    /// The id of a request with these fields, from this peer.
    pub fn of(headers: &HeaderMap, peer: &Peer) -> Self {
        let given = match peer.trusted {
            true => headers.get(REQUEST_ID),
            false => None,
        };
        let given = given.filter(|given| is_good(given.as_bytes()));
        Self(given.cloned().unwrap_or_else(made))
    }
}

/// Letters, digits and what stands between them: nothing that means something in a page or a log.
fn is_good(id: &[u8]) -> bool {
    let good = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_.:=+/@".contains(octet);
    (1..=MOST).contains(&id.len()) && id.iter().all(good)
}

fn made() -> HeaderValue {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = now.map_or(0, |now| {
        now.as_secs() * 1000 + u64::from(now.subsec_millis())
    });
    let text = uuid(millis, random(), random());
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("none"))
}

/// The two digits of each octet.
static DIGITS: [[u8; 2]; 256] = {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let mut digits = [[0; 2]; 256];
    let mut octet = 0;
    while octet < digits.len() {
        digits[octet] = [HEX[octet >> 4], HEX[octet & 15]];
        octet += 1;
    }
    digits
};

/// The text of a UUID of version 7.
fn uuid(millis: u64, one: u64, other: u64) -> [u8; 36] {
    let high = millis << 16 | 0x7000 | (one & 0x0fff);
    let low = 1 << 63 | (other & (u64::MAX >> 2));
    /// Where the two digits of each octet stand.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut text = [b'-'; 36];
    let octets = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    for (place, octet) in PLACES.into_iter().zip(octets) {
        text[place..place + 2].copy_from_slice(&DIGITS[usize::from(octet)]);
    }
    text
}

/// A number that nobody else gets. It need not be hard to guess: an id gives no right to anything.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(seed());
    }
    // SplitMix64.
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

/// The standard library seeds its hashes with random octets of the system.
fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_7() {
        // The example of RFC 9562, appendix A.6.
        let text = uuid(0x017f_22e2_79b0, 0xcc3, 0x18c4_dc0c_0c07_398f);
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
        );
        let ids: std::collections::BTreeSet<_> = (0..10_000)
            .map(|_| made().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| is_good(id.as_bytes())));
    }

    #[test]
    fn an_id_is_no_markup_and_no_novel() {
        for good in [
            "a",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
            "Root=1-67891233-abc",
            "a/b+c=",
        ] {
            assert!(is_good(good.as_bytes()), "{good}");
        }
        for bad in ["", "<b>", "a b", "a\"", "a,b", "é", &"x".repeat(129)] {
            assert!(!is_good(bad.as_bytes()), "{bad}");
        }
    }
}
