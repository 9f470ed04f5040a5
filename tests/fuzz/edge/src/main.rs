//! Laws of the configuration, of templates, and of what origins answer, a file a subject, each with its input's form at the top.

#![no_main]

use std::sync::LazyLock;

use fuzz_harness::{Law, Target, chosen};

mod config;
mod origin_head;
mod templates;

/// The targets: each is one law, or a few that read the same form.
const TARGETS: [Target; 3] = [
    ("config", &[config::check]),
    ("origin_head", &[origin_head::check]),
    ("templates", &[templates::check]),
];

static LAWS: LazyLock<&[Law]> = LazyLock::new(|| chosen(&TARGETS));

libfuzzer_sys::fuzz_target!(|data: &[u8]| LAWS.iter().for_each(|law| law(data)));
