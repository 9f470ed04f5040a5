//! The tables of the database, and what one transaction does to them.
//!
//! | table | key | value |
//! |---|---|---|
//! | `records` | the store's key | when it expires, its birth, its arrival, the record |
//! | `arrivals` | arrival number | the store's key: the oldest goes first |
//! | `purges` | number | `h` or `s` for hard and soft, then the selector |
//! | `notes` | the number of a URL or group | its newest invalidation, when the note expires |
//! | `meta` | `generation`, `number`, `trimmed`, `bytes`, `arrival`, `marked`, `outages`, `clock`, `clock_boot`, `clock_uptime` | |
//!
//! Invariant: each record is in `arrivals` once, and `bytes` is the sum of their sizes.

use crate::l2::store::LogNumber;
use std::time::Duration;

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, TableError, WriteTransaction,
};

use super::clock::{ClockMark, millis};
use crate::l2::store::LogOrder;
use crate::l2::store::{LoggedPurge, PurgeLogEntry, PurgeLogRange};
use crate::record::Uptime;

type DiskRecordKey<'a> = &'a [u8; 16];

const RECORDS: TableDefinition<'_, DiskRecordKey<'static>, &[u8]> = TableDefinition::new("records");
const ARRIVALS: TableDefinition<'_, u64, DiskRecordKey<'static>> = TableDefinition::new("arrivals");
const PURGES: TableDefinition<'_, u64, &str> = TableDefinition::new("purges");
const NOTES: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("notes");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// What a record costs in bytes besides its own size.
const OVERHEAD: u64 = 96;
/// The number of purges that are kept. What was born before the oldest of them can't be judged.
const MAX_PURGES: u64 = 100_000;

/// The number of bytes before a record's own.
const HEAD: usize = 24;

/// A record as the table stores it.
pub(super) struct DiskRecordRow<'a> {
    /// When it expires, by the tier's own [`DiskClock`](super::clock::DiskClock).
    pub(super) expires: u64,
    pub(super) born: LogOrder,
    arrival: u64,
    pub(super) record: &'a [u8],
}

impl<'a> DiskRecordRow<'a> {
    fn read(value: &'a [u8]) -> Option<Self> {
        let (head, record) = value.split_at_checked(HEAD)?;
        let number = |at: usize| {
            let bytes = head.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        Some(Self {
            expires: number(0)?,
            born: LogOrder::new(number(8)?),
            arrival: number(16)?,
            record,
        })
    }
}

/// Creates the tables. The database gets the generation `fresh` if it has none, and is marked as
/// one that has a trust marker file beside it.
pub(super) fn prepare(write: &WriteTransaction, fresh: u64) -> Result<(), redb::Error> {
    write.open_table(RECORDS)?;
    write.open_table(ARRIVALS)?;
    write.open_table(PURGES)?;
    write.open_table(NOTES)?;
    let mut meta = write.open_table(META)?;
    if meta.get("generation")?.is_none() {
        meta.insert("generation", fresh)?;
    }
    meta.insert("marked", 1)?;
    Ok(())
}

/// Whether [`prepare`] was done before.
pub(super) fn is_marked(database: &Database) -> Result<bool, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("marked")?.is_some()),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// The time that was kept last.
pub(super) fn kept_time(database: &Database) -> Result<Option<ClockMark>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let number = |name| -> Result<Option<u64>, redb::Error> {
        Ok(meta.get(name)?.map(|value| value.value()))
    };
    let uptime = match (number("clock_boot")?, number("clock_uptime")?) {
        (Some(boot), Some(at)) => Some(Uptime {
            boot,
            at: Duration::from_millis(at),
        }),
        _ => None,
    };
    Ok(number("clock")?.map(|time| ClockMark { time, uptime }))
}

/// Keeps a time for the next start.
pub(super) fn keep_time(write: &WriteTransaction, kept: ClockMark) -> Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    meta.insert("clock", kept.time)?;
    match kept.uptime {
        Some(uptime) => {
            meta.insert("clock_boot", uptime.boot)?;
            meta.insert("clock_uptime", millis(uptime.at))?;
        }
        None => {
            meta.remove("clock_boot")?;
        }
    }
    Ok(())
}

