//! Content codings: what is encoded decodes to the same, whatever is decoded stays within its
//! bounds, and a client gets no coding that it did not ask for.
//!
//! Input: a block of `Accept-Encoding`, then octets that are encoded, and also decoded as they are.

use fuzz_harness::input;
use http::header::ACCEPT_ENCODING;
use lamina_http::coding::accept::AcceptedCodings;
use lamina_http::coding::decode::{MOST_RATIO, decode};
use lamina_http::coding::encode::{CodingLevels, encode};
use lamina_http::coding::{CODINGS, ContentCoding};

/// Octets that a small body may expand to, whatever its ratio.
const ALWAYS: usize = 64 << 10;
const STEP: usize = 64 << 10;

pub fn check(data: &[u8]) {
    let [accept, body] = input::blocks(data);
    for coding in CODINGS {
        round_trip(coding, body);
        bounded(coding, body);
    }
    let request = input::values(&ACCEPT_ENCODING, accept);
    let accepted = AcceptedCodings::of(&request);
    let ranked = accepted.ranked(CODINGS);
    for coding in ranked.as_slice() {
        assert!(accepted.takes(*coding), "{coding:?} is not taken");
        let name = coding.as_str().as_bytes();
        let is_named = |part: &[u8]| {
            accept
                .windows(part.len())
                .any(|at| at.eq_ignore_ascii_case(part))
        };
        assert!(
            is_named(name) || is_named(b"*"),
            "{coding:?} is not asked for"
        );
    }
}

fn round_trip(coding: ContentCoding, body: &[u8]) {
    let levels = CodingLevels {
        gzip: 6,
        brotli: 5,
        zstd: 3,
    };
    let coded = encode(coding, &levels, body, body.len() + 100);
    let coded = coded.expect("there is room for content that can't be compressed");
    let back = decode(coding, &coded, body.len());
    assert_eq!(back.as_deref(), Ok(body), "{coding:?}");
}

fn bounded(coding: ContentCoding, body: &[u8]) {
    let most = 1 << 20;
    if let Ok(plain) = decode(coding, body, most) {
        let by_ratio = (body.len() + 1) * MOST_RATIO as usize + STEP;
        assert!(plain.len() <= most && plain.len() <= by_ratio.max(ALWAYS));
    }
}
