//! What nodes tell each other, and its form on the wire.
//!
//! One msgpack map in an `HC1` envelope. The outer fields are those of the library
//! `lazy-layers-cache`, so that its users' `del`, `pattern` and `set` reach the edge and
//! ours reach them; what is ours stands beside them in one field, `lamina`, that they skip.

use bytes::Bytes;

/// One event.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Unique; made up from the rest where a foreign event has none.
    pub id: String,
    /// Who published it: the name of a node or of a service.
    pub source: String,
    /// Whom it is for; none is everybody without a namespace.
    pub namespace: Option<String>,
    /// Milliseconds since 1970 on the publisher's clock: for people, never compared.
    pub ts: u64,
    pub shape: Shape,
    /// What a Lamina node says beside it; none on foreign events.
    pub ours: Option<Ours>,
}

/// What users of `lazy-layers-cache` understand.
#[derive(Clone, PartialEq, Debug)]
pub enum Shape {
    Del {
        keys: Vec<String>,
    },
    Pattern(String),
    /// Its value is not kept: from a foreign source it is no HTTP entry.
    Set {
        keys: Vec<String>,
    },
}

/// What is ours.
#[derive(Clone, PartialEq, Debug)]
pub struct Ours {
    /// Tells two lives of one source apart; random.
    pub boot: u64,
    /// How many purges this boot has published, this one included if it is one.
    pub purges: u64,
    pub message: Message,
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
    Prime(Prime),
    /// The node is there; its purges are counted in [`Ours::purges`].
    Heartbeat {
        /// Whether it takes requests, and knows of no gap.
        healthy: bool,
        /// For people.
        version: String,
    },
    /// The purge with this event id was applied.
    Applied {
        of: String,
        /// Its place in the order of the node that applied it.
        order: u64,
    },
}

/// A value for peers, with all they need to judge it.
#[derive(Clone, PartialEq, Debug)]
pub struct Prime {
    /// The whole key, as the record is sealed to.
    pub key: Bytes,
    /// Its key without the variant.
    pub primary: Bytes,
    /// The record, as the second tier keeps it. Empty: the value changed and is too large.
    pub record: Bytes,
    pub seen: Seen,
}

/// Which purges a load knew of when it began.
#[derive(Clone, PartialEq, Debug)]
pub enum Seen {
    /// Those up to the number that its record carries, of the log with this generation.
    Log { generation: u64 },
    /// By publisher: source, boot, and how many of its purges.
    Publishers(Vec<(String, u64, u64)>),
}