/// Counts an outage of the disk that has ended. This also ensures that something is written.
pub(super) fn count_outage(write: &WriteTransaction) -> Result<(), redb::Error> {
    bump(write, "outages").map(drop)
}

/// Reads a record; `take` makes the result from it.
pub(super) fn get<T>(
    read: &ReadTransaction,
    key: DiskRecordKey<'_>,
    take: impl FnOnce(DiskRecordRow<'_>) -> T,
) -> Result<Option<T>, redb::Error> {
    let table = read.open_table(RECORDS)?;
    let value = table.get(key)?;
    Ok(value.and_then(|value| DiskRecordRow::read(value.value()).map(take)))
}

/// The newest invalidation that is noted for any of these numbers.
pub(super) fn invalidated(
    read: &ReadTransaction,
    numbers: &[u64],
) -> Result<LogOrder, redb::Error> {
    let notes = read.open_table(NOTES)?;
    let mut newest = 0;
    for number in numbers {
        newest = newest.max(notes.get(number)?.map_or(0, |note| note.value().0));
    }
    Ok(LogOrder::new(newest))
}

/// Ensures that invalidations of `number` are noted until `expires`.
pub(super) fn keep_note(
    write: &WriteTransaction,
    number: u64,
    expires: u64,
) -> Result<(), redb::Error> {
    let mut notes = write.open_table(NOTES)?;
    let (at, until) = notes.get(number)?.map_or((0, 0), |note| note.value());
    if until < expires {
        notes.insert(number, (at, expires))?;
    }
    Ok(())
}

/// Notes an invalidation. False: there is no note for this number.
pub(super) fn invalidate(
    write: &WriteTransaction,
    number: u64,
    at: LogOrder,
) -> Result<bool, redb::Error> {
    let mut notes = write.open_table(NOTES)?;
    let Some((held, expires)) = notes.get(number)?.map(|note| note.value()) else {
        return Ok(false);
    };
    notes.insert(number, (at.value().max(held), expires))?;
    Ok(true)
}

/// Checks `some` notes, starting at `from`, and drops those that have expired. Returns where to
/// continue; 0 is the beginning.
pub(super) fn tidy_notes(
    write: &WriteTransaction,
    from: u64,
    some: usize,
    now: u64,
) -> Result<u64, redb::Error> {
    let mut notes = write.open_table(NOTES)?;
    let (mut expired, mut next) = (Vec::new(), 0);
    for (seen, note) in notes.range(from..)?.enumerate() {
        let (number, note) = note?;
        if seen == some {
            next = number.value();
            break;
        }
        if note.value().1 < now {
            expired.push(number.value());
        }
    }
    for number in expired {
        notes.remove(number)?;
    }
    Ok(next)
}

/// The birth of the record that is stored.
pub(super) fn born(
    write: &WriteTransaction,
    key: DiskRecordKey<'_>,
) -> Result<Option<LogOrder>, redb::Error> {
    let table = write.open_table(RECORDS)?;
    let value = table.get(key)?;
    Ok(value.and_then(|value| DiskRecordRow::read(value.value()).map(|row| row.born)))
}

/// Writes a record, in place of an older one.
pub(super) fn put(
    write: &WriteTransaction,
    key: DiskRecordKey<'_>,
    expires: u64,
    born: LogOrder,
    record: &[u8],
) -> Result<(), redb::Error> {
    delete(write, key)?;
    let arrival = bump(write, "arrival")?;
    let mut value = Vec::with_capacity(HEAD + record.len());
    for number in [expires, born.value(), arrival] {
        value.extend_from_slice(&number.to_le_bytes());
    }
    value.extend_from_slice(record);
    write.open_table(RECORDS)?.insert(key, &*value)?;
    write.open_table(ARRIVALS)?.insert(arrival, key)?;
    add_bytes(write, size(&value) as i64)
}

/// Removes a record if it exists.
pub(super) fn delete(write: &WriteTransaction, key: DiskRecordKey<'_>) -> Result<(), redb::Error> {
    let gone = {
        let mut table = write.open_table(RECORDS)?;
        let removed = table.remove(key)?;
        removed.map(|value| {
            let value = value.value();
            (
                DiskRecordRow::read(value).map(|row| row.arrival),
                size(value),
            )
        })
    };
    let Some((arrival, size)) = gone else {
        return Ok(());
    };
    if let Some(arrival) = arrival {
        write.open_table(ARRIVALS)?.remove(arrival)?;
    }
    add_bytes(write, -(size as i64))
}

/// Removes the oldest records until the rest fits into `max_bytes`.
pub(super) fn evict(write: &WriteTransaction, max_bytes: u64) -> Result<u64, redb::Error> {
    let mut evicted = 0;
    while total(write)? > max_bytes {
        let oldest = {
            let mut arrivals = write.open_table(ARRIVALS)?;
            let first = arrivals.pop_first()?;
            first.map(|(_, key)| *key.value())
        };
        let Some(key) = oldest else {
            break;
        };
        delete(write, &key)?;
        evicted += 1;
    }
    Ok(evicted)
}

/// Appends a purge and returns its number.
pub(super) fn append(
    write: &WriteTransaction,
    purge: &LoggedPurge,
    last: LogNumber,
) -> Result<LogNumber, redb::Error> {
    let number = {
        let mut meta = write.open_table(META)?;
        let held = meta.get("number")?.map_or(0, |value| value.value());
        let number = held.max(last.value()) + 1;
        meta.insert("number", number)?;
        number
    };
    let text = format!("{}{}", if purge.soft { 's' } else { 'h' }, purge.selector);
    let mut purges = write.open_table(PURGES)?;
    purges.insert(number, text.as_str())?;
    if purges.len()? > MAX_PURGES
        && let Some((first, _)) = purges.pop_first()?
    {
        write.open_table(META)?.insert("trimmed", first.value())?;
    }
    Ok(LogNumber::new(number))
}

/// The purges after the number `after`.
pub(super) fn log(read: &ReadTransaction, after: LogNumber) -> Result<PurgeLogRange, redb::Error> {
    let meta = read.open_table(META)?;
    let number = |name| -> Result<u64, redb::Error> {
        Ok(meta
            .get(name)?
            .map_or(0, |value: redb::AccessGuard<'_, u64>| value.value()))
    };
    let table = read.open_table(PURGES)?;
    let purges = table
        .range(after.plus(1).value()..)?
        .map(|row| {
            let (number, text) = row?;
            Ok(logged(LogNumber::new(number.value()), text.value()))
        })
        .collect::<Result<Vec<_>, redb::Error>>()?;
    Ok(PurgeLogRange {
        generation: number("generation")?,
        newest: LogNumber::new(number("number")?),
        whole: after.value() >= number("trimmed")?,
        purges,
        fault: None,
    })
}

fn logged(number: LogNumber, text: &str) -> PurgeLogEntry {
    let (kind, selector) = text.split_at_checked(1).unwrap_or(("h", "all"));
    PurgeLogEntry {
        since: number,
        number,
        purge: LoggedPurge {
            selector: selector.to_owned(),
            soft: kind == "s",
        },
    }
}

fn bump(write: &WriteTransaction, name: &'static str) -> Result<u64, redb::Error> {
    let mut meta = write.open_table(META)?;
    let next = meta.get(name)?.map_or(0, |value| value.value()) + 1;
    meta.insert(name, next)?;
    Ok(next)
}

fn total(write: &WriteTransaction) -> Result<u64, TableError> {
    let meta = write.open_table(META)?;
    let bytes = meta.get("bytes")?;
    Ok(bytes.map_or(0, |value| value.value()))
}

fn add_bytes(write: &WriteTransaction, change: i64) -> Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    let held = meta.get("bytes")?.map_or(0, |value| value.value());
    meta.insert("bytes", held.saturating_add_signed(change))?;
    Ok(())
}

fn size(value: &[u8]) -> u64 {
    value.len() as u64 + OVERHEAD
}
