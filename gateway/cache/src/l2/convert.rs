//! Converts entries to records and back, and does the work on their bytes.
//!
//! Invariant: the age only grows, by the time in L1, in the queue and in the store, each measured
//! by its own clock. It is never less than the time since the record says it was written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config;
use super::put::RecordWrite;
use super::store::LogPlace;
use crate::entry::Entry;
use crate::freshness::Freshness;
use crate::key::EntryKey;
use crate::purge::PurgeOrder;
use crate::record::{self, ClockReading, Compression, CorruptRecord, ResponseRecord, StoreRecord};

/// Records from this size on, in bytes, are encoded and decoded off the runtime's threads.
const LARGE: usize = 32 << 10;
/// The same for compressed records, because they expand.
const LARGE_COMPRESSED: usize = 2 << 10;

/// What the store keeps of an entry that was born at `born`. None: it would be of no use there.
pub(crate) fn stored(
    entry: &Entry,
    lifetime: Duration,
    born: LogPlace,
    max_life: Duration,
) -> Option<ResponseRecord> {
    let (now, written) = (Instant::now(), ClockReading::now());
    let freshness = Freshness {
        lifetime,
        ..entry.freshness
    };
    let gone = now.saturating_duration_since(freshness.received);
    let life = freshness
        .hard_life(entry.has_validator())
        .saturating_sub(gone)
        .min(max_life);
    (!life.is_zero()).then(|| ResponseRecord {
        status: entry.status,
        headers: entry.headers.clone(),
        body: entry.body.bytes(),
        marks: entry.marks.clone(),
        born: born.order,
        generation: born.generation,
        age: freshness.age(now),
        life,
        written: written.wall,
        uptime: written.uptime,
        lifetime,
        while_revalidate: freshness.while_revalidate,
        if_error: freshness.if_error,
        must_revalidate: freshness.must_revalidate,
    })
}

/// The entry that a record becomes here. `born` is the place in our own order at which its load
/// began.
pub(crate) fn entry(key: EntryKey, stored: ResponseRecord, born: PurgeOrder) -> Entry {
    let freshness = Freshness {
        received: Instant::now(),
        initial_age: stored.age,
        lifetime: stored.lifetime,
        while_revalidate: stored.while_revalidate,
        if_error: stored.if_error,
        must_revalidate: stored.must_revalidate,
    };
    Entry::new(
        key,
        stored.status,
        stored.headers,
        stored.body,
        freshness,
        stored.marks,
        born,
    )
}

/// The record and how long it lives from now on. None: it is too large, or its life is over.
pub(super) async fn encode(
    write: &Arc<RecordWrite>,
    options: &record::RecordOptions,
) -> Option<(Bytes, Duration)> {
    let encode = |write: &RecordWrite, options: &record::RecordOptions| {
        let record = write.aged()?;
        let life = write.left();
        let bytes = record::encode(&write.whole_key, &record, options).ok()?;
        Some((bytes, life))
    };
    if write.size() < LARGE {
        return encode(write, options);
    }
    let (write, options) = (Arc::clone(write), options.clone());
    tokio::task::spawn_blocking(move || encode(&write, &options))
        .await
        .ok()?
}

pub(super) async fn decode(
    key: &[u8],
    bytes: Bytes,
    options: &record::RecordOptions,
) -> Result<StoreRecord, CorruptRecord> {
    let large = match bytes.starts_with(b"HC1M") {
        true => LARGE,
        false => LARGE_COMPRESSED,
    };
    if bytes.len() < large {
        return record::decode(key, &bytes, &options.limits, &options.seal);
    }
    let (key, options) = (key.to_vec(), options.clone());
    let decode = move || record::decode(&key, &bytes, &options.limits, &options.seal);
    tokio::task::spawn_blocking(decode)
        .await
        .unwrap_or(Err(CorruptRecord::Form))
}

pub(super) fn compression(config: config::RecordCompressionConfig) -> Option<Compression> {
    let codec = match config.codec {
        config::RecordCodec::None => return None,
        config::RecordCodec::Gzip => record::EnvelopeCodec::GZIP,
        config::RecordCodec::Zstd => record::EnvelopeCodec::ZSTD,
    };
    Some(Compression {
        codec,
        min_bytes: config.min_bytes.as_usize(),
    })
}
