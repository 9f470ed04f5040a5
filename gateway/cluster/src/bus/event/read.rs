//! From bytes to an event: finds out their form, then reads the outer map, then our own map.
//!
//! Bytes up to the size of an event of a node ([`MAX_BYTES`]) are expanded. If they are larger, or
//! can't be expanded, the outer map is read as a stream, up to [`MAX_READ`], and only its fields
//! are kept: so the value of another service may have any size.

use std::fmt::Write;
use std::io::BufRead;

use bytes::Bytes;
use rmp::Marker;
use rmp_serde::decode::Error as Fault;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;
use sha2::{Digest, Sha256};

use super::form::{BoundedList, LaminaMap, LaminaOnlyMap, OuterMap};
use super::outer::{self, SkimmedEvent};
use super::{
    BusEvent, EventFormatError, EventShape, KnownPurges, MAX_BYTES, MAX_COUNT, MAX_DEPTH, MAX_NAME,
    MAX_PUBLISHERS, MAX_READ, MAX_TEXT, Message, NodePayload, OpenedEvent, PrimeMessage,
    PublisherNumber, UnreadableEvent,
};
use crate::bus::seal::{SealCheck, SealKeys};
use crate::envelope;

/// The tag of `lazy-layers-cache` for JSON, and how an object begins.
const JSON: &[u8] = b"HC1J";
const OBJECT: &[u8] = b"{";
/// How a record of `msgpackr` begins.
const RECORD: &[u8] = b"\xd4\x72";

/// See [`BusEvent::open`].
pub fn event(bytes: &Bytes, keys: Option<&SealKeys>) -> Result<OpenedEvent, UnreadableEvent> {
    if let Some(text) = bytes.strip_prefix(JSON) {
        return Ok(of_json(text)?);
    }
    if bytes.trim_ascii_start().starts_with(OBJECT) {
        return Ok(of_json(bytes)?);
    }
    if is_untagged(bytes) {
        return match bytes.len() <= MAX_BYTES {
            true => of_msgpack(bytes, keys),
            false => of_stream(&bytes[..], None),
        };
    }
    match envelope::expand(bytes, MAX_BYTES) {
        Ok(packed) => of_msgpack(&packed, keys),
        Err(fault) => of_stream(
            envelope::reader(bytes).map_err(EventFormatError::from)?,
            Some(fault),
        ),
    }
}

fn of_json(text: &[u8]) -> Result<OpenedEvent, EventFormatError> {
    // A list would also be read as a map of `form`, with its items as the fields.
    if !text.trim_ascii_start().starts_with(OBJECT) {
        return Err(EventFormatError::Form);
    }
    if text.len() as u64 > MAX_READ {
        return Err(EventFormatError::TooLarge);
    }
    let outer = serde_json::from_slice(text).map_err(|fault| match fault.classify() {
        Category::Eof => EventFormatError::Truncated,
        _ => EventFormatError::Form,
    })?;
    Ok(unsealed(build(outer, None)?))
}

/// Reads an event that a node may have made.
fn of_msgpack(packed: &Bytes, keys: Option<&SealKeys>) -> Result<OpenedEvent, UnreadableEvent> {
    let ours = |outer: &OuterMap| outer.lamina.and_then(|_| ours(packed));
    let event = of_skimmed(outer::skim(&packed[..]), ours)?;
    believable(&event)?;
    Ok(OpenedEvent {
        event,
        seal: keys.map_or(SealCheck::Absent, |keys| keys.check(packed)),
    })
}

/// Reads an event that is too large for a node, or whose expansion failed with `fault`.
fn of_stream(
    from: impl BufRead,
    fault: Option<envelope::EnvelopeError>,
) -> Result<OpenedEvent, UnreadableEvent> {
    let mut skimmed = outer::skim(from);
    let fault = fault.filter(|fault| *fault != envelope::EnvelopeError::TooLarge);
    skimmed.fault = skimmed.fault.or(fault.map(EventFormatError::from));
    match skimmed.outer.lamina {
        Some(_) => Err(skimmed.fault.unwrap_or(EventFormatError::TooLarge).into()),
        None => of_skimmed(skimmed, |_| None).map(unsealed),
    }
}

