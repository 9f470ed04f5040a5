//! The L2 record: what a store outside the process holds for a key, as bytes.
//!
//! Pure except for [`moment`]: no clock, no I/O. [`pack`] has the msgpack form, [`seal`] binds a
//! record to its key, [`crate::envelope`] compresses it and expands it within bounds, [`compress`]
//! decides when compression is worth it, [`moment`] reads the clocks, [`life`] decides how old a
//! record is, [`inspect`] describes a record to a person. A record that can't be read is a
//! [`CorruptRecord`] with its reason; the tier treats it as a miss.
//!
//! | bytes | |
//! |---|---|
//! | `HC1M`, `HC1G` or `HC1Z` | what follows: the msgpack, gzip of it, zstd of it |
//! | `[2, seal, record]` | msgpack array: version, 16 bytes, the record's own msgpack as a `bin` |
//!
//! Version 2 added the time at which the record was written. A record of another version is a miss.
//!
//! Invariant: what [`decode`] returns was sealed for this key, and nothing else of a record is read
//! before the seal was compared. What a record says about its own age and end is under the seal as
//! well, and counts against what its store says ([`ResponseRecord::seen_at`]). Invariant: no length
//! that the input declares makes us allocate more than an input of this size can hold, nor more
//! than [`RecordLimits`].

mod compress;
mod form;
mod inspect;
mod life;
mod moment;
mod pack;
mod seal;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::entry::PurgeAttributes;
use crate::envelope::{self, EnvelopeError};
use crate::l2::store::LogOrder;

pub use crate::envelope::{Compression, EnvelopeCodec};
pub use inspect::{RecordInspection, inspect};
pub use moment::{ClockReading, Uptime};
pub use seal::Seal;
pub(crate) use seal::{SEAL, keyed};

/// What a store holds for a key.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every record is an entry, and lives for a moment"
)]
pub enum StoreRecord {
    Entry(ResponseRecord),
    /// The lists of fields that the key's responses vary by, newest first.
    Varies(Vec<Vec<HeaderName>>),
}

/// A response as it was when it was written. Times are kept in milliseconds, and none is
/// longer than [`LONGEST`].
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseRecord {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The attributes by which purges select it.
    pub marks: PurgeAttributes,
    /// The place in the store's purge log at which its load began.
    pub born: LogOrder,
    /// The generation of the purge log to which `born` belongs.
    pub generation: u64,
    /// Its age when it was written (RFC 9111 §4.2.3), rounded up, so that it never seems fresher
    /// than it was.
    pub age: Duration,
    /// How long it may be used after it was written, whatever the store says.
    pub life: Duration,
    /// When it was written, since the Unix epoch, by the clock of the node that wrote it. `age` and
    /// `life` are as of that time.
    pub written: Duration,
    /// The same time by the uptime of that node's machine. Records of other writers do not have it.
    pub uptime: Option<Uptime>,
    /// It is fresh while its age is less than this.
    pub lifetime: Duration,
    /// How long after expiry it may be served while one request refreshes it.
    pub while_revalidate: Duration,
    /// How long after expiry it may be served when the load fails.
    pub if_error: Duration,
    /// Whether it may never be served stale.
    pub must_revalidate: bool,
}

/// The longest time in a record: 2³¹ s, where RFC 9111 §1.2.2 saturates.
pub const LONGEST: Duration = Duration::from_secs(1 << 31);

/// The largest number of fields of a response or of one `Vary` list, and of such lists.
const MAX_FIELDS: usize = 1_024;
/// The deepest nesting of containers.
const MAX_DEPTH: usize = 16;
/// The version that this program writes, and the only one it reads.
const VERSION: u64 = 2;

/// The size limits of a record. Writers keep to them too: a record that nobody could read is not
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLimits {
    /// Bytes in the stored form.
    pub encoded: usize,
    /// Bytes of the expanded msgpack.
    pub expanded: usize,
}

/// How records are written.
#[derive(Clone)]
pub struct RecordOptions {
    /// None: every record is written as `HC1M`.
    pub compression: Option<Compression>,
    pub limits: RecordLimits,
    pub seal: Seal,
}

/// Why a record can't be used. Each reason is a miss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CorruptRecord {
    #[error("it does not begin with the tag of a record that this version reads")]
    Tag,
    #[error("its version is not {VERSION}")]
    Version,
    #[error("it ends too early")]
    Truncated,
    #[error("it is, or declares to be, larger than the limits allow")]
    TooLarge,
    #[error("it nests deeper than {MAX_DEPTH} containers")]
    TooDeep,
    #[error("the seal is not valid")]
    Seal,
    #[error("it is the record of another key")]
    AnotherKey,
    #[error("the compressed data are damaged")]
    Compression,
    #[error("its content does not have the form of a record")]
    Form,
    #[error("it has expired, although the store still has it")]
    Ended,
    #[error(
        "its time of writing is in the future, by more than the clocks of two machines may differ"
    )]
    Clock,
}

