//! `Age` and what an entry's clock makes of it: never negative, never younger by being later.
//!
//! Input: the fields of a response, then `lifetime while-revalidate if-error delay` in seconds.

use std::time::{Duration, Instant, UNIX_EPOCH};

use http::header::AGE;
use lamina_cache::freshness::{Freshness, FreshnessState, StaleWindows, initial_age};
use lamina_http::age::age_value;

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let [headers, numbers] = input::blocks(data);
    let headers = input::fields(headers);
    let said = age_value(&headers);
    if let Some(seconds) = said {
        assert!(seconds <= 1 << 31);
        let first = headers[AGE].as_bytes().split(|&octet| octet == b',').next();
        let digits = first.unwrap_or_default().trim_ascii();
        assert!(!digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    }
    let mut numbers = input::texts(numbers)
        .flat_map(|line| line.split(' '))
        .filter_map(|number| number.parse::<u32>().ok())
        .map(|seconds| Duration::from_secs(seconds.into()));
    let mut next = || numbers.next().unwrap_or_default();
    let received = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
    let (lifetime, while_revalidate, if_error, delay) = (next(), next(), next(), next());
    let age = initial_age(&headers, received, delay);
    assert!(
        age >= Duration::from_secs(said.unwrap_or(0).into()),
        "§4.2.3: the greater one"
    );
    let freshness = Freshness {
        received: Instant::now(),
        initial_age: age,
        lifetime,
        while_revalidate,
        if_error,
        must_revalidate: while_revalidate > if_error,
    };
    clock(&freshness, next());
}

fn clock(freshness: &Freshness, later: Duration) {
    let now = freshness.received;
    let (first, second) = (freshness.state(now), freshness.state(now + later));
    assert!(rank(first) <= rank(second), "it never grows fresh again");
    assert_eq!(
        first == FreshnessState::Fresh,
        freshness.ttl(now) > 0,
        "what is fresh has time left"
    );
    if freshness.must_revalidate && second != FreshnessState::Fresh {
        assert_eq!(second, FreshnessState::Stale(StaleWindows::NONE));
    }
    let end = now + freshness.hard_life(false);
    assert_eq!(
        freshness.state(end),
        FreshnessState::Stale(StaleWindows::NONE),
        "of no use at its hard end"
    );
}

fn rank(state: FreshnessState) -> u8 {
    match state {
        FreshnessState::Fresh => 0,
        FreshnessState::Stale(windows) => {
            1 + u8::from(!windows.while_revalidate) + u8::from(!windows.if_error)
        }
    }
}
