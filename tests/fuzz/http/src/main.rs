//! Laws of HTTP: heads, bodies and frames as they come from the network, a file a subject, each with its input's form at the top.

#![no_main]

use std::sync::LazyLock;

use fuzz_harness::{Law, Target, chosen};

mod accept_language;
mod cache_control;
mod coding;
mod conditional;
mod esi;
mod forward;
mod forwarded;
mod frames;
mod framing;
mod guard;
mod path;
mod proxy_protocol;
mod range;
mod reference;
mod vary;

/// The targets: each is one law, or a few that read the same form.
const TARGETS: [Target; 14] = [
    ("accept_language", &[accept_language::check]),
    ("cache_control", &[cache_control::check]),
    ("coding", &[coding::check]),
    ("conditional", &[conditional::check]),
    ("esi", &[esi::check]),
    ("forward", &[forward::check, forwarded::check]),
    ("frames", &[frames::check]),
    ("framing", &[framing::check]),
    ("guard", &[guard::check]),
    ("path", &[path::check]),
    ("proxy_protocol", &[proxy_protocol::check]),
    ("range", &[range::check]),
    ("reference", &[reference::check]),
    ("vary", &[vary::check]),
];

static LAWS: LazyLock<&[Law]> = LazyLock::new(|| chosen(&TARGETS));

libfuzzer_sys::fuzz_target!(|data: &[u8]| LAWS.iter().for_each(|law| law(data)));
