//! What nodes tell each other, and its form on the wire.
//!
//! One msgpack map in an `HC1` envelope ([`crate::hc1`]). The outer fields are those of the
//! library `lazy-layers-cache`, so that its users' `del`, `pattern` and `set` reach the edge
//! and ours reach them; what is ours stands beside them in one field, `lamina`, that they
//! skip. [`form`] has both maps, [`read`] and [`write`] go between them and an [`BusEvent`].
//!
//! | field | | in |
//! |---|---|---|
//! | `id`, `source` | text; `id` may be missing in foreign ones | all |
//! | `type` | `del`, `pattern` or `set` | all |
//! | `ts` | number, whole or not; ours is a float, JavaScript's number | all |
//! | `keys` | array of text | `del`, `set` |
//! | `pattern` | text | `pattern` |
//! | `namespace` | text | where configured |
//! | `value`, `ttlMs`, `generation`, `keyTypes`, … | skipped, whatever they are: see [`outer`] | foreign ones |
//! | `lamina` | map: `boot`, `purges`, `sequence`, `kind`, and by kind `selector`, `soft`, `receipt`; `key`, `primary`, `record`, `log` or `publishers`; `likeness`; `healthy`, `version`; `of`, `order`; last of all `seal`, see [`crate::bus::seal`] | ours |
//!
//! Decision: **the outer shape is what an event means to whoever does not know its kind.**
//! Whoever adds a kind, or a field that narrows one, chooses the shape that is safe for
//! nodes that are older: wide enough for a purge, [`EventShape::inert`] for what may be
//! ignored. So a `lamina` that can't be read (a kind of a newer version, or anybody's
//! field of that name) makes a foreign event of it, and not a malformed one; if it was a
//! purge, its publisher's next count also shows that one is missing here. A purge whose
//! kind is known and whose selector is not keeps its selector as text: who applies it widens it to all.
//!
//! Names, ids and counts in an event of a node are held to what nodes say: an event that
//! exceeds that was made by somebody else, and is malformed as a whole.
//!
//! Limits of an event of another service: [`MAX_KEYS`] keys, texts of [`MAX_TEXT`] bytes and
//! [`MAX_BYTES`] of them in all, keys that begin within the first [`MAX_READ`] bytes of its
//! msgpack (with a `namespace` configured, that field as well), gzip or zstd (no lz4, no snappy),
//! and no `bundleStrings` of `msgpackr`. What exceeds them is counted by reason, and logged
//! with the beginning of its first key.
//!
//! Invariant: nothing that a message declares makes more room than its bytes can fill, nor
//! more than the limits below; what is skipped is not built.

mod form;
mod outer;
mod read;
mod skim;
mod write;

use bytes::Bytes;

use super::seal::{SealCheck, SealKeys};

/// Bytes of an event of a node at most, as sent and expanded, and of what is kept of any event.
/// Receivers drop what is larger.
pub const MAX_BYTES: usize = 1 << 20;
/// Bytes that are read of the msgpack of another service's event, 32 MiB: more than its library
/// reads itself (25 MiB). What stands behind them is not seen.
pub const MAX_READ: u64 = 32 << 20;
/// Keys of one event at most, as the seed has it.
pub const MAX_KEYS: usize = 4_096;
/// Bytes of one text at most, as the seed has it.
pub const MAX_TEXT: usize = 64 << 10;
/// Bytes of the name or the version of a node, and of the id of an event that a node made.
pub const MAX_NAME: usize = 255;
/// What a node counts (its purges, its events) stays below: a million a second for nine years.
pub const MAX_COUNT: u64 = 1 << 48;
/// Publishers whose purges a value may say that it knew, at most; no node tells more.
pub const MAX_PUBLISHERS: usize = 256;
/// Containers in containers in an event of a node, at most; what others say is skipped without
/// recursion.
const MAX_DEPTH: usize = 128;
/// No key of anybody: what events delete that are for Lamina nodes only.
const INERT: &str = "lamina:";

/// One event.
#[derive(Clone, PartialEq, Debug)]
pub struct BusEvent {
    /// Unique; made up from the rest where a foreign event has none. It may be as long as
    /// [`MAX_TEXT`], so who remembers many keeps hashes of them.
    pub id: String,
    /// Who published it: the name of a node or of a service.
    pub source: String,
    /// Whom it is for; none is everybody without a namespace.
    pub namespace: Option<String>,
    /// Milliseconds since 1970 on the publisher's clock: for people, never compared.
    pub ts: u64,
    pub shape: EventShape,
    /// What a Lamina node says beside it; none on foreign events.
    pub ours: Option<NodePayload>,
}

/// What users of `lazy-layers-cache` understand.
#[derive(Clone, PartialEq, Debug)]
pub enum EventShape {
    Del {
        keys: Vec<String>,
    },
    Pattern(String),
    /// Its value is not kept: from a foreign source it is no HTTP entry. Ours are written
    /// as `del`, which is what they mean without a value.
    Set {
        keys: Vec<String>,
    },
}

