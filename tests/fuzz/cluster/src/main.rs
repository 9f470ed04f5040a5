//! Laws of events of the bus, a file a subject, each with its input's form at the top.

#![no_main]

use std::sync::LazyLock;

use fuzz_harness::{Law, Target, chosen};

mod event;

/// The targets: each is one law, or a few that read the same form.
const TARGETS: [Target; 1] = [("event", &[event::check])];

static LAWS: LazyLock<&[Law]> = LazyLock::new(|| chosen(&TARGETS));

libfuzzer_sys::fuzz_target!(|data: &[u8]| LAWS.iter().for_each(|law| law(data)));
