//! Laws of the matcher of patterns, a file a subject, each with its input's form at the top.

#![no_main]

use std::sync::LazyLock;

use fuzz_harness::{Law, Target, chosen};

mod pattern;

/// The targets: each is one law, or a few that read the same form.
const TARGETS: [Target; 1] = [("pattern", &[pattern::check])];

static LAWS: LazyLock<&[Law]> = LazyLock::new(|| chosen(&TARGETS));

libfuzzer_sys::fuzz_target!(|data: &[u8]| LAWS.iter().for_each(|law| law(data)));