fn unsealed(event: BusEvent) -> OpenedEvent {
    OpenedEvent {
        event,
        seal: SealCheck::Absent,
    }
}

fn of_skimmed(
    skimmed: SkimmedEvent,
    ours: impl FnOnce(&OuterMap) -> Option<NodePayload>,
) -> Result<BusEvent, UnreadableEvent> {
    let is_enough = skimmed.is_enough();
    let SkimmedEvent {
        outer, fault, key, ..
    } = skimmed;
    let event = match is_enough {
        true => {
            let ours = ours(&outer);
            build(outer, ours).map_err(|missing| fault.unwrap_or(missing))
        }
        false => Err(fault.unwrap_or(EventFormatError::Form)),
    };
    event.map_err(|reason| UnreadableEvent { reason, key })
}

/// Refuses an event that claims to be a node's, but that no node would make.
fn believable(event: &BusEvent) -> Result<(), EventFormatError> {
    let Some(ours) = &event.ours else {
        return Ok(());
    };
    let (named, known): (Option<&str>, &[_]) = match &ours.message {
        Message::Heartbeat { version, .. } => (Some(version), &[]),
        Message::Applied { of, .. } | Message::Missing { of, .. } => (Some(of), &[]),
        Message::Prime(PrimeMessage {
            seen: KnownPurges::Publishers(known),
            ..
        }) => (None, known),
        Message::Purge { .. } | Message::Prime(_) | Message::Changed { .. } | Message::Leaving => {
            (None, &[])
        }
    };
    if known.len() > MAX_PUBLISHERS {
        return Err(EventFormatError::TooMany);
    }
    let names = [&event.id, &event.source].map(String::as_str);
    let publishers = known.iter().map(|(name, ..)| name.as_str());
    let mut names = names.into_iter().chain(named).chain(publishers);
    if event.source.is_empty() || names.any(|name| name.len() > MAX_NAME) {
        return Err(EventFormatError::Name);
    }
    let uncounted =
        ours.purges == PublisherNumber::ZERO && matches!(ours.message, Message::Purge { .. });
    let counts = [ours.purges.value(), ours.sequence];
    let mut counts = counts
        .into_iter()
        .chain(known.iter().map(|known| known.2.value()));
    match uncounted || counts.any(|count| count >= MAX_COUNT) {
        true => Err(EventFormatError::Count),
        false => Ok(()),
    }
}

/// Whether it is msgpack without a tag: a map, or a record of `msgpackr`.
fn is_untagged(packed: &[u8]) -> bool {
    let is_map = packed.first().is_some_and(|first| {
        matches!(
            Marker::from_u8(*first),
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32
        )
    });
    is_map || packed.starts_with(RECORD)
}

/// Reads `packed` as a `T`; none if it is not one, or if something follows it.
fn all_of<'a, T: Deserialize<'a>>(packed: &'a Bytes) -> Option<T> {
    let mut from = rmp_serde::Deserializer::from_read_ref(packed);
    from.set_max_depth(MAX_DEPTH);
    let whole = T::deserialize(&mut from).ok()?;
    match IgnoredAny::deserialize(&mut from) {
        Err(Fault::InvalidMarkerRead(_)) => Some(whole),
        _ => None,
    }
}

