//! Jobs from the wish to the form in the entry.

use std::time::Duration;

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;
use crate::entry::PurgeAttributes;
use crate::freshness::Freshness;
use crate::http::vary::Vary;
use crate::purge::PurgeOrder;

const LEVELS: CodingLevels = CodingLevels {
    gzip: 6,
    brotli: 5,
    zstd: 3,
};

fn text() -> Vec<u8> {
    let line = |n: u32| format!("line {n} of a text that is long enough\n");
    (0..1000).flat_map(|n| line(n).into_bytes()).collect()
}

fn entry(body: Vec<u8>, coding: Option<ContentCoding>) -> Arc<Entry> {
    let headers = coding.map(|coding| (CONTENT_ENCODING, coding.to_value()));
    Arc::new(Entry::new(
        EntryKey::of(&[1]),
        StatusCode::OK,
        headers.into_iter().collect::<HeaderMap<HeaderValue>>(),
        Bytes::from(body),
        Freshness {
            received: Instant::now(),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_secs(60),
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
            must_revalidate: false,
        },
        PurgeAttributes::default(),
        PurgeOrder::new(0),
    ))
}

fn stored(entry: &Arc<Entry>) -> (Arc<L1>, BodyEncoder) {
    let l1 = Arc::new(L1::new(&Default::default(), |_| {}));
    l1.put(entry.key.clone(), &Vary::None, Arc::clone(entry));
    let encoder = BodyEncoder::new(Arc::clone(&l1), &Registry::new()).unwrap();
    (l1, encoder)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn forms_come_into_the_entry_and_count_as_its_bytes() {
    let text = text();
    let entry = entry(text.clone(), None);
    let (l1, encoder) = stored(&entry);
    l1.tend();
    let before = l1.bytes();
    for coding in [
        ContentCoding::Gzip,
        ContentCoding::Brotli,
        ContentCoding::Zstd,
    ] {
        let made = || {
            // A loaded machine gives jobs up; the next request asks again.
            encoder.want(&entry, coding, LEVELS, FormYardstick::Stored, 1 << 20);
            entry.form(coding).is_some()
        };
        until("the form is made", made);
        let form = entry.form(coding).unwrap();
        assert!(form.len() < text.len() / 2);
        assert_eq!(decode(coding, form, 1 << 20).unwrap(), text);
        until("the job has ended", || {
            encoder.counts.of(coding, EncodingOutcome::Made) == 1
        });
    }
    l1.tend();
    let forms: usize = crate::http::coding::CODINGS
        .iter()
        .map(|coding| entry.form(*coding).unwrap().len())
        .sum();
    let grown = l1.bytes() - before;
    assert!(grown >= forms as u64, "{grown} for {forms}");
}

#[test]
fn a_coded_body_is_decoded_first_and_noise_has_no_form() {
    let text = text();
    let gzipped = encode(ContentCoding::Gzip, &LEVELS, &text, text.len()).unwrap();
    let coded = entry(gzipped, Some(ContentCoding::Gzip));
    let (_, encoder) = stored(&coded);
    let zstd = ContentCoding::Zstd;
    until("the form is made", || {
        encoder.want(&coded, zstd, LEVELS, FormYardstick::Decoded, 1 << 20);
        coded.form(zstd).is_some()
    });
    assert_eq!(
        decode(zstd, coded.form(zstd).unwrap(), 1 << 20).unwrap(),
        text
    );

    let mut state = 1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let noise = entry((0..4096).map(|_| random()).collect(), None);
    let (_, encoder) = stored(&noise);
    until("it was tried", || {
        encoder.want(&noise, zstd, LEVELS, FormYardstick::Stored, 1 << 20);
        encoder.counts.of(zstd, EncodingOutcome::TooLittle) == 1
    });
    encoder.want(&noise, zstd, LEVELS, FormYardstick::Stored, 1 << 20);
    assert!(noise.form(zstd).is_none());
    assert_eq!(
        encoder.counts.of(zstd, EncodingOutcome::TooLittle),
        1,
        "tried once"
    );
}

#[test]
fn what_the_queue_has_no_room_for_is_counted_and_tried_again() {
    let entry = entry(text(), None);
    let (_, encoder) = stored(&entry);
    {
        let mut waiting = encoder.shared.waiting.lock();
        // No thread takes anything.
        waiting.started = true;
        waiting.bytes = MOST_BYTES;
    }
    let gzip = ContentCoding::Gzip;
    for _ in 0..=MOST_JOBS {
        entry.forms_to_fill().give_up(gzip);
        encoder.want(&entry, gzip, LEVELS, FormYardstick::Stored, 1 << 20);
    }
    let skipped = encoder.counts.of(gzip, EncodingOutcome::Skipped);
    assert_eq!(
        skipped, MOST_JOBS as u64,
        "one was in before the bytes were too many"
    );
    assert!(entry.forms_to_fill().is_open(gzip, FormYardstick::Stored));
}
