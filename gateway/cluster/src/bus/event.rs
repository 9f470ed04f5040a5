//! The events that nodes send each other, and their form on the wire.
//!
//! One msgpack map in an `HC1` envelope ([`crate::envelope`]). The outer fields are those of the library
//! `lazy-layers-cache`, so that the `del`, `pattern` and `set` of services that run it reach the
//! gateway, and our events reach them. What Lamina adds stands beside them in one field, `lamina`,
//! which that library skips. [`form`] has both maps; [`read`] and [`write`] convert between them
//! and a [`BusEvent`].
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
//! Decision: **the outer shape is what an event means to a reader that does not know its kind.**
//! Whoever adds a kind, or a field that narrows one, must choose a shape that is safe for older
//! nodes: wide enough for a purge, [`EventShape::inert`] for what may be ignored. Therefore an
//! event whose `lamina` can't be read (a kind of a newer version, or another program's field of
//! that name) is taken as a foreign event, and not as a malformed one. If it was a purge, the next
//! count of its publisher also shows that a purge is missing here. A purge whose kind is known but
//! whose selector is not keeps its selector as text: the node that applies it widens it to all.
//!
//! Names, ids and counts in an event of a node must be within the limits that nodes keep. An event
//! that exceeds them was made by another program, and is malformed as a whole.
//!
//! Limits of an event of another service: [`MAX_KEYS`] keys; texts of [`MAX_TEXT`] bytes each and
//! [`MAX_BYTES`] in total; keys that begin within the first [`MAX_READ`] bytes of its msgpack (with
//! a `namespace` configured, that field as well); gzip or zstd (no lz4, no snappy); and no
//! `bundleStrings` of `msgpackr`. What exceeds them is counted by reason, and logged with the
//! beginning of its first key.
//!
//! Invariant: no declared length or count makes us allocate more than the bytes of the message can
//! fill, nor more than the limits below. What is skipped is never built in memory.

mod form;
mod number;
mod outer;
mod read;
mod skim;
mod write;

use bytes::Bytes;

use super::seal::{SealCheck, SealKeys};

pub use number::PublisherNumber;

/// The most bytes of an event of a node, both as sent and expanded, and of what is kept of any
/// event. Receivers drop what is larger.
pub const MAX_BYTES: usize = 1 << 20;
/// Bytes that are read of the msgpack of another service's event: 32 MiB, more than its library
/// itself reads (25 MiB). What follows them is not seen.
pub const MAX_READ: u64 = 32 << 20;
/// Keys of one event, at most; the same limit as in `lazy-layers-cache`.
pub const MAX_KEYS: usize = 4_096;
/// Bytes of one text, at most; the same limit as in `lazy-layers-cache`.
pub const MAX_TEXT: usize = 64 << 10;
/// The most bytes of the name or the version of a node, and of the id of an event that a node made.
pub const MAX_NAME: usize = 255;
/// The counts of a node (its purges, its events) stay below this: a million a second for nine
/// years.
pub const MAX_COUNT: u64 = 1 << 48;
/// The most publishers in the list of purges that a value's load knew of; no node sends more.
pub const MAX_PUBLISHERS: usize = 256;
/// The deepest nesting of containers in an event of a node. Events of other services are skipped
/// without recursion.
const MAX_DEPTH: usize = 128;
/// A key that no service uses. Events that are for Lamina nodes only delete this key.
const INERT: &str = "lamina:";

/// One event of the bus.
#[derive(Clone, PartialEq, Debug)]
pub struct BusEvent {
    /// Unique. Computed from the rest of the event where a foreign event has none. It may be as
    /// long as [`MAX_TEXT`], so whoever remembers many ids should keep hashes of them.
    pub id: String,
    /// Who published it: the name of a node or of a service.
    pub source: String,
    /// The namespace that the event is for; none: for all nodes that have no namespace.
    pub namespace: Option<String>,
    /// Milliseconds since 1970 on the publisher's clock. `replay` compares it, and it shows how
    /// long a value was on its way.
    pub ts: u64,
    pub shape: EventShape,
    /// What a Lamina node adds to the shape; none on foreign events.
    pub ours: Option<NodePayload>,
}

/// What services that run `lazy-layers-cache` understand.
#[derive(Clone, PartialEq, Debug)]
pub enum EventShape {
    Del {
        keys: Vec<String>,
    },
    Pattern(String),
    /// Its value is not kept: from a foreign source it is not an HTTP entry. Our own are written as
    /// `del`, which is what they mean without a value.
    Set {
        keys: Vec<String>,
    },
}

/// The part of an event that only Lamina nodes write.
#[derive(Clone, PartialEq, Debug)]
pub struct NodePayload {
    /// Tells two lives (process runs) of one source apart; see [`crate::bus::outbox::new_boot`].
    pub boot: u64,
    /// How many purges the publisher has published in this life, including this one if it is one.
    pub purges: PublisherNumber,
    /// How many events the publisher has published in this life, including this one.
    pub sequence: u64,
    pub message: Message,
}

