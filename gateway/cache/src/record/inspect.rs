//! A record in readable form: `lamina record inspect`.
//!
//! It shows as much as it can. The seal is compared with the key that the record itself names; a
//! seal that does not match is reported beside the content, not in place of it.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::{
    ClockReading, CorruptRecord, RecordLimits, ResponseRecord, Seal, StoreRecord, VERSION, expand,
    pack,
};
use crate::envelope::TAG;
use crate::http::date;
use crate::key::{KeyId, describe};

/// What is known about stored bytes.
#[derive(Debug)]
pub struct RecordInspection {
    /// `HC1M`, `HC1G` or `HC1Z`.
    pub form: String,
    /// Bytes in the stored form, the tag included.
    pub stored: usize,
    /// Bytes of the expanded msgpack.
    pub expanded: usize,
    /// The key that the record names.
    pub key: Bytes,
    /// Whether the seal matches that key.
    pub sealed: bool,
    pub record: StoreRecord,
}

/// Reads `bytes` without a key to compare with.
///
/// # Errors
/// The same as [`super::decode`], except for the seal and the key.
pub fn inspect(
    bytes: &Bytes,
    limits: &RecordLimits,
    seal: &Seal,
) -> Result<RecordInspection, CorruptRecord> {
    let packed = expand(bytes, limits)?;
    let envelope = pack::open(&packed)?;
    let key = envelope.record.slice_ref(pack::key(&envelope.record)?);
    Ok(RecordInspection {
        form: bytes[..TAG].escape_ascii().to_string(),
        stored: bytes.len(),
        expanded: packed.len(),
        sealed: seal.holds(&key, &envelope.record, &envelope.seal),
        key,
        record: pack::unpack(&envelope.record)?,
    })
}

impl RecordInspection {
    /// Why no gateway would accept it if it were stored under the key that it names. None: a
    /// gateway would accept it.
    pub fn refusal(&self) -> Option<CorruptRecord> {
        let StoreRecord::Entry(stored) = &self.record else {
            return (!self.sealed).then_some(CorruptRecord::Seal);
        };
        match self.sealed {
            true => stored
                .clone()
                .seen_at(ClockReading::now(), stored.life)
                .err(),
            false => Some(CorruptRecord::Seal),
        }
    }
}

impl fmt::Display for RecordInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "form      {}, {} bytes stored, {} expanded",
            self.form, self.stored, self.expanded
        )?;
        writeln!(f, "version   {VERSION}")?;
        let seal = if self.sealed { "ok" } else { "is not valid" };
        writeln!(f, "seal      {seal}")?;
        writeln!(f, "key       {}", KeyId::of(&self.key))?;
        writeln!(f, "  of      {}", describe(&self.key))?;
        match &self.record {
            StoreRecord::Entry(stored) => entry(stored, f),
            StoreRecord::Varies(lists) => lists.iter().try_for_each(|names| {
                let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
                writeln!(f, "varies    {}", names.join(", "))
            }),
        }
    }
}

/// The end of the year 9999, the last for which HTTP has dates.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

fn entry(stored: &ResponseRecord, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "status    {}", stored.status)?;
    for (name, value) in &stored.headers {
        writeln!(f, "header    {name}: {}", value.as_bytes().escape_ascii())?;
    }
    writeln!(f, "body      {} bytes", stored.body.len())?;
    writeln!(
        f,
        "written   {}, at age {}, to be kept for {}",
        date::format(UNIX_EPOCH + stored.written.min(LATEST))
            .to_str()
            .unwrap_or_default(),
        DisplaySeconds(stored.age),
        DisplaySeconds(stored.life)
    )?;
    if let Some(uptime) = &stored.uptime {
        let up = DisplaySeconds(uptime.at);
        writeln!(
            f,
            "uptime    {up} since start {:014x} of its machine",
            uptime.boot
        )?;
    }
    writeln!(
        f,
        "fresh     while its age is below {}",
        DisplaySeconds(stored.lifetime)
    )?;
    windows(stored, f)?;
    writeln!(
        f,
        "born      {} of generation {:016x}",
        stored.born, stored.generation
    )?;
    let marks = &stored.marks;
    writeln!(f, "url       {}", marks.url.escape_debug())?;
    writeln!(
        f,
        "marks     key {:016x}, identity {:016x}, route {:016x}, {} tags, {} groups",
        marks.id,
        marks.identity,
        marks.route,
        marks.tags.len(),
        marks.groups.len()
    )
}

fn windows(stored: &ResponseRecord, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if stored.must_revalidate {
        return writeln!(f, "stale     never served");
    }
    writeln!(
        f,
        "stale     served for {} while it is refreshed, for {} when that fails",
        DisplaySeconds(stored.while_revalidate),
        DisplaySeconds(stored.if_error)
    )
}

/// A duration shown like `12.5 s`.
struct DisplaySeconds(Duration);

impl fmt::Display for DisplaySeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}
