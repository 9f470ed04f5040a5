//! Records of the second tier: damaged, foreign and forged ones are misses, never another
//! record, never more memory than the limits allow.
//!
//! Input: one character, then bytes. `r`: they are a record as a store holds it. `s`: they
//! are the content of one, which is sealed here for [`KEY`], so that what stands behind
//! the seal is reached too; `g` and `z`: the same, written again with gzip or zstd.

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use lamina_cache::record::{
    ClockReading, Compression, EnvelopeCodec, RecordLimits, RecordOptions, ResponseRecord, Seal,
    StoreRecord, Uptime, decode, encode, inspect,
};
use sha2::Sha256;

/// What each record here is bound to.
const KEY: &[u8] = b"k";
const LIMITS: RecordLimits = RecordLimits {
    encoded: 1 << 16,
    expanded: 1 << 20,
};

pub fn check(data: &[u8]) {
    let Some((form, content)) = data.split_first() else {
        return;
    };
    let (bytes, codec) = match form {
        b'r' => (Bytes::copy_from_slice(content), None),
        b's' => (sealed(content), None),
        b'g' => (sealed(content), Some(EnvelopeCodec::GZIP)),
        b'z' => (sealed(content), Some(EnvelopeCodec::ZSTD)),
        _ => return,
    };
    let _ = inspect(&bytes, &LIMITS, &Seal::public());
    let Ok(record) = read(KEY, &bytes) else {
        return;
    };
    assert!(read(b"another", &bytes).is_err(), "it is bound to its key");
    assert!(
        decode(KEY, &bytes, &LIMITS, &Seal::new(b"secret")).is_err(),
        "and to the secret"
    );
    again(&record, codec, content);
    if let StoreRecord::Entry(stored) = record {
        ages(stored, content);
    }
}

/// However a store prolongs a record, and however often it is put back: it is never younger,
/// and never lives longer, than by the clock of whoever reads it.
fn ages(stored: ResponseRecord, content: &[u8]) {
    let sum: u64 = content.iter().map(|octet| u64::from(*octet)).sum();
    let passed = Duration::from_millis(sum * sum);
    let wall = stored.written.saturating_add(passed);
    let (age, life) = (stored.age, stored.life);
    let by_uptime = stored.uptime.map(|uptime| ClockReading {
        // Set back as far as it goes.
        wall: Duration::ZERO,
        uptime: Some(Uptime {
            at: uptime.at.saturating_add(passed),
            ..uptime
        }),
    });
    let moments = [ClockReading { wall, uptime: None }]
        .into_iter()
        .chain(by_uptime);
    let lefts = [Duration::ZERO, passed, life, Duration::MAX];
    for (now, left) in moments.flat_map(|now| lefts.map(|left| (now, left))) {
        let Ok(seen) = stored.clone().seen_at(now, left) else {
            assert!(life <= passed || left.is_zero() || life.is_zero());
            continue;
        };
        assert!(seen.age >= age.saturating_add(passed), "it grew young");
        assert!(seen.life <= life.saturating_sub(passed), "it lives longer");
        assert!(seen.life <= left, "the store lets go of it");
    }
}

fn read(key: &[u8], bytes: &Bytes) -> Result<StoreRecord, lamina_cache::record::CorruptRecord> {
    decode(key, bytes, &LIMITS, &Seal::public())
}

/// What was read is written, read again, and damaged.
fn again(record: &StoreRecord, codec: Option<EnvelopeCodec>, content: &[u8]) {
    let compression = codec.map(|codec| Compression {
        codec,
        min_bytes: 0,
    });
    let options = RecordOptions {
        compression,
        limits: LIMITS,
        seal: Seal::public(),
    };
    let Ok(written) = encode(KEY, record, &options) else {
        return;
    };
    assert_eq!(read(KEY, &written).as_ref(), Ok(record));
    let place: usize = content.iter().map(|octet| usize::from(*octet)).sum();
    for (octet, bit) in [(place, place % 8), (place * 31, place % 7)] {
        let mut flipped = written.to_vec();
        flipped[octet % written.len()] ^= 1 << bit;
        let found = read(KEY, &flipped.into());
        // A gzip header has bits that mean nothing.
        assert!(found.is_err() || (codec.is_some() && found.as_ref() == Ok(record)));
    }
    let short = written.slice(..place % written.len());
    assert!(read(KEY, &short).is_err(), "truncated");
}

/// `HC1M`, `[2, seal, content]`, as the first lines of `cache::record` say.
fn sealed(content: &[u8]) -> Bytes {
    let keyed = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("of any length");
    let mut derived = keyed(b"lamina record");
    derived.update(b"lamina record 2");
    let mut mac = keyed(&derived.finalize().into_bytes());
    mac.update(&(KEY.len() as u64).to_be_bytes());
    mac.update(KEY);
    mac.update(content);
    let seal = mac.finalize().into_bytes();
    let length = (content.len() as u32).to_be_bytes();
    [
        b"HC1M\x93\x02\xc4\x10".as_slice(),
        &seal[..16],
        b"\xc6",
        &length,
        content,
    ]
    .concat()
    .into()
}
