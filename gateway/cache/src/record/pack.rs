//! A record's msgpack: `[2, seal, record]`, where `record` is a map.
//!
//! | key | | in |
//! |---|---|---|
//! | `v` | 2; the version once more, under the seal | both |
//! | `kind` | `entry` or `varies` | both |
//! | `key` | bin: the whole cache key | both |
//! | `status` | number | entry |
//! | `headers` | array of `[name (str, lower case), value (bin)]` | entry |
//! | `marks` | map: `id`, `identity`, `route` (numbers), `tags`, `groups` (bin, 8 bytes each, big end first), `url` (str) | entry |
//! | `born`, `gen` | numbers: order at which the load began, generation of the purge log | entry |
//! | `at` | ms since the Unix epoch: when it was written | entry |
//! | `up` | optional array: a number of the machine's start, below 2⁵³, and ms since then, at the write | entry |
//! | `age`, `life`, `fresh`, `swr`, `sie` | ms: age at the write, how long it may be used from then on, lifetime, windows for stale-while-revalidate and stale-if-error | entry |
//! | `must` | bool: never stale | entry |
//! | `body` | bin | entry |
//! | `varies` | array of arrays of field names, newest first | varies |
//!
//! A number may have the form of any of msgpack's integers, or of a float without a fraction
//! (`msgpackr` writes those from 2³² on). Keys that are not listed are skipped. A key that is
//! missing (except `up`, which earlier versions did not write) or that occurs twice is an error.
//! Decision: one set of structs serves both directions and borrows its data, so that a name can't
//! differ between them and a body is not copied when a record is read.

use crate::l2::store::LogOrder;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rmp::Marker;
use rmp_serde::config::{DefaultConfig, StructMapConfig};
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes as Bin;

use super::form::{RecordInteger, RecordList, of_number, of_record, of_value};
use super::seal::{SEAL, Seal};
use super::{CorruptRecord, LONGEST, MAX_DEPTH, ResponseRecord, StoreRecord, Uptime, VERSION};
use crate::entry::PurgeAttributes;
use crate::envelope;
use crate::key::PurgeHash;

/// The size of what comes before the record: tag, array of three, version, seal, the record's
/// length.
const AHEAD: usize = envelope::TAG + 1 + 1 + 2 + SEAL + 5;

/// A record as it was read; its seal has not been compared yet.
pub struct SealedRecord {
    pub seal: Bytes,
    /// The record's msgpack.
    pub record: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PackedKind {
    Entry,
    Varies,
}

#[derive(Deserialize)]
struct PackedHead<'a> {
    v: RecordInteger,
    kind: PackedKind,
    #[serde(borrow)]
    key: &'a Bin,
}

#[derive(Serialize, Deserialize)]
struct PackedEntry<'a> {
    v: RecordInteger,
    kind: PackedKind,
    #[serde(borrow)]
    key: &'a Bin,
    status: RecordInteger,
    #[serde(borrow)]
    headers: RecordList<(&'a str, &'a Bin)>,
    #[serde(borrow)]
    marks: PackedAttributes<'a>,
    born: RecordInteger,
    r#gen: RecordInteger,
    at: RecordInteger,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    up: Option<(RecordInteger, RecordInteger)>,
    age: RecordInteger,
    life: RecordInteger,
    fresh: RecordInteger,
    swr: RecordInteger,
    sie: RecordInteger,
    must: bool,
    #[serde(borrow)]
    body: &'a Bin,
}

#[derive(Serialize, Deserialize)]
struct PackedAttributes<'a> {
    id: RecordInteger,
    identity: RecordInteger,
    route: RecordInteger,
    #[serde(borrow)]
    tags: &'a Bin,
    #[serde(borrow)]
    groups: &'a Bin,
    url: &'a str,
}

#[derive(Serialize, Deserialize)]
struct PackedVaryLists<'a> {
    v: RecordInteger,
    kind: PackedKind,
    #[serde(borrow)]
    key: &'a Bin,
    #[serde(borrow)]
    varies: RecordList<RecordList<&'a str>>,
}