fn build(outer: OuterMap, ours: Option<NodePayload>) -> Result<BusEvent, EventFormatError> {
    let source = needed(text(outer.source)?)?;
    let ts = needed(outer.ts)?;
    if !ts.is_finite() {
        return Err(EventFormatError::Form);
    }
    let r#type = needed(text(outer.r#type)?)?;
    let shape = match r#type.as_str() {
        "del" => EventShape::Del {
            keys: keys(outer.keys)?,
        },
        "set" => EventShape::Set {
            keys: keys(outer.keys)?,
        },
        "pattern" => EventShape::Pattern(needed(text(outer.pattern)?)?),
        _ => return Err(EventFormatError::Type),
    };
    let id = text(outer.id)?.filter(|id| !id.is_empty());
    Ok(BusEvent {
        id: id.unwrap_or_else(|| made_up(&source, ts, &r#type, &shape)),
        source,
        namespace: text(outer.namespace)?,
        // A negative time becomes 0.
        ts: ts as u64,
        shape,
        ours,
    })
}

fn needed<T>(field: Option<T>) -> Result<T, EventFormatError> {
    field.ok_or(EventFormatError::Missing)
}

fn text(field: Option<String>) -> Result<Option<String>, EventFormatError> {
    match field {
        Some(text) if text.len() > MAX_TEXT => Err(EventFormatError::TooLong),
        text => Ok(text),
    }
}

fn keys(field: Option<BoundedList<String>>) -> Result<Vec<String>, EventFormatError> {
    let BoundedList { items, more } = needed(field)?;
    if more {
        return Err(EventFormatError::TooMany);
    }
    match items.iter().any(|key| key.len() > MAX_TEXT) {
        true => Err(EventFormatError::TooLong),
        false => Ok(items),
    }
}

/// Makes an id as `lazy-layers-cache` does, `source:ts:type:keys-or-pattern`, with the last part as
/// a hash, since an id is kept and that part may be a megabyte.
fn made_up(source: &str, ts: f64, r#type: &str, shape: &EventShape) -> String {
    let mut hash = Sha256::new();
    match shape {
        EventShape::Pattern(pattern) => hash.update(pattern),
        EventShape::Del { keys } | EventShape::Set { keys } => keys.iter().for_each(|key| {
            hash.update((key.len() as u64).to_be_bytes());
            hash.update(key);
        }),
    }
    let mut id = format!("{source}:{ts}:{type}:");
    for byte in &hash.finalize()[..16] {
        write!(id, "{byte:02x}").expect("a string takes everything");
    }
    id
}

fn ours(packed: &Bytes) -> Option<NodePayload> {
    let told = all_of::<LaminaOnlyMap>(packed)?.lamina;
    Some(NodePayload {
        boot: told.boot.0,
        purges: PublisherNumber::new(told.purges.0),
        sequence: told.sequence.0,
        message: message(packed, told)?,
    })
}

fn message(packed: &Bytes, told: LaminaMap<'_>) -> Option<Message> {
    Some(match told.kind {
        "purge" => Message::Purge {
            selector: owned(told.selector)?,
            soft: told.soft?,
            receipt: told.receipt?,
        },
        "prime" => Message::Prime(prime(packed, told)?),
        "changed" => Message::Changed {
            key: packed.slice_ref(told.key?),
            likeness: told.likeness?.0,
        },
        "heartbeat" => Message::Heartbeat {
            healthy: told.healthy?,
            version: owned(told.version)?,
            // Older nodes do not say it.
            asks: told.asks.unwrap_or(false),
        },
        "leaving" => Message::Leaving,
        "applied" => Message::Applied {
            of: owned(told.of)?,
            order: told.order?.0,
        },
        "missing" => Message::Missing {
            of: owned(told.of)?,
            life: told.life?.0,
            from: PublisherNumber::new(told.order?.0),
        },
        _ => return None,
    })
}

fn owned(text: Option<&str>) -> Option<String> {
    text.filter(|text| text.len() <= MAX_TEXT)
        .map(str::to_owned)
}

fn prime(packed: &Bytes, told: LaminaMap<'_>) -> Option<PrimeMessage> {
    let seen = match (told.log, told.publishers) {
        (Some(generation), None) => KnownPurges::Log {
            generation: generation.0,
        },
        (None, Some(BoundedList { items, more: false })) => KnownPurges::Publishers(
            items
                .into_iter()
                .map(|(source, boot, purges)| {
                    (source.to_owned(), boot.0, PublisherNumber::new(purges.0))
                })
                .collect(),
        ),
        _ => return None,
    };
    Some(PrimeMessage {
        key: packed.slice_ref(told.key?),
        primary: packed.slice_ref(told.primary?),
        record: packed.slice_ref(told.record?),
        seen,
    })
}

impl From<EventFormatError> for UnreadableEvent {
    fn from(reason: EventFormatError) -> Self {
        Self { reason, key: None }
    }
}

impl From<envelope::EnvelopeError> for EventFormatError {
    fn from(fault: envelope::EnvelopeError) -> Self {
        match fault {
            envelope::EnvelopeError::Tag => Self::Tag,
            envelope::EnvelopeError::Truncated => Self::Truncated,
            envelope::EnvelopeError::TooLarge => Self::TooLarge,
            envelope::EnvelopeError::Damaged => Self::Compression,
        }
    }
}
