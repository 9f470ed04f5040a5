//! Laws of the cache engine: keys, policies, purges, records, a file a subject, each with its input's form at the top.

#![no_main]

use std::sync::LazyLock;

use fuzz_harness::{Law, Target, chosen};

mod age;
mod cache_groups;
mod date;
mod key;
mod parts;
mod policy;
mod purge;
mod record;
mod status;
mod tags;
mod targeted;
mod units;

/// The targets: each is one law, or a few that read the same form.
const TARGETS: [Target; 8] = [
    ("clock", &[age::check, date::check]),
    ("key", &[key::check]),
    ("parts", &[parts::check]),
    ("policy", &[policy::check, tags::check]),
    ("purge", &[purge::check]),
    ("record", &[record::check]),
    ("structured", &[targeted::check, cache_groups::check]),
    ("texts", &[units::check, status::check]),
];

static LAWS: LazyLock<&[Law]> = LazyLock::new(|| chosen(&TARGETS));

libfuzzer_sys::fuzz_target!(|data: &[u8]| LAWS.iter().for_each(|law| law(data)));