/// An event, and the result of checking its seal.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenedEvent {
    pub event: BusEvent,
    pub seal: SealCheck,
}

/// What a node says in an event.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// Purge what the selector reaches (as text, see `cache::purge`).
    Purge {
        selector: String,
        soft: bool,
        /// Whether a node that applies it must answer that it did.
        receipt: bool,
    },
    /// A value that was just loaded.
    Prime(PrimeMessage),
    /// A value was just loaded that is too large to be sent. A node that holds another value for
    /// this key should have it validated.
    Changed {
        /// The whole key.
        key: Bytes,
        /// A hash of the value: tells whether two values are the same.
        likeness: u64,
    },
    /// The node is there; [`NodePayload::purges`] is the count of its purges.
    Heartbeat {
        /// Whether it takes requests, and knows of no gap.
        healthy: bool,
        /// The version of Lamina that it runs. For people.
        version: String,
        /// Whether the other nodes must answer with a heartbeat: this node has received nothing for
        /// a while, and learns from their counts which purges it lacks.
        asks: bool,
    },
    /// The node shuts down in an orderly way: no other node needs to wait for it.
    Leaving,
    /// The purge with this event id was applied.
    Applied {
        of: String,
        /// The place of the purge in the order of the node that applied it.
        order: u64,
    },
    /// Purges of the publisher `of` did not arrive, from the number `from` on. It is to publish
    /// them again.
    Missing {
        of: String,
        /// The life of the publisher in which it made those purges.
        life: u64,
        from: PublisherNumber,
    },
}

/// A value for other nodes, with all that they need to judge it.
#[derive(Clone, PartialEq, Debug)]
pub struct PrimeMessage {
    /// The whole key, to which the record is sealed.
    pub key: Bytes,
    /// The key without the variant.
    pub primary: Bytes,
    /// The record, in the form in which the second tier keeps it.
    pub record: Bytes,
    pub seen: KnownPurges,
}

/// Which purges were known when a load began.
#[derive(Clone, PartialEq, Debug)]
pub enum KnownPurges {
    /// All purges up to the number that the value's record carries, in the log with this
    /// generation.
    Log { generation: u64 },
    /// By publisher: the source, its boot, and how many of its purges.
    Publishers(Vec<(String, u64, PublisherNumber)>),
}

/// The bytes are not a valid event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnreadableEvent {
    pub reason: EventFormatError,
    /// How the first of its keys begins, if one could be read.
    pub key: Option<String>,
}

/// Why the bytes are not a valid event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EventFormatError {
    #[error("it does not begin with a tag that this version reads, and it is not a JSON object")]
    Tag,
    #[error("it ends too early")]
    Truncated,
    #[error(
        "it is an event of a node of more than {MAX_BYTES} bytes, or its texts have more than \
         that, or its keys come after its first {MAX_READ} bytes"
    )]
    TooLarge,
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    #[error("one of its texts has more than {MAX_TEXT} bytes")]
    TooLong,
    #[error("a name, a version or an id of a node is empty or has more than {MAX_NAME} bytes")]
    Name,
    #[error(
        "one of its numbers is larger than a node can count, or it has a purge that its numbers \
         do not include"
    )]
    Count,
    #[error("the compressed data are damaged")]
    Compression,
    #[error("its content does not have the form of an event")]
    Form,
    #[error("a field is missing that its type needs")]
    Missing,
    #[error("its type is not del, pattern or set")]
    Type,
}

impl BusEvent {
    /// The bytes to publish: `HC1M`, or from 64 KiB on `HC1G` where gzip saves 15 %, since every
    /// release of `lazy-layers-cache` reads these two.
    ///
    /// Does not check the limits. Receivers drop an event that exceeds them, so the caller must
    /// compare the length with [`MAX_BYTES`], and texts with [`MAX_TEXT`].
    pub fn encode(&self) -> Bytes {
        write::event(self, None)
    }

    /// Like [`encode`](Self::encode), but sealed if it is an event of a node.
    pub fn encode_sealed(&self, keys: &SealKeys) -> Bytes {
        write::event(self, Some(keys))
    }

    /// Reads an event from `bytes`: `HC1M`, `HC1G` or `HC1Z`; a map of msgpack without a tag;
    /// `HC1J`, or a JSON object without a tag. In JSON, `lamina` is not read.
    ///
    /// # Errors
    /// When the bytes are not such an event, or exceed the limits; the error says why.
    pub fn decode(bytes: &Bytes) -> Result<Self, EventFormatError> {
        let opened = read::event(bytes, None).map_err(|unreadable| unreadable.reason)?;
        Ok(opened.event)
    }

    /// Like [`decode`](Self::decode), and checks the seal. Without keys no seal is checked.
    ///
    /// # Errors
    /// See [`decode`](Self::decode).
    pub fn open(bytes: &Bytes, keys: Option<&SealKeys>) -> Result<OpenedEvent, UnreadableEvent> {
        read::event(bytes, keys)
    }
}

impl EventShape {
    /// A shape that is valid for services that run `lazy-layers-cache`, and has no effect on them.
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
