//! Events of the bus: whatever comes is an event within the limits, or refused; an event
//! that was read can be written and is read again as itself.
//!
//! Input: one character, then bytes. `r`: they are a message as a broker delivers it. `m`:
//! they are the msgpack of one, read without a tag, with one, and out of gzip and zstd.

use bytes::Bytes;
use lamina_base::envelope::{Compression, EnvelopeCodec, PLAIN};
use lamina_cluster::bus::event::{
    BusEvent, EventFormatError, EventShape, MAX_BYTES, MAX_KEYS, MAX_TEXT,
};

pub fn check(data: &[u8]) {
    match data.split_first() {
        Some((b'r', content)) => again(read(content), content),
        Some((b'm', content)) => forms(content),
        _ => {}
    }
}

fn read(content: &[u8]) -> Result<BusEvent, EventFormatError> {
    BusEvent::decode(&Bytes::copy_from_slice(content))
}

/// Each form means the same.
fn forms(content: &[u8]) {
    let plain = [PLAIN.as_slice(), content].concat();
    let read_plain = read(&plain);
    if matches!(content, [0x80..=0x8f | 0xde | 0xdf, ..]) {
        assert_eq!(read(content), read_plain);
    }
    for codec in [EnvelopeCodec::GZIP, EnvelopeCodec::ZSTD] {
        let compression = Compression {
            codec,
            min_bytes: 0,
        };
        if let Some(shrunk) = compression.shrink(&plain) {
            assert_eq!(read(&shrunk), read_plain);
        }
    }
    again(read_plain, content);
}

/// What was read is within the limits, is written, read again, and damaged.
fn again(event: Result<BusEvent, EventFormatError>, content: &[u8]) {
    let Ok(event) = event else {
        return;
    };
    within_limits(&event);
    let written = event.encode();
    if written.len() > MAX_BYTES {
        return;
    }
    let back = BusEvent::decode(&written);
    assert_eq!(back, Ok(as_written(event)));
    let place: usize = content.iter().map(|octet| usize::from(*octet)).sum();
    assert!(
        read(&written[..place % written.len()]).is_err(),
        "truncated"
    );
    let mut flipped = written.to_vec();
    flipped[place % written.len()] ^= 1 << (place % 8);
    if let Ok(event) = read(&flipped) {
        within_limits(&event);
    }
}

/// A `set` goes out as a `del`, and the time as a float.
fn as_written(event: BusEvent) -> BusEvent {
    let shape = match event.shape {
        EventShape::Set { keys } => EventShape::Del { keys },
        shape => shape,
    };
    BusEvent {
        shape,
        ts: event.ts as f64 as u64,
        ..event
    }
}

fn within_limits(event: &BusEvent) {
    let texts = match &event.shape {
        EventShape::Del { keys } | EventShape::Set { keys } => keys.as_slice(),
        EventShape::Pattern(pattern) => std::slice::from_ref(pattern),
    };
    assert!(texts.len() <= MAX_KEYS);
    assert!(texts.iter().all(|text| text.len() <= MAX_TEXT));
    assert!(!event.id.is_empty());
}