/// Tag, envelope and record. None: a part is too large for msgpack or for a reader.
pub fn pack(key: &[u8], record: &StoreRecord, seal: &Seal) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(AHEAD + key.len() + likely_size(record));
    out.resize(AHEAD, 0);
    let mut into = rmp_serde::Serializer::new(&mut out).with_struct_map();
    match record {
        StoreRecord::Entry(stored) => pack_entry(key, stored, &mut into)?,
        StoreRecord::Varies(lists) => pack_varies(key, lists, &mut into)?,
    }
    let (ahead, record) = out.split_at_mut(AHEAD);
    let length = u32::try_from(record.len()).ok()?;
    ahead.copy_from_slice(&envelope(&seal.over(key, record), length));
    Some(out)
}

fn envelope(seal: &[u8; SEAL], length: u32) -> [u8; AHEAD] {
    let mut out = [0; AHEAD];
    let (front, rest) = out.split_at_mut(envelope::TAG + 4);
    front[..envelope::TAG].copy_from_slice(envelope::PLAIN);
    front[envelope::TAG..].copy_from_slice(&[
        Marker::FixArray(3).to_u8(),
        VERSION as u8,
        Marker::Bin8.to_u8(),
        SEAL as u8,
    ]);
    rest[..SEAL].copy_from_slice(seal);
    rest[SEAL] = Marker::Bin32.to_u8();
    rest[SEAL + 1..].copy_from_slice(&length.to_be_bytes());
    out
}

type RecordSerializer<'a> = rmp_serde::Serializer<&'a mut Vec<u8>, StructMapConfig<DefaultConfig>>;

fn pack_entry(key: &[u8], stored: &ResponseRecord, into: &mut RecordSerializer<'_>) -> Option<()> {
    let (tags, groups) = (
        pack_hashes(&stored.marks.tags),
        pack_hashes(&stored.marks.groups),
    );
    let headers = stored.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), Bin::new(value.as_bytes())));
    let entry = PackedEntry {
        v: RecordInteger(VERSION),
        kind: PackedKind::Entry,
        key: Bin::new(key),
        status: RecordInteger(stored.status.as_u16().into()),
        headers: RecordList::of(headers)?,
        marks: PackedAttributes {
            id: RecordInteger(stored.marks.id),
            identity: RecordInteger(stored.marks.identity),
            route: RecordInteger(stored.marks.route),
            tags: Bin::new(&tags),
            groups: Bin::new(&groups),
            url: &stored.marks.url,
        },
        born: RecordInteger(stored.born.value()),
        r#gen: RecordInteger(stored.generation),
        at: RecordInteger(whole_millis(stored.written)),
        up: stored
            .uptime
            .map(|up| (RecordInteger(up.boot), RecordInteger(whole_millis(up.at)))),
        age: millis(stored.age.saturating_add(Duration::from_nanos(999_999))),
        life: millis(stored.life),
        fresh: millis(stored.lifetime),
        swr: millis(stored.while_revalidate),
        sie: millis(stored.if_error),
        must: stored.must_revalidate,
        body: Bin::new(&stored.body),
    };
    entry.serialize(into).ok()
}

fn pack_hashes(hashes: &[PurgeHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect()
}

fn pack_varies(
    key: &[u8],
    lists: &[Vec<HeaderName>],
    into: &mut RecordSerializer<'_>,
) -> Option<()> {
    let varies: Option<Vec<_>> = lists.iter().map(|list| names(list)).collect();
    let varies = PackedVaryLists {
        v: RecordInteger(VERSION),
        kind: PackedKind::Varies,
        key: Bin::new(key),
        varies: RecordList::of(varies?.into_iter())?,
    };
    varies.serialize(into).ok()
}

fn names(list: &[HeaderName]) -> Option<RecordList<&str>> {
    RecordList::of(list.iter().map(HeaderName::as_str))
}

/// An estimate, so that the buffer is rarely moved. If it is too low, a copy is made.
fn likely_size(record: &StoreRecord) -> usize {
    const FIXED: usize = 256;
    match record {
        StoreRecord::Entry(stored) => {
            let headers = stored.headers.iter();
            let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + 8);
            let marks =
                stored.marks.url.len() + 8 * (stored.marks.tags.len() + stored.marks.groups.len());
            FIXED + stored.body.len() + headers.sum::<usize>() + marks
        }
        StoreRecord::Varies(lists) => FIXED + 24 * lists.iter().map(Vec::len).sum::<usize>(),
    }
}

fn millis(time: Duration) -> RecordInteger {
    RecordInteger(whole_millis(time.min(LONGEST)))
}

fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Splits the envelope into its parts.
pub fn open(packed: &Bytes) -> Result<SealedRecord, CorruptRecord> {
    let mut rest: &[u8] = packed;
    let parts = rmp::decode::read_array_len(&mut rest).map_err(of_value)?;
    let version: u64 = rmp::decode::read_int(&mut rest).map_err(of_number)?;
    if version != VERSION {
        return Err(CorruptRecord::Version);
    }
    let seal = binary(packed, &mut rest)?;
    let record = binary(packed, &mut rest)?;
    match parts == 3 && rest.is_empty() {
        true => Ok(SealedRecord { seal, record }),
        false => Err(CorruptRecord::Form),
    }
}

fn binary(whole: &Bytes, rest: &mut &[u8]) -> Result<Bytes, CorruptRecord> {
    let length = rmp::decode::read_bin_len(rest).map_err(of_value)? as usize;
    let (value, after) = rest
        .split_at_checked(length)
        .ok_or(CorruptRecord::Truncated)?;
    *rest = after;
    Ok(whole.slice_ref(value))
}

/// The key that the record names.
pub fn key(record: &Bytes) -> Result<&[u8], CorruptRecord> {
    Ok(read::<PackedHead>(record)?.key)
}

/// Reads the record itself.
pub fn unpack(record: &Bytes) -> Result<StoreRecord, CorruptRecord> {
    let head: PackedHead = read(record)?;
    if head.v.0 != VERSION {
        return Err(CorruptRecord::Version);
    }
    match head.kind {
        PackedKind::Entry => unpack_entry(record).map(StoreRecord::Entry),
        PackedKind::Varies => unpack_varies(record).map(StoreRecord::Varies),
    }
}

fn read<'a, T: Deserialize<'a>>(record: &'a Bytes) -> Result<T, CorruptRecord> {
    let mut from = rmp_serde::Deserializer::from_read_ref(record);
    from.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut from).map_err(of_record)
}

fn unpack_entry(record: &Bytes) -> Result<ResponseRecord, CorruptRecord> {
    let entry: PackedEntry = read(record)?;
    let status = u16::try_from(entry.status.0).ok();
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let time = |ms: RecordInteger| Duration::from_millis(ms.0).min(LONGEST);
    Ok(ResponseRecord {
        status: status.ok_or(CorruptRecord::Form)?,
        headers: unpack_headers(record, &entry.headers.0)?,
        body: record.slice_ref(entry.body),
        marks: unpack_marks(&entry.marks)?,
        born: LogOrder::new(entry.born.0),
        generation: entry.r#gen.0,
        written: Duration::from_millis(entry.at.0),
        uptime: entry.up.map(|(boot, at)| Uptime {
            boot: boot.0,
            at: Duration::from_millis(at.0),
        }),
        age: time(entry.age),
        life: time(entry.life),
        lifetime: time(entry.fresh),
        while_revalidate: time(entry.swr),
        if_error: time(entry.sie),
        must_revalidate: entry.must,
    })
}

fn unpack_headers(record: &Bytes, pairs: &[(&str, &Bin)]) -> Result<HeaderMap, CorruptRecord> {
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let name: HeaderName = name.parse().map_err(|_| CorruptRecord::Form)?;
        let value = HeaderValue::from_maybe_shared(record.slice_ref(value));
        headers.append(name, value.map_err(|_| CorruptRecord::Form)?);
    }
    Ok(headers)
}

fn unpack_marks(known: &PackedAttributes<'_>) -> Result<PurgeAttributes, CorruptRecord> {
    Ok(PurgeAttributes {
        id: known.id.0,
        identity: known.identity.0,
        route: known.route.0,
        tags: unpack_hashes(known.tags)?,
        groups: unpack_hashes(known.groups)?,
        url: known.url.into(),
    })
}

fn unpack_hashes(packed: &[u8]) -> Result<Box<[PurgeHash]>, CorruptRecord> {
    let (hashes, odd) = packed.as_chunks::<8>();
    match odd.is_empty() {
        true => Ok(hashes
            .iter()
            .map(|hash| u64::from_be_bytes(*hash))
            .collect()),
        false => Err(CorruptRecord::Form),
    }
}

fn unpack_varies(record: &Bytes) -> Result<Vec<Vec<HeaderName>>, CorruptRecord> {
    let varies: PackedVaryLists = read(record)?;
    let name = |name: &&str| name.parse().map_err(|_| CorruptRecord::Form);
    let names = |list: &RecordList<&str>| list.0.iter().map(name).collect();
    varies.varies.0.iter().map(names).collect()
}
