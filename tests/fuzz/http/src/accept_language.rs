//! Languages: one of those that are offered is picked whatever a client writes, and asking for the
//! picked one changes nothing.
//!
//! Input: `Accept-Language`.

use fuzz_harness::input;
use http::HeaderMap;
use http::header::ACCEPT_LANGUAGE;
use lamina_http::accept_language::OfferedLanguages;

pub fn check(data: &[u8]) {
    let tags = ["de", "en-GB", "fr"].map(str::to_owned);
    let offered = OfferedLanguages::new(&tags);
    let asked = input::values(&ACCEPT_LANGUAGE, data);
    let picked = offered.pick(&asked).expect("one is offered");
    let again = HeaderMap::from_iter([(ACCEPT_LANGUAGE, picked.clone())]);
    assert_eq!(offered.pick(&again), Some(picked));
}