/// What is ours.
#[derive(Clone, PartialEq, Debug)]
pub struct NodePayload {
    /// Tells two lives of one source apart, and which is the later one: see
    /// [`crate::bus::outbox::new_boot`].
    pub boot: u64,
    /// How many purges this boot has published, this one included if it is one.
    pub purges: u64,
    /// How many events this boot has said, this one included.
    pub sequence: u64,
    pub message: Message,
}

/// An event, and what its seal says.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenedEvent {
    pub event: BusEvent,
    pub seal: SealCheck,
}

/// What a node says.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// Forget what the selector (as text, see `cache::purge`) reaches.
    Purge {
        selector: String,
        soft: bool,
        /// Whether who applies it is to say so.
        receipt: bool,
    },
    /// A value that was just loaded.
    Prime(PrimeMessage),
    /// A value was just loaded that is too large to be told: who holds another at this key
    /// should have it validated.
    Changed {
        /// The whole key.
        key: Bytes,
        /// Tells whether two values are the same.
        likeness: u64,
    },
    /// The node is there; its purges are counted in [`NodePayload::purges`].
    Heartbeat {
        /// Whether it takes requests, and knows of no gap.
        healthy: bool,
        /// For people.
        version: String,
    },
    /// The node goes, in order: nobody is to wait for it.
    Leaving,
    /// The purge with this event id was applied.
    Applied {
        of: String,
        /// Its place in the order of the node that applied it.
        order: u64,
    },
    /// Purges of this publisher did not come, from this number on: it is to say them again.
    Missing {
        of: String,
        /// The life of the publisher that they are of.
        life: u64,
        from: u64,
    },
}

/// A value for peers, with all they need to judge it.
#[derive(Clone, PartialEq, Debug)]
pub struct PrimeMessage {
    /// The whole key, as the record is sealed to.
    pub key: Bytes,
    /// Its key without the variant.
    pub primary: Bytes,
    /// The record, as the second tier keeps it.
    pub record: Bytes,
    pub seen: KnownPurges,
}

/// Which purges a load knew of when it began.
#[derive(Clone, PartialEq, Debug)]
pub enum KnownPurges {
    /// Those up to the number that its record carries, of the log with this generation.
    Log { generation: u64 },
    /// By publisher: source, boot, and how many of its purges.
    Publishers(Vec<(String, u64, u64)>),
}

/// Bytes are no event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnreadableEvent {
    pub reason: EventFormatError,
    /// How the first of its keys begins, where one could be read.
    pub key: Option<String>,
}

/// Why bytes are no event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EventFormatError {
    #[error("it begins with no tag that this version reads, and is no JSON object")]
    Tag,
    #[error("it ends too early")]
    Truncated,
    #[error(
        "it is an event of a node, or has texts, of more than {MAX_BYTES} bytes, or its keys stand \
         behind its first {MAX_READ} bytes"
    )]
    TooLarge,
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    #[error("one of its texts has more than {MAX_TEXT} bytes")]
    TooLong,
    #[error("a name, a version or an id of a node is empty or has more than {MAX_NAME} bytes")]
    Name,
    #[error("it counts further than a node can, or a purge that it does not count")]
    Count,
    #[error("the compressed data are damaged")]
    Compression,
    #[error("its content has not the form of an event")]
    Form,
    #[error("a field is missing that its type needs")]
    Missing,
    #[error("its type is none of del, pattern and set")]
    Type,
}

impl BusEvent {
    /// The bytes to publish: `HC1M`, or `HC1G` from 64 KiB on where gzip saves 15 %, since
    /// every release of the seed reads these two.
    ///
    /// It does not look at the limits. What exceeds them reaches nobody, so who makes
    /// events of any size compares the length with [`MAX_BYTES`], and texts with [`MAX_TEXT`].
    pub fn encode(&self) -> Bytes {
        write::event(self, None)
    }

    /// The same, sealed if it is ours.
    pub fn encode_sealed(&self, keys: &SealKeys) -> Bytes {
        write::event(self, Some(keys))
    }

    /// What `bytes` say: `HC1M`, `HC1G` or `HC1Z`; a map of msgpack without a tag; `HC1J`,
    /// or a JSON object without a tag, in which `lamina` is not looked for.
    ///
    /// # Errors
    /// Everything that is not such an event, or exceeds the limits, with the reason.
    pub fn decode(bytes: &Bytes) -> Result<Self, EventFormatError> {
        let opened = read::event(bytes, None).map_err(|unreadable| unreadable.reason)?;
        Ok(opened.event)
    }

    /// The same, with what its seal says. Without keys no seal is looked at.
    ///
    /// # Errors
    /// See [`decode`](Self::decode).
    pub fn open(bytes: &Bytes, keys: Option<&SealKeys>) -> Result<OpenedEvent, UnreadableEvent> {
        read::event(bytes, keys)
    }
}

impl EventShape {
    /// Valid for users of the seed, and without effect on them.
    pub fn inert() -> Self {
        Self::Del {
            keys: vec![INERT.to_owned()],
        }
    }
}

impl EventFormatError {
    /// The reason as the value of a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
            Self::TooLong => "too_long",
            Self::Name => "name",
            Self::Count => "count",
            Self::Compression => "compression",
            Self::Form => "form",
            Self::Missing => "missing",
            Self::Type => "type",
        }
    }
}

#[cfg(test)]
mod tests;