/// A record that no reader would accept: larger than the limits allow, or with too many fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("larger than the limit for a record")]
pub struct TooLarge;

/// The bytes to store for `key`. Slow for large bodies when compression is on: do not run it on the
/// runtime's threads then.
///
/// # Errors
/// When the record exceeds `options.limits` or has more than 1,024 fields.
pub fn encode(
    key: &[u8],
    record: &StoreRecord,
    options: &RecordOptions,
) -> Result<Bytes, TooLarge> {
    let plain = pack::pack(key, record, &options.seal).ok_or(TooLarge)?;
    if plain.len() - envelope::TAG > options.limits.expanded {
        return Err(TooLarge);
    }
    let compressed = options
        .compression
        .filter(|compression| {
            compress::is_worth_trying(compression, record, plain.len() - envelope::TAG)
        })
        .and_then(|compression| compression.shrink(&plain));
    let bytes = compressed.unwrap_or(plain);
    match bytes.len() > options.limits.encoded {
        true => Err(TooLarge),
        false => Ok(bytes.into()),
    }
}

/// The record that was stored for `key`. Its body and header values are slices of `bytes`, or of
/// the expanded bytes if they were compressed; nothing is copied.
///
/// # Errors
/// For everything that is not a valid record for this key, with the reason.
pub fn decode(
    key: &[u8],
    bytes: &Bytes,
    limits: &RecordLimits,
    seal: &Seal,
) -> Result<StoreRecord, CorruptRecord> {
    let packed = expand(bytes, limits)?;
    let envelope = pack::open(&packed)?;
    if !seal.holds(key, &envelope.record, &envelope.seal) {
        // This only gives people the right reason; both are a miss.
        let another = pack::key(&envelope.record).is_ok_and(|bound| bound != key);
        return Err(if another {
            CorruptRecord::AnotherKey
        } else {
            CorruptRecord::Seal
        });
    }
    match pack::key(&envelope.record)? == key {
        true => pack::unpack(&envelope.record),
        false => Err(CorruptRecord::AnotherKey),
    }
}

fn expand(bytes: &Bytes, limits: &RecordLimits) -> Result<Bytes, CorruptRecord> {
    match bytes.len() > limits.encoded {
        true => Err(CorruptRecord::TooLarge),
        false => Ok(envelope::expand(bytes, limits.expanded)?),
    }
}

impl From<EnvelopeError> for CorruptRecord {
    fn from(fault: EnvelopeError) -> Self {
        match fault {
            EnvelopeError::Tag => Self::Tag,
            EnvelopeError::Truncated => Self::Truncated,
            EnvelopeError::TooLarge => Self::TooLarge,
            EnvelopeError::Damaged => Self::Compression,
        }
    }
}

impl RecordLimits {
    /// Space for headers, key and marks beside a body, in bytes.
    const BESIDE: usize = 1 << 20;

    /// For a person who looks at one record: a file of any size, expanded to at most 1 GiB.
    pub fn of_inspection() -> Self {
        Self {
            encoded: usize::MAX,
            expanded: 1 << 30,
        }
    }

    /// Limits under which every object of `max_object_bytes` can be stored.
    pub fn for_objects(max_object_bytes: usize) -> Self {
        let least = Self::default();
        let wanted = max_object_bytes.saturating_add(Self::BESIDE);
        Self {
            encoded: least.encoded.max(wanted),
            expanded: least.expanded.max(wanted),
        }
    }
}

impl Default for RecordLimits {
    /// 25 MiB, as in the seed; three times the default of `l1.max_object_bytes`.
    fn default() -> Self {
        Self {
            encoded: 25 << 20,
            expanded: 25 << 20,
        }
    }
}

impl Default for RecordOptions {
    /// gzip from 64 KiB on, default limits, no secret.
    fn default() -> Self {
        Self {
            compression: Some(Compression::default()),
            limits: RecordLimits::default(),
            seal: Seal::public(),
        }
    }
}

impl CorruptRecord {
    /// The reason as the value of a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Version => "version",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::Seal => "seal",
            Self::AnotherKey => "another_key",
            Self::Compression => "compression",
            Self::Form => "form",
            Self::Ended => "ended",
            Self::Clock => "clock",
        }
    }
}

#[cfg(test)]
mod tests;
