//! Compares the policy with another implementation of the same RFC: the crate
//! `http-cache-semantics`.
//!
//! Both judge random responses. They must agree on storage, and on freshness at a later time.
//! Decision: where the crate is known to read the RFC differently, the case is first rewritten into
//! a form that the crate reads as the RFC means it. Each such adaptation names its section, so
//! nothing is left out of the comparison. A test also checks that every adaptation is needed.
//! (Version 3.0.0, an implementation of RFC 7234, passively maintained.)

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Instant, SystemTime};

use http_cache_semantics::{CacheOptions, CachePolicy};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::freshness::{Freshness, FreshnessState, initial_age};

mod adapt;
mod case;

use adapt::{ADAPTATIONS, AdaptedOracleCase};
use case::{AGES, DATES, DIRECTIVES, OracleCase, cases, fields, map};

/// `Sun, 06 Nov 1994 08:49:37 GMT`
const NOW: u64 = 784_111_777;
const CASES: u32 = 20_000;

/// Whether it is stored and, if so, whether it is fresh at the later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Refused,
    Stale,
    Fresh,
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn ours(case: &OracleCase) -> Verdict {
    let policy = config::CachePolicyConfig {
        request_directives: Some(config::RequestDirectivePolicy::Honor),
        // Without this list these are not stored, whatever the RFC allows.
        statuses: Some(
            (400..500)
                .filter(|code| ![404, 410].contains(code))
                .collect(),
        ),
        ..Default::default()
    };
    let (request, response) = (map(&case.asked), fields(case, |form| form.wire));
    let exchange = HttpExchange {
        request: &request,
        path: "/",
        length: None,
        status: StatusCode::from_u16(case.status).unwrap(),
        response: &response,
        received: at(NOW),
        plugin_ttl: None,
        credentials: Credentials::Keyed,
        authorization: CameWith::of(&request).authorization,
    };
    let judged = Policy::new(
        &policy,
        &config::CachePolicyConfig::default(),
        &CacheKeyTemplate::default(),
    )
    .judge(&exchange, 0);
    let Ok(terms) = judged else {
        return Verdict::Refused;
    };
    let Lifetime::OfResponse(lifetime) = terms.lifetime else {
        panic!("a route without a ttl gave a lifetime");
    };
    let received = Instant::now();
    let freshness = Freshness {
        received,
        initial_age: initial_age(&response, at(NOW), Duration::ZERO),
        lifetime,
        while_revalidate: terms.while_revalidate,
        if_error: terms.if_error,
        must_revalidate: terms.must_revalidate,
    };
    match freshness.state(received + Duration::from_secs(case.elapsed)) {
        FreshnessState::Fresh => Verdict::Fresh,
        FreshnessState::Stale(_) => Verdict::Stale,
    }
}

fn theirs(case: &AdaptedOracleCase) -> Verdict {
    let mut request = http::Request::new(());
    *request.headers_mut() = map(&case.asked);
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::from_u16(case.status).unwrap();
    *response.headers_mut() = case.fields.clone();
    let options = CacheOptions {
        immutable_min_time_to_live: Duration::ZERO,
        ..Default::default()
    };
    let policy = CachePolicy::new_options(&request, &response, at(NOW), options);
    match (
        policy.is_storable(),
        policy.is_stale(at(NOW + case.elapsed)),
    ) {
        (false, _) => Verdict::Refused,
        (true, true) => Verdict::Stale,
        (true, false) => Verdict::Fresh,
    }
}

/// Calls `look` with random cases, the same in each run.
fn for_all(look: impl Fn(&OracleCase) -> Result<(), TestCaseError>) {
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..Default::default()
    };
    let seeded = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, seeded);
    if let Err(failure) = runner.run(&cases(), |case| look(&case)) {
        panic!("{failure}");
    }
}

#[test]
fn storage_and_freshness_agree_with_another_reading_of_the_rfc() {
    for_all(|case| {
        let adapted = AdaptedOracleCase::new(case, None);
        prop_assert_eq!(ours(case), theirs(&adapted), "{:#?}", adapted.fields);
        Ok(())
    });
}

/// An adaptation that is not needed could hide a future difference.
#[test]
fn every_adaptation_is_needed() {
    let forms = [&DIRECTIVES[..], &DATES, &AGES].concat();
    let mut idle: BTreeSet<&str> = forms.iter().filter_map(|form| form.section).collect();
    idle.extend(ADAPTATIONS.iter().map(|(name, _)| *name));
    let idle = RefCell::new(idle);
    for_all(|case| {
        let ours = ours(case);
        idle.borrow_mut()
            .retain(|name| theirs(&AdaptedOracleCase::new(case, Some(name))) == ours);
        Ok(())
    });
    assert!(idle.borrow().is_empty(), "not needed: {:#?}", idle.borrow());
}
