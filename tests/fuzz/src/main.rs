//! One libFuzzer program for all targets: `LAMINA_FUZZ=<target>` chooses, `run.sh` drives it.
//!
//! One program rather than one a target, since each would link the wasm compiler anew.
//! A target is a function over bytes that asserts laws ([`laws`]); its inputs are text
//! wherever the gateway's are ([`input`]), so that seeds and findings can be read.

#![no_main]

use std::sync::LazyLock;

mod input;
mod laws;

static TARGET: LazyLock<&[laws::Law]> = LazyLock::new(|| {
    let wanted = std::env::var("LAMINA_FUZZ").unwrap_or_default();
    match laws::TARGETS.iter().find(|(name, _)| *name == wanted) {
        Some((_, laws)) => laws,
        None => panic!(
            "LAMINA_FUZZ={wanted:?} is no target; there are {:?}",
            laws::TARGETS.map(|(name, _)| name)
        ),
    }
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.iter().for_each(|law| law(data)));
